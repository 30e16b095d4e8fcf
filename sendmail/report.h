/*
 * What relay365-tokend is told of a session (relay365-token(7)): what the server
 * answered, so that it counts what was delivered and knows at once when Microsoft
 * refuses a mailbox; and the end of each lease. How it is told: see reporter.h.
 */
#ifndef RELAY365_SENDMAIL_REPORT_H
#define RELAY365_SENDMAIL_REPORT_H

#include "conf/conf.h"
#include "proto/lease.h"
#include "sendmail/reporter.h"

/* A reply, and how many recipients were taken or refused with it. */
struct report_reply {
	int code;
	const char *text; /* the first line, without its code */
	int64_t taken, refused;
};

void report_reply(struct reporter *reporter, const struct conf *conf, const struct lease *lease,
		  const struct conf_mailbox *mailbox, const struct report_reply *reply);

/*
 * lease_end(), and tokend is told of it: the one that granted it may have ended
 * since, and its successor keeps the slot. Without a lease nothing happens.
 */
void report_end(struct reporter *reporter, const struct conf *conf, struct lease *lease,
		const struct conf_mailbox *mailbox);

#endif
