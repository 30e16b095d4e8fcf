/*
 * The session to Microsoft's server: connected, encrypted and signed in. These
 * functions block until their deadline; then the wire is the caller's to use.
 */
#ifndef RELAY365_SENDMAIL_UPSTREAM_H
#define RELAY365_SENDMAIL_UPSTREAM_H

#include "conf/conf.h"
#include "sendmail/reply.h"
#include "sendmail/wire.h"

#define UPSTREAM_OFFERS_MAX 4096 /* bytes of EHLO keywords that are passed on */
#define UPSTREAM_TEXT_MAX 400	 /* bytes of a reply that is quoted */

struct upstream {
	struct wire wire;
	const struct conf_tenant *tenant;   /* whose server; NULL: not connected */
	const struct conf_mailbox *mailbox; /* NULL: not signed in */
	bool can_xoauth2;
	/* What EHLO showed after TLS, a line each, less what is not for our client. */
	char offers[UPSTREAM_OFFERS_MAX];
	size_t offers_len;
	char refused[UPSTREAM_TEXT_MAX]; /* with which upstream_sign_in() was refused, "" */
};

/* Not connected yet. */
void upstream_init(struct upstream *up);

/* Connects to the tenant's server, STARTTLS, EHLO. On failure it is closed again. */
int upstream_open(struct upstream *up, const struct conf_tenant *tenant, struct tls_trust *trust,
		  int64_t until_ms, struct err *err);

/*
 * AUTH XOAUTH2 in two steps: the token goes out only after the server's empty
 * 334, since the answer to anything else might show it. On failure it is closed.
 */
int upstream_sign_in(struct upstream *up, const struct conf_mailbox *mailbox, const char *token,
		     size_t token_len, int64_t until_ms, struct err *err);

/*
 * Whether it is connected, and the server has said nothing since it last answered:
 * one that hangs up says so first, and that is no answer to the next command.
 */
bool upstream_is_quiet(struct upstream *up);

/* Says QUIT, waits for nothing, and disconnects. */
void upstream_close(struct upstream *up);

/* Breaks the connection, so that what is on its way (half a message) is thrown away. */
void upstream_drop(struct upstream *up);

#endif
