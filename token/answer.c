#include "base/compat.h"

#include "token/answer.h"

#include <cjson/cJSON.h>
#include <math.h>

enum {
	RENEW_BEFORE_MS = 600000, /* before the end, or half the lifetime if that is less */
	RENEW_LEAST_MS = 2000,	  /* whatever the endpoint says */
};

static void fail(struct answer *answer, bool permanent, enum explain_class class,
		 const char *reason)
{
	answer->ok = false;
	answer->permanent = permanent;
	answer->class = class;
	(void)snprintf(answer->reason, sizeof(answer->reason), "%s", reason);
}

/* A number that may be written as text (as managed identities do); 0 when it is neither. */
static int64_t number_of(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
	double n = 0;
	char *end;

	if (cJSON_IsNumber(item)) {
		n = item->valuedouble;
	} else if (cJSON_IsString(item)) {
		n = strtod(item->valuestring, &end);
		if (end == item->valuestring || *end != '\0')
			return 0;
	}
	/* NaN fails every comparison. */
	if (!(n >= 1 && n <= 366.0 * 86400))
		return 0;
	return (int64_t)floor(n);
}

static void copy_plain(const cJSON *object, const char *name, char *to, size_t cap)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	size_t n = 0;

	while (text != NULL && n + 1 < cap && text[n] != '\0' &&
	       strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.",
		      text[n]) != NULL) {
		to[n] = text[n];
		n++;
	}
	to[n] = '\0';
}

/* The first of "error_codes", else the number behind "AADSTS" in the description. */
static long aadsts_of(const cJSON *object)
{
	const cJSON *codes = cJSON_GetObjectItemCaseSensitive(object, "error_codes");
	const cJSON *first = cJSON_GetArrayItem(codes, 0);
	const char *text;

	if (cJSON_IsNumber(first) && first->valuedouble > 0 && first->valuedouble < 1e9)
		return (long)first->valuedouble;
	text = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(object, "error_description"));
	text = text == NULL ? NULL : strstr(text, "AADSTS");
	if (text == NULL)
		return 0;
	text += strlen("AADSTS");
	return strspn(text, "0123456789") > 9 || text[0] < '0' || text[0] > '9'
		       ? 0
		       : strtol(text, NULL, 10);
}

/* What an admin can look up goes first: Entra's number, or the status of a fault that passes. */
static void name_number(int status, bool explained, struct answer *answer)
{
	char text[sizeof(answer->reason)] = "";

	if (answer->aadsts != 0)
		(void)snprintf(text, sizeof(text), "AADSTS%ld: %s", answer->aadsts,
			       answer->reason);
	else if (explained && (status == 429 || status >= 500))
		(void)snprintf(text, sizeof(text), "HTTP %d: %s", status, answer->reason);
	if (text[0] != '\0')
		memcpy(answer->reason, text, sizeof(text));
}

static void explain_error(const cJSON *object, int status, struct answer *answer)
{
	const struct explanation *what;

	copy_plain(object, "error", answer->error, sizeof(answer->error));
	copy_plain(object, "correlation_id", answer->correlation_id,
		   sizeof(answer->correlation_id));
	answer->aadsts = aadsts_of(object);
	what = explain_aadsts(answer->aadsts);
	if (what == NULL)
		what = explain_oauth_error(answer->error);
	if (what == NULL) {
		answer->permanent = status < 500 && status != 429;
		answer->class = answer->permanent ? EXPLAIN_CONFIG : EXPLAIN_TRANSIENT;
		(void)snprintf(
			answer->reason, sizeof(answer->reason),
			"the token endpoint answered HTTP %d, error %s; read Entra's sign-in log",
			status, answer->error[0] == '\0' ? "unknown" : answer->error);
	} else {
		answer->class = what->class;
		answer->permanent = what->class != EXPLAIN_TRANSIENT;
		answer->action = what->action;
		(void)snprintf(answer->reason, sizeof(answer->reason), "%s; %s", what->meaning,
			       what->action);
	}
	name_number(status, what != NULL, answer);
}

