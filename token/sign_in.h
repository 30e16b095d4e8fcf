/*
 * A user signs in, once, so that a mailbox has a refresh token: with a device
 * code (RFC 8628), entered on any machine, or with a browser (authorization
 * code with PKCE, RFC 7636), whose last address is pasted; or an earlier
 * sign-in's refresh token is taken over from another program. Tokens go from
 * the endpoint to the identity and nowhere else; whoever started it sees its
 * progress only.
 */
#ifndef RELAY365_TOKEN_SIGN_IN_H
#define RELAY365_TOKEN_SIGN_IN_H

#include "token/identity.h"

struct sign_in;

struct sign_in *sign_in_new(const struct identity_parts *parts);
void sign_in_free(struct sign_in **sign_in);

/*
 * Begins, in place of what was under way. identity, its configuration and
 * mailbox must stay until sign_in_stop(). Returns -1 when it can't begin.
 */
int sign_in_device(struct sign_in *sign_in, struct identity *identity,
		   const struct conf_mailbox *mailbox, struct err *err);
int sign_in_browser(struct sign_in *sign_in, struct identity *identity,
		    const struct conf_mailbox *mailbox, struct err *err);

/*
 * With the refresh token of a sign-in for another program. It is redeemed at
 * once, and what comes of it is kept; refresh is copied.
 */
int sign_in_import(struct sign_in *sign_in, struct identity *identity,
		   const struct conf_mailbox *mailbox, const struct secret *refresh,
		   struct err *err);

/* What the browser was sent back with, whole address or query; only after sign_in_browser(). */
int sign_in_answer(struct sign_in *sign_in, const char *address, struct err *err);

/* Gives up. */
void sign_in_stop(struct sign_in *sign_in);

/*
 * {"state": "none" | "starting" | "waiting" | "done" | "failed", ...}: with
 * "waiting" what the user must do ("user_code", "verification_uri",
 * "message", or "authorize_url"), with "failed" the "reason". storing: the
 * identity's new token is still on its way to the disk, so nothing is done yet.
 */
cJSON *sign_in_status(const struct sign_in *sign_in, bool storing);

#endif
