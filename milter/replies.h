/* A verdict as the SMTP reply that the sender sees. Pure. */
#ifndef RELAY365_MILTER_REPLIES_H
#define RELAY365_MILTER_REPLIES_H

#include "conf/conf.h"
#include "quota/locks.h"
#include "quota/policy.h"

#define REPLY_INCIDENT_MAX 5 /* bytes of an incident's number as text, with the NUL */
#define REPLY_TEXT_MAX 480   /* bytes with the NUL: a reply line of 512 with its codes */

struct reply {
	char code[4];	/* "451" */
	char status[8]; /* "4.7.1" */
	char text[REPLY_TEXT_MAX];
};

/* For a verdict that refuses. Names limit, use and time. */
void reply_verdict(const struct quota_verdict *verdict, int64_t now_wall_ms,
		   struct reply *reply_r);

/* 452 4.5.3: the message has as many recipients as this mailbox may send to at once. */
void reply_too_many_recipients(const char *mailbox, int64_t max, struct reply *reply_r);

/* 550 5.7.1: the source's list of mailboxes does not name this one. */
void reply_not_allowed(const char *source, const char *mailbox, struct reply *reply_r);

/* 550 5.7.1: the mailbox may not send as this envelope sender. Says which line allows it. */
void reply_other_sender(const char *sender, const struct conf_mailbox *mailbox,
			struct reply *reply_r);

/* The same for the address in a field, From or Sender; "": it can't be told. */
void reply_other_field(const char *field, const char *address, const struct conf_mailbox *mailbox,
		       struct reply *reply_r);

/* 552 5.3.4: larger than the mailbox may send. */
void reply_too_large(const struct conf_mailbox *mailbox, int64_t bytes, struct reply *reply_r);

/*
 * 451 4.3.5: a reload brought what ("the check of senders") needs more of each message than
 * the MTA was asked for when this session began.
 */
void reply_unseen(const char *what, struct reply *reply_r);

/* 550 5.7.1: the source is locked. */
void reply_locked(const struct lock *lock, int64_t now_wall_ms, struct reply *reply_r);

/* 451 4.3.0: what was accepted could not be written down. */
void reply_no_ledger(struct reply *reply_r);

/* 451 4.7.1: the message should be put on hold, and this MTA has no way to. */
void reply_no_hold(const struct quota_verdict *verdict, int64_t now_wall_ms,
		   struct reply *reply_r);

/* 451 4.7.1: the same for a source that runs away. */
void reply_no_quarantine(const char *source, struct reply *reply_r);

/* "relay@contoso.com: 9500 of 9500 recipients used in 24 h", fit to be shown (base/plain.h). */
void reply_use(const struct quota_verdict *verdict, char *out, size_t cap);

/* An incident's number as people see it, "a1f3"; returns out. */
const char *reply_incident(unsigned int incident, char out[REPLY_INCIDENT_MAX]);

#endif
