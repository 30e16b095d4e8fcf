/*
 * The probes of all mailboxes: after each new token, on demand, and again
 * while one fails. A few at a time; the last verdict of each is kept. A
 * refusal that an admin must mend is an alarm.
 */
#ifndef RELAY365_TOKEN_PROBES_H
#define RELAY365_TOKEN_PROBES_H

#include "token/identity.h"

#include "conf/conf.h"

struct probes;

struct probes *probes_new(struct loop *loop, struct http *http);
void probes_free(struct probes **probes);

/*
 * When the configuration is read: identity_of() finds a mailbox's identity
 * until the next call. What was under way is given up; verdicts of mailboxes
 * that stay are kept.
 */
void probes_configure(struct probes *probes, const struct conf *conf,
		      struct identity *(*identity_of)(void *arg, const struct conf_mailbox *m),
		      void *arg);

/* Before a new configuration: nothing of the old one is used any more. */
void probes_stop(struct probes *probes);

/* The identity has a new token: its mailboxes are tried, if the configuration says so. */
void probes_renewed(struct probes *probes, const struct identity *identity);

/* Tries a mailbox now, ahead of the others. Returns the number of the probe, 0: no such mailbox.
 */
long long probes_ask(struct probes *probes, const struct conf_mailbox *mailbox);

/*
 * The last verdict, see relay365-control(7); NULL when there is none yet, or
 * none of this number or a later one.
 */
cJSON *probes_verdict(const struct probes *probes, const char *name, long long number,
		      bool transcript);

#endif
