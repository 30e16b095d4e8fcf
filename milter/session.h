/*
 * What one SMTP session and its message know, and what happens to them. The
 * milter protocol is milter.c's: nothing here depends on libmilter, so a test
 * plays a session by calling these functions in the MTA's order.
 *
 * A session belongs to one thread at a time. session_mail() begins a message
 * and forgets the one before; session_abort() may come at any time and often.
 */
#ifndef RELAY365_MILTER_SESSION_H
#define RELAY365_MILTER_SESSION_H

#include "milter/live.h"
#include "milter/replies.h"
#include "milter/sender.h"
#include "milter/usage.h"
#include "quota/quota.h"

#define SESSION_ID_MAX 64	/* bytes of a queue id */
#define SESSION_CLIENT_MAX 64	/* bytes of a network address as text */
#define SESSION_REASON_MAX 400	/* bytes of a reason for quarantine */
#define SESSION_TIMEOUT_S 7210	/* that the MTA has between two steps; DATA lies between some */
#define SESSION_MAILBOXES_MAX 8 /* different mailboxes that one message may use */

struct session;

/* All must outlive the session. */
struct session *session_new(struct live *live, struct quota *quota, struct usage *usage);
void session_free(struct session **session);

/* What the MTA tells with MAIL. Strings may be NULL or ""; they are copied. */
struct session_mail {
	const char *sender; /* as in SMTP, "<a@b>" */
	const char *client; /* address of who sends */
	const char *login;  /* authenticated name */
	const char *queue_id;
	/*
	 * The MTA plays a session for local mail: it can't refuse one recipient
	 * alone, and does not tell where a recipient is routed to.
	 */
	bool simulated;
	int64_t bytes; /* as the client announced, 0 if not */
};

struct session_rcpt {
	const char *recipient; /* as in SMTP */
	const char *mailer;    /* {rcpt_mailer}, {rcpt_host} */
	const char *host;
	bool hostless; /* the session began when no host mattered, so none is told */
	const char *queue_id;
	/* Domains that stay on the MTA's machine, as Postfix lists them; NULL: not known. */
	const char *local;
};

enum session_result {
	SESSION_CONTINUE,
	SESSION_REFUSE, /* with the reply */
	SESSION_HOLD	/* at end of message: quarantine, with the reason, and continue */
};

void session_mail(struct session *session, const struct session_mail *mail);
enum session_result session_rcpt(struct session *session, const struct session_rcpt *rcpt,
				 struct reply *reply_r);

/* A field of the header; needed only where sender_reads_header() or limits_count_bytes(). */
void session_field(struct session *session, const char *name, const char *value);

/* Bytes of the body; needed only where limits_count_bytes(). */
void session_body(struct session *session, size_t len);

/* What the MTA has told, and what it lets a milter do, when a message ends. */
struct session_ending {
	const char *queue_id;
	bool saw_header; /* fields were told, */
	bool saw_body;	 /* and the body too */
	bool can_change; /* the sender and the header */
	bool can_hold;
};

struct session_outcome {
	struct reply reply;		 /* SESSION_REFUSE */
	char reason[SESSION_REASON_MAX]; /* SESSION_HOLD */
	struct sender_change change;	 /* else; to be cleared in any case */
};

/* End of message: charges what was reserved, before the MTA is answered. */
enum session_result session_end(struct session *session, const struct session_ending *ending,
				struct session_outcome *outcome_r);

/* The message is none: gives back what it has reserved. */
void session_abort(struct session *session);

#endif
