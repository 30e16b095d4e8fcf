/*
 * What a token endpoint answered, understood: a token, or why there is none
 * and when to ask again. Parsed by cJSON from a bounded body. The decision
 * rests on "error" and the AADSTS number, never on the description, which is
 * not kept: it may hold what is none of a log's business.
 */
#ifndef RELAY365_TOKEN_ANSWER_H
#define RELAY365_TOKEN_ANSWER_H

#include "http/http.h"

#include "explain/explain.h"

#include <stdint.h>

#define ANSWER_TOKEN_MAX 16000 /* bytes; Entra's tokens have 1.5 to 12 KB */
#define ANSWER_LIFETIME_S 600  /* believed when expires_in is missing or no number */

struct answer {
	bool ok;
	/* with ok */
	struct secret token;
	int64_t expires_in_s;
	int64_t refresh_in_s;  /* 0: not given */
	struct secret refresh; /* refresh token; not set: none came */
	/* without */
	bool permanent; /* until an admin acts */
	enum explain_class class;
	long aadsts; /* 0: none */
	char error[64];
	char correlation_id[48];
	int64_t retry_after_ms; /* -1: not said */
	char reason[512];	/* a sentence: what is wrong, what to do */
	const char *action;	/* what to do alone; a constant, "" when nothing is known */
};

/* Fills answer_r, which is the caller's to clear. */
void answer_parse(const struct http_answer *http, struct answer *answer_r);

/*
 * When to renew a token that has come: ten minutes before its end, or at half
 * its life if that is later, or when the endpoint says, but not each second.
 */
int64_t answer_renew_in_ms(const struct answer *answer);

/* Wipes the tokens. */
void answer_clear(struct answer *answer);

#endif
