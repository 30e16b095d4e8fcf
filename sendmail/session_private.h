/* What the files of a session share. */
#ifndef RELAY365_SENDMAIL_SESSION_PRIVATE_H
#define RELAY365_SENDMAIL_SESSION_PRIVATE_H

#include "proto/lease.h"
#include "sendmail/body.h"
#include "sendmail/patience.h"
#include "sendmail/report.h"
#include "sendmail/session.h"
#include "sendmail/upstream.h"

#define SESSION_PENDING_MAX 1024 /* commands that the server has not answered yet */

enum phase {
	PHASE_COMMANDS,
	PHASE_ASKED, /* DATA was sent: its reply decides what comes next */
	PHASE_BODY
};

struct session {
	const struct session_parts *parts;
	struct live_conf *live;
	const struct conf *conf; /* live's */
	struct wire client;
	struct upstream up;
	struct lease lease; /* of the message in progress or next; fd -1: none */
	const struct conf_mailbox *lease_mailbox;

	enum phase phase;
	enum body_at body_at;
	enum sent pending[SESSION_PENDING_MAX]; /* a ring */
	size_t pending_from, pending_count;
	bool unanswered;  /* the end of the message was sent, and has no reply yet */
	bool in_mail;	  /* MAIL was sent, and the message has not ended */
	bool ending;	  /* what is in client.out is the last */
	int64_t moved_ms; /* when something went through last, boot clock */

	/* The message, for the log. */
	char sender[512];
	int64_t named;	    /* recipients that were sent on, taken or not */
	int64_t recipients; /* that the server took */
	int64_t bytes;
	int64_t begun_ms;
};

/* session.c: a reply of ours, CRLF added; and the last one. */
void session_answer(struct session *session, const char *fmt, ...) PRINTF_LIKE(2, 3);
void session_bye(struct session *session, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* session.c: lease, connection and AUTH for a mailbox. */
int session_sign_in(struct session *session, const struct conf_mailbox *mailbox, struct err *err);

/* session.c: the message is over, whatever became of it. */
void session_message_over(struct session *session);

/* session.c: the end of the message was sent, or its fate is known. */
void session_unanswered(struct session *session, bool is);

void session_push(struct session *session, enum sent sent);

/* session_client.c: takes what the client has sent; whether anything could be. */
bool session_client(struct session *session);

/* session_server.c: takes one reply of the server; whether there was one. */
bool session_server(struct session *session);

/* session_server.c: a reply, as the client gets it, and whom it concerns, to relay365-tokend. */
void session_report(const struct session *session, int code, const char *line, int64_t taken,
		    int64_t refused);

#endif
