/*
 * A session of an MTA that can't sign in to Microsoft itself: it speaks plain
 * SMTP to us, and we hold the session to Microsoft's server. Commands, message
 * data and replies go through as they are, pipelined; nothing is stored.
 *
 * With one mailbox we sign in before the greeting, with several at MAIL, for
 * the mailbox of the sender. What goes wrong on our side of the server is
 * answered 421 or 451, so that the MTA keeps the mail.
 */
#ifndef RELAY365_SENDMAIL_SESSION_H
#define RELAY365_SENDMAIL_SESSION_H

#include "sendmail/live.h"
#include "sendmail/reporter.h"

#include <stdatomic.h>

/* What all sessions share; it outlives them. */
struct session_parts {
	struct live *live;
	struct reporter *reporter;
	int stop_fd;		/* readable: end, when the message in progress is through */
	atomic_int *unanswered; /* messages whose end was sent and has no reply yet */
};

/* How long sessions need to end: most, and those of an unanswered message. */
#define SESSION_STOP_MS (12 * 1000)
#define SESSION_STOP_MOST_MS (77 * 1000)

/* Serves the MTA at fd, which it closes, until the session's end. One thread each. */
void session_run(const struct session_parts *parts, int fd);

/* The reply, without its end, for one session too many. */
#define SESSION_TOO_MANY "421 4.3.2 relay365-submit has too many sessions; try again later\r\n"

#endif
