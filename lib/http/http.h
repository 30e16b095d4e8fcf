/*
 * HTTP requests by libcurl, many at a time on a loop's one thread, and what
 * other protocols of libcurl need of that loop. Only http.c and the SMTP probe
 * include curl.h.
 *
 * Answers are bounded (HTTP_ANSWER_MAX), redirects are not followed, TLS is
 * 1.2 or later with certificate and name verified, and a request has ended,
 * well or not, after HTTP_TIMEOUT_MS at the latest: before the SASL plugin
 * that waits for a token gives up. A name server that doesn't answer holds up
 * its request alone, with libcurl 7.87 or later.
 */
#ifndef RELAY365_HTTP_HTTP_H
#define RELAY365_HTTP_HTTP_H

#include "base/err.h"
#include "base/loop.h"
#include "base/secret.h"

#define HTTP_ANSWER_MAX 65536
#define HTTP_TIMEOUT_MS 20000
#define HTTP_CONNECT_TIMEOUT_MS 8000
#define HTTP_RETRY_AFTER_MAX_S 86400 /* who asks for more patience gets this much */

struct http;
struct http_request;

/* What came back. Everything in it is gone when the callback returns. */
struct http_answer {
	int status; /* 0: no whole answer came, problem says why */
	char problem[256];
	const char *body; /* NUL-terminated */
	size_t body_len;
	int64_t retry_after_ms; /* from Retry-After; -1: not given */
	int64_t took_ms;
};

struct http_target {
	const char *url;
	const char *ca_file; /* "": the system's */
	const char *proxy;   /* "": none, whatever the environment says; NULL: as it says */
	const char *proxy_secret_file; /* NAME:PASSWORD for it; "" or NULL: it wants none */
	const char *type;	       /* Content-Type of the body; NULL: a form */
	const char *header;	       /* one more header line; NULL: none */
	bool plain;		       /* http:// is fine too */
};

struct http *http_new(struct loop *loop, struct err *err);
void http_free(struct http **http);

/*
 * POSTs body (moved into the request and wiped when done); with body NULL it
 * is a GET. done() comes once, never from inside this call. Returns NULL when
 * the request can't be made.
 */
struct http_request *http_send(struct http *http, const struct http_target *target,
			       struct secret *body,
			       void (*done)(void *arg, const struct http_answer *answer),
			       void *arg, struct err *err);

/* Ends a request; done() will not come. */
void http_abort(struct http_request **request);

/*
 * Another protocol's transfer on the same loop: easy is a CURL handle whose
 * CURLOPT_PRIVATE is this. ended() gets the CURLcode, once, never from inside
 * http_start().
 */
struct http_transfer {
	void *easy;
	void (*ended)(struct http_transfer *transfer, int code);
};

int http_start(struct http *http, struct http_transfer *transfer);
void http_stop(struct http *http, struct http_transfer *transfer);

#endif
