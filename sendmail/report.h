/*
 * Tells relay365-tokend what the server answered (verb=status of
 * relay365-token(7)), so that it counts what was delivered, and knows at once
 * when Microsoft refuses a mailbox.
 */
#ifndef RELAY365_SENDMAIL_REPORT_H
#define RELAY365_SENDMAIL_REPORT_H

#include "conf/conf.h"
#include "proto/lease.h"

/*
 * text: the reply's first line, without its code; recipients: how many it is
 * about. Goes over the lease's connection while there is one, else over
 * one of its own; waits 5 seconds at most. That it could not be said is logged.
 */
void report_reply(const struct conf *conf, const struct lease *lease,
		  const struct conf_mailbox *mailbox, int code, const char *text,
		  int64_t recipients);

#endif