/* RFC 6750, section 2.1: b64token. Anything else could break out of the AUTH line. */
static bool is_token(const char *text)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=";
	size_t n = strlen(text);

	return n > 0 && n <= ANSWER_TOKEN_MAX && strspn(text, allowed) == n;
}

/* RFC 6749, appendix A.17: printable ASCII. One that can't be kept is as good as none. */
static void take_refresh(const cJSON *object, struct answer *answer)
{
	cJSON *item = cJSON_GetObjectItemCaseSensitive(object, "refresh_token");
	size_t n = 0;

	if (!cJSON_IsString(item))
		return;
	while (item->valuestring[n] >= ' ' && item->valuestring[n] <= '~')
		n++;
	if (n > 0 && n <= ANSWER_TOKEN_MAX && item->valuestring[n] == '\0' &&
	    secret_set(&answer->refresh, item->valuestring, n) < 0)
		fail(answer, false, EXPLAIN_TRANSIENT, "no memory for the refresh token");
	explicit_bzero(item->valuestring, strlen(item->valuestring));
}

static void take_token(const cJSON *object, struct answer *answer)
{
	cJSON *item = cJSON_GetObjectItemCaseSensitive(object, "access_token");

	if (!cJSON_IsString(item) || !is_token(item->valuestring)) {
		fail(answer, false, EXPLAIN_TRANSIENT,
		     "the token endpoint's answer has no usable access_token");
		return;
	}
	answer->ok =
		secret_set(&answer->token, item->valuestring, strlen(item->valuestring)) == 0;
	explicit_bzero(item->valuestring, strlen(item->valuestring));
	if (!answer->ok)
		fail(answer, false, EXPLAIN_TRANSIENT, "no memory for the token");
	answer->expires_in_s = number_of(object, "expires_in");
	if (answer->expires_in_s == 0)
		answer->expires_in_s = ANSWER_LIFETIME_S;
	answer->refresh_in_s = number_of(object, "refresh_in");
	if (answer->ok)
		take_refresh(object, answer);
}

void answer_parse(const struct http_answer *http, struct answer *answer)
{
	char text[128];
	cJSON *json;

	memset(answer, 0, sizeof(*answer));
	answer->retry_after_ms = http->retry_after_ms;
	answer->action = "";
	if (http->status == 0) {
		(void)snprintf(answer->reason, sizeof(answer->reason),
			       "the token endpoint can't be reached: %s", http->problem);
		answer->class = EXPLAIN_TRANSIENT;
		answer->action = "check this machine's network, name service, proxy and clock";
		return;
	}
	json = cJSON_ParseWithLength(http->body, http->body_len);
	if (http->status == 200 && cJSON_IsObject(json)) {
		take_token(json, answer);
	} else if (cJSON_IsObject(json) && cJSON_HasObjectItem(json, "error")) {
		explain_error(json, http->status, answer);
		if (http->status == 429 || http->status >= 500)
			answer->permanent = false;
	} else {
		bool redirect = http->status >= 300 && http->status < 400;

		(void)snprintf(
			text, sizeof(text), "the token endpoint answered HTTP %d %s",
			http->status,
			redirect ? "(a redirect, which is not followed); check token_endpoint"
				 : "without an answer in JSON; is there a proxy in between?");
		fail(answer, false, EXPLAIN_TRANSIENT, text);
	}
	cJSON_Delete(json);
}

int64_t answer_renew_in_ms(const struct answer *answer)
{
	int64_t life_ms = answer->expires_in_s * 1000, said_ms = answer->refresh_in_s * 1000;
	int64_t before_ms = life_ms / 2 < RENEW_BEFORE_MS ? life_ms / 2 : RENEW_BEFORE_MS;
	int64_t next_ms = life_ms - before_ms;

	if (said_ms > 0 && said_ms < RENEW_LEAST_MS)
		said_ms = RENEW_LEAST_MS;
	return said_ms > 0 && said_ms < next_ms ? said_ms : next_ms;
}

void answer_clear(struct answer *answer)
{
	secret_clear(&answer->token);
	secret_clear(&answer->refresh);
}
