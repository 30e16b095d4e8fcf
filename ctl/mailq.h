/* Sendmail's queue, as "sendmail -bp" lists it. */
#ifndef RELAY365_CTL_MAILQ_H
#define RELAY365_CTL_MAILQ_H

#include "base/err.h"
#include "conf/conf.h"

#define MAILQ_ID_MAX 32
#define MAILQ_TEXT_MAX 400

struct mailq_item {
	char id[MAILQ_ID_MAX + 1];
	char sender[MAILQ_TEXT_MAX]; /* without <> */
	char reason[MAILQ_TEXT_MAX]; /* why it waits, or was quarantined; "" if it does not say */
	int recipients;
};

/*
 * The command that runs Sendmail: the given one, or, where no Postfix has one
 * of conf's queue directories and there is a sendmail.cf, the usual program.
 * NULL: this is no machine with Sendmail.
 */
const char *mailq_command(const struct conf *conf, const char *given);

/* Calls each for every message that waits, or with quarantine for those that are held. */
int mailq_list(const char *command, bool quarantine,
	       void (*each)(void *arg, const struct mailq_item *item), void *arg,
	       struct err *err);

/* Lets a message out of quarantine; it leaves with the next run of the queue. */
int mailq_release(const char *command, const char *id, struct err *err);

/* The same text that Sendmail prints, taken apart. */
void mailq_parse(const char *text, void (*each)(void *arg, const struct mailq_item *item),
		 void *arg);

#endif
