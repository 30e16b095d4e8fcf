/*
 * An identity: a tenant's application and its access token. One request is in
 * flight for it however many wait; the token is renewed by a timer before it
 * ends, so that mail doesn't wait for Entra; during an outage a token that is
 * still valid is served to its end.
 */
#ifndef RELAY365_TOKEN_IDENTITY_H
#define RELAY365_TOKEN_IDENTITY_H

#include "http/http.h"

#include "conf/conf.h"
#include "explain/explain.h"

#include <cjson/cJSON.h>

/* A token that ends sooner than this is not given out: AUTH itself takes time. */
#define IDENTITY_LEAST_LIFE_MS 5000

struct identity;

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

/* Starts to fetch at once. conf must live until identity_configure() or free. */
struct identity *identity_new(struct loop *loop, struct http *http,
			      const struct conf_tenant *conf);

/* Fails whoever waits and frees. */
void identity_free(struct identity **identity);

/*
 * After a reload. When what the token depends on has changed the token is
 * dropped; whatever error stood is forgotten and a fetch starts if there is no
 * token.
 */
void identity_configure(struct identity *identity, const struct conf_tenant *conf);

const char *identity_name(const struct identity *identity);

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

/* The sentence that says why there is no token; "" when all is well. */
const char *identity_problem(const struct identity *identity);

/* For status: {"name", "state", "grant", "expires_at", "last_error", ...}. No secret in it. */
cJSON *identity_status(const struct identity *identity);

#endif
