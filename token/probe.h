/*
 * An AUTH-only SMTP session by libcurl: EHLO, STARTTLS, AUTH XOAUTH2, NOOP,
 * QUIT. It shows whether Exchange takes a token before mail finds out, and
 * sends nothing. It is over in 20 seconds at most, usually in one, and takes
 * no sending slot: Microsoft counts submissions.
 */
#ifndef RELAY365_TOKEN_PROBE_H
#define RELAY365_TOKEN_PROBE_H

#include "http/http.h"

#include "base/buf.h"
#include "explain/explain.h"

#define PROBE_TRANSCRIPT_MAX 8192

struct probe;

struct probe_target {
	const char *host; /* whose certificate it must be */
	int port;
	const char *address; /* where to connect instead; "": host */
	const char *ca_file; /* "": the system's */
	const char *user;    /* the mailbox's address */
};

/* Gone when the callback returns. */
struct probe_result {
	bool ok;
	const char *reply;	/* the server's last word, ""; without anything secret */
	const char *problem;	/* why there is no verdict of the server, "" */
	const char *transcript; /* lines "> ", "< " and "* "; the token is hidden */
	int64_t took_ms;
};

/* token is copied. done() comes once, never from inside this call. NULL: it can't begin. */
struct probe *probe_start(struct http *http, const struct probe_target *target, const char *token,
			  void (*done)(void *arg, const struct probe_result *result), void *arg,
			  struct err *err);

/* done() will not come. */
void probe_abort(struct probe **probe);

#endif
