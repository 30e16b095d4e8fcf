/*
 * An identity: whom a token is for, and that token. An application's serves
 * all mailboxes of its tenant; with `delegated` each mailbox has one of its
 * own, for the user who signed in. One request is in flight for it however
 * many wait; the token is renewed by a timer before it ends, so that mail
 * doesn't wait for Entra; during an outage a token that is still valid is
 * served to its end, by the next process too.
 */
#ifndef RELAY365_TOKEN_IDENTITY_H
#define RELAY365_TOKEN_IDENTITY_H

#include "http/http.h"
#include "token/gate.h"
#include "token/vault.h"

#include "conf/conf.h"
#include "explain/explain.h"

#include <cjson/cJSON.h>

/* A token that ends sooner than this is not given out: AUTH itself takes time. */
#define IDENTITY_LEAST_LIFE_MS 5000

/* One that comes with less can't be used: it is asked for as after an error that passes. */
#define IDENTITY_SHORT_LIFE_MS (IDENTITY_LEAST_LIFE_MS + 1000)

struct identity;
struct answer;

/* What all identities use; copied. */
struct identity_parts {
	struct loop *loop;
	struct http *http;
	struct gate *gate;
	struct vault *vault;
	/* Somebody may want to try each new token; may be NULL. */
	void (*renewed)(void *arg, struct identity *identity);
	void *arg;
};

struct identity_token {
	const char *text; /* valid until the caller returns to the loop */
	size_t len;
	int64_t expires_at_wall_ms;
};

/* Somebody who wants a token; embedded in its owner and zeroed at first. */
struct identity_waiter {
	/* Once, with a token or with a reason and the time until the next try. */
	void (*done)(struct identity_waiter *waiter, const struct identity_token *token,
		     const char *reason, int64_t retry_after_ms);
	struct identity *identity; /* NULL: not waiting */
	struct identity_waiter *next, *prev;
};

/*
 * Takes what the vault has and starts to fetch at once. mailbox NULL: an
 * application's. Both must live until identity_configure() or free.
 */
struct identity *identity_new(const struct identity_parts *parts, const struct conf_tenant *conf,
			      const struct conf_mailbox *mailbox);

/* Fails whoever waits and frees. */
void identity_free(struct identity **identity);

/*
 * After a reload. When what the token depends on has changed the token is
 * dropped; whatever error stood is forgotten and a fetch starts if there is no
 * token.
 */
void identity_configure(struct identity *identity, const struct conf_tenant *conf,
			const struct conf_mailbox *mailbox);

/* The key of the identity that a mailbox uses: equal for those who share one. */
void identity_key(const struct conf_tenant *conf, const struct conf_mailbox *mailbox,
		  char key_r[VAULT_NAME_MAX + 1]);
const char *identity_own_key(const struct identity *identity);

/* "contoso", or "mailbox/relay": for logs, status and alarms. */
const char *identity_name(const struct identity *identity);
const struct conf_tenant *identity_tenant(const struct identity *identity);

/*
 * Calls waiter->done(), at once when there is a valid token or an error still
 * in its back-off, else when the fetch has ended.
 */
void identity_get(struct identity *identity, struct identity_waiter *waiter);
void identity_cancel(struct identity_waiter *waiter);

/*
 * Exchange refused the token though it has not ended: it may have been revoked,
 * or the application's permissions are newer than it. Another one is fetched
 * soon, but not each time, since most refusals have other causes; this one is
 * served until then.
 */
void identity_doubt(struct identity *identity);

/* A user has signed in: answer is the token endpoint's, with tokens; it is cleared. */
void identity_signed_in(struct identity *identity, struct answer *answer, int64_t took_ms);

/* The sentence that says why there is no token; "" when all is well. */
const char *identity_problem(const struct identity *identity);

/* Whether a new token is not served yet, since its refresh token must be on disk first. */
bool identity_is_storing(const struct identity *identity);

/* For status; see relay365-control(7). No secret in it. */
cJSON *identity_status(const struct identity *identity);

/* When the refresh token dies if it is not used, in seconds since 1970; 0: there is none. */
int64_t identity_idle_end_s(const struct identity *identity);
#define IDENTITY_IDLE_DAYS 90 /* Entra's default for refresh tokens */

#endif
