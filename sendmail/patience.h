/* How long a session waits when nothing moves (RFC 5321, section 4.5.3.2). Pure. */
#ifndef RELAY365_SENDMAIL_PATIENCE_H
#define RELAY365_SENDMAIL_PATIENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A command that was sent to the server, for its reply. */
enum sent {
	SENT_MAIL,
	SENT_RCPT,
	SENT_DATA,
	SENT_END, /* the end of the message */
	SENT_QUIT,
	SENT_RSET,
	SENT_NOOP,
	SENT_QUIET /* a RSET of ours: the client does not see the reply */
};

/* Milliseconds for the reply to the oldest command without one; NULL: for the next command. */
int64_t patience_reply_ms(const enum sent *oldest);

/* For a piece of a message to come or, when blocked, to go. */
int64_t patience_body_ms(bool blocked);

#endif
