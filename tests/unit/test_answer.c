#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "token/answer.h"

#include "base/buf.h"

#define CANARY "canary-in-the-description"

static struct answer answer;

static void parse_len(int status, const char *body, size_t len, int64_t retry_after_ms)
{
	struct http_answer http = {.status = status,
				   .body = body,
				   .body_len = len,
				   .retry_after_ms = retry_after_ms};

	secret_clear(&answer.token);
	answer_parse(&http, &answer);
	assert_int_equal(answer.ok, secret_is_set(&answer.token));
	assert_int_equal(answer.retry_after_ms, retry_after_ms);
	assert_int_equal(answer.ok, answer.reason[0] == '\0');
	assert_null(strstr(answer.reason, CANARY));
	for (const char *p = answer.reason; *p != '\0'; p++)
		assert_true(*p >= 32 && *p < 127);
}

static void parse(int status, const char *body)
{
	parse_len(status, body, strlen(body), -1);
}

static int leave(void **state)
{
	(void)state;
	secret_clear(&answer.token);
	return 0;
}

/* ---- tokens ---- */

static void test_good(void **state)
{
	(void)state;
	parse(200, "{\"token_type\":\"Bearer\",\"expires_in\":4512,\"ext_expires_in\":4512,"
		   "\"refresh_in\":2000,\"access_token\":\"eyJ0eXAi.abc-_~+/==\"}");
	assert_true(answer.ok);
	assert_string_equal(answer.token.data, "eyJ0eXAi.abc-_~+/==");
	assert_int_equal(answer.expires_in_s, 4512);
	assert_int_equal(answer.refresh_in_s, 2000);
	assert_int_equal(answer.aadsts, 0);
}

static void test_expires_in(void **state)
{
	static const struct {
		const char *value; /* NULL: not there */
		int64_t expires_in_s, refresh_in_s;
	} cases[] = {
		{"3599", 3599, 3599},
		{"\"3599\"", 3599, 3599},
		{"3599.9", 3599, 3599},
		{"\"86399\"", 86399, 86399},
		{"1e3", 1000, 1000},
		{NULL, ANSWER_LIFETIME_S, 0},
		{"null", ANSWER_LIFETIME_S, 0},
		{"0", ANSWER_LIFETIME_S, 0},
		{"-3600", ANSWER_LIFETIME_S, 0},
		{"\"-1\"", ANSWER_LIFETIME_S, 0},
		{"1e300", ANSWER_LIFETIME_S, 0},
		{"1e999", ANSWER_LIFETIME_S, 0},
		{"9223372036854775808", ANSWER_LIFETIME_S, 0},
		{"\"nan\"", ANSWER_LIFETIME_S, 0},
		{"\"inf\"", ANSWER_LIFETIME_S, 0},
		{"\"\"", ANSWER_LIFETIME_S, 0},
		{"\"soon\"", ANSWER_LIFETIME_S, 0},
		{"\"3600 seconds\"", ANSWER_LIFETIME_S, 0},
		{"true", ANSWER_LIFETIME_S, 0},
		{"[3600]", ANSWER_LIFETIME_S, 0},
		{"{\"s\":3600}", ANSWER_LIFETIME_S, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char body[256];

		if (cases[i].value == NULL)
			(void)snprintf(body, sizeof(body), "{\"access_token\":\"abc\"}");
		else
			(void)snprintf(
				body, sizeof(body),
				"{\"access_token\":\"abc\",\"expires_in\":%s,\"refresh_in\":%s}",
				cases[i].value, cases[i].value);
		parse(200, body);
		assert_true(answer.ok);
		assert_int_equal(answer.expires_in_s, cases[i].expires_in_s);
		assert_int_equal(answer.refresh_in_s, cases[i].refresh_in_s);
	}
}

static void test_renewal(void **state)
{
	static const struct {
		int64_t life_s, said_s, next_ms;
	} cases[] = {
		{3600, 0, 3000000}, {3600, 1800, 1800000}, {3600, 3500, 3000000},
		{1200, 0, 600000},  {1000, 0, 500000},	   {11, 0, 5500},
		{3600, 3, 3000},    {3600, 1, 2000},	   {8, 7, 4000},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct answer it = {.ok = true,
					  .expires_in_s = cases[i].life_s,
					  .refresh_in_s = cases[i].said_s};

		assert_int_equal(answer_renew_in_ms(&it), cases[i].next_ms);
	}
}

/* What could break out of the AUTH line, or is none, is never a token. */
static void test_bad_tokens(void **state)
{
	static const char *const bodies[] = {
		"{}",
		"{\"access_token\":null}",
		"{\"access_token\":5}",
		"{\"access_token\":\"\"}",
		"{\"access_token\":[\"abc\"]}",
		"{\"Access_Token\":\"abc\"}",
		"{\"access_token\":\"abc\\r\\nMAIL FROM:<x@y>\"}",
		"{\"access_token\":\"abc\\n\"}",
		"{\"access_token\":\"abc\\u0001auth=Bearer x\"}",
		"{\"access_token\":\"abc def\"}",
		"{\"access_token\":\"abc\\u007f\"}",
		"{\"access_token\":\"abc\303\251\"}",
		"{\"access_token\":\"abc\\u00e9\"}",
		"{\"access_token\":\"abc\\\"\"}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		parse(200, bodies[i]);
		if (answer.ok)
			fail_msg("taken: %s", bodies[i]);
		assert_false(answer.permanent);
		assert_int_equal(answer.class, EXPLAIN_TRANSIENT);
		assert_string_equal(answer.reason,
				    "the token endpoint's answer has no usable access_token");
	}
}

static void test_token_size(void **state)
{
	static char body[ANSWER_TOKEN_MAX + 64];
	static const char head[] = "{\"access_token\":\"";
	size_t n = sizeof(head) - 1;

	(void)state;
	memset(body, 'x', sizeof(body));
	memcpy(body, head, n);
	memcpy(body + n + ANSWER_TOKEN_MAX, "\"}", 2);
	parse_len(200, body, n + ANSWER_TOKEN_MAX + 2, -1);
	assert_true(answer.ok);
	assert_int_equal(answer.token.len, ANSWER_TOKEN_MAX);
	body[n + ANSWER_TOKEN_MAX] = 'x';
	memcpy(body + n + ANSWER_TOKEN_MAX + 1, "\"}", 2);
	parse_len(200, body, n + ANSWER_TOKEN_MAX + 3, -1);
	assert_false(answer.ok);
}

/* ---- what is no answer ---- */

static void test_not_json(void **state)
{
	static const char *const bodies[] = {
		"",
		" ",
		"<!DOCTYPE html><html>" CANARY "</html>",
		"{\"access_token\":\"abc",
		"{\"access_token\":\"abc\"",
		"[\"access_token\"]",
		"\"abc\"",
		"5",
		"null",
		"{\"access_token\":\"abc\",\"expires_in\":NaN}",
	};
	static const int statuses[] = {200, 400, 401, 403, 404, 407, 418, 429, 500, 502, 503};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
		for (size_t j = 0; j < ARRAY_LEN(statuses); j++) {
			char reason[128];

			parse(statuses[j], bodies[i]);
			assert_false(answer.ok);
			assert_false(answer.permanent);
			assert_int_equal(answer.class, EXPLAIN_TRANSIENT);
			(void)snprintf(reason, sizeof(reason),
				       "the token endpoint answered HTTP %d without an answer in "
				       "JSON; is there a proxy in between?",
				       statuses[j]);
			assert_string_equal(answer.reason, reason);
		}
}

static void test_redirect(void **state)
{
	static const int statuses[] = {301, 302, 307, 308};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		char reason[128];

		parse(statuses[i], "{\"access_token\":\"abc\",\"expires_in\":3600}");
		assert_false(answer.ok);
		(void)snprintf(reason, sizeof(reason),
			       "the token endpoint answered HTTP %d (a redirect, which is not "
			       "followed); check token_endpoint",
			       statuses[i]);
		assert_string_equal(answer.reason, reason);
	}
}

/* Only a 200 brings a token. */
static void test_token_with_other_status(void **state)
{
	static const int statuses[] = {201, 204, 206, 400, 500};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		parse(statuses[i], "{\"access_token\":\"abc\",\"expires_in\":3600}");
		assert_false(answer.ok);
	}
}

static void test_unreachable(void **state)
{
	struct http_answer http = {
		.problem = "Could not resolve host", .body = "", .retry_after_ms = -1};

	(void)state;
	secret_clear(&answer.token);
	answer_parse(&http, &answer);
	assert_false(answer.ok || answer.permanent);
	assert_int_equal(answer.class, EXPLAIN_TRANSIENT);
	assert_string_equal(answer.reason,
			    "the token endpoint can't be reached: Could not resolve host");
}

static void test_deep_and_huge(void **state)
{
	struct buf body = BUF_INIT(HTTP_ANSWER_MAX);

	(void)state;
	while (buf_adds(&body, "{\"a\":[") == 0)
		;
	parse_len(200, body.data, body.len, -1);
	assert_false(answer.ok);
	buf_clear(&body);
	(void)buf_adds(&body, "{\"error\":\"");
	while (buf_adds(&body, "x") == 0 && body.len < HTTP_ANSWER_MAX - 2)
		;
	(void)buf_adds(&body, "\"}");
	parse_len(400, body.data, body.len, -1);
	assert_false(answer.ok);
	assert_int_equal(strlen(answer.error), sizeof(answer.error) - 1);
	buf_clear(&body);
}

/* ---- errors ---- */

static void parse_error(int status, const char *error, const char *codes, const char *aadsts)
{
	char body[1024];

	(void)snprintf(body, sizeof(body),
		       "{\"error\":\"%s\",\"error_description\":\"%s: " CANARY
		       " Trace ID: x\\r\\nCorrelation ID: y\",\"error_codes\":%s,"
		       "\"correlation_id\":\"cafe0000-1111-2222-3333-444455556666\"}",
		       error, aadsts, codes);
	parse(status, body);
	assert_false(answer.ok);
	assert_string_equal(answer.correlation_id, "cafe0000-1111-2222-3333-444455556666");
}

static void test_errors(void **state)
{
	static const struct {
		int status;
		const char *error, *codes, *text;
		long aadsts;
		enum explain_class class;
		bool permanent;
		const char *reason; /* its beginning */
	} cases[] = {
		{401, "invalid_client", "[7000222]", "AADSTS7000222", 7000222, EXPLAIN_CONFIG,
		 true, "AADSTS7000222: the client secret has expired; make a new secret"},
		{400, "invalid_grant", "[700082]", "AADSTS700082", 700082, EXPLAIN_SIGN_IN, true,
		 "AADSTS700082: the sign-in expired because"},
		{400, "invalid_grant", "[90033]", "AADSTS90033", 90033, EXPLAIN_TRANSIENT, false,
		 "AADSTS90033: Entra has a passing fault"},
		/* The number counts more than the status and the word. */
		{400, "invalid_client", "[50053]", "x", 50053, EXPLAIN_TRANSIENT, false,
		 "AADSTS50053: "},
		/* A number that is not in the table, and none. */
		{400, "invalid_scope", "[123]", "x", 123, EXPLAIN_CONFIG, true,
		 "AADSTS123: the scope is not valid"},
		{400, "invalid_scope", "[]", "AADSTS70011", 70011, EXPLAIN_CONFIG, true,
		 "AADSTS70011: the scope is not valid"},
		{400, "invalid_scope", "null", "no number", 0, EXPLAIN_CONFIG, true,
		 "the scope is not valid"},
		{400, "invalid_scope", "[\"70011\"]", "AADSTS", 0, EXPLAIN_CONFIG, true,
		 "the scope is not valid"},
		{400, "invalid_scope", "[-5]", "AADSTS-5", 0, EXPLAIN_CONFIG, true,
		 "the scope is not valid"},
		{400, "invalid_scope", "[1e300]", "AADSTS99999999999999999999", 0, EXPLAIN_CONFIG,
		 true, "the scope is not valid"},
		{400, "temporarily_unavailable", "[]", "x", 0, EXPLAIN_TRANSIENT, false,
		 "Entra is not available"},
		/* Unheard of. */
		{400, "new_error", "[]", "x", 0, EXPLAIN_CONFIG, true,
		 "the token endpoint answered HTTP 400, error new_error; "},
		{400, "", "[]", "x", 0, EXPLAIN_CONFIG, true,
		 "the token endpoint answered HTTP 400, error unknown; "},
		{400, "bad error\\r\\n550", "[]", "x", 0, EXPLAIN_CONFIG, true,
		 "the token endpoint answered HTTP 400, error bad; "},
		{503, "new_error", "[]", "x", 0, EXPLAIN_TRANSIENT, false,
		 "the token endpoint answered HTTP 503, error new_error; "},
		{429, "new_error", "[]", "x", 0, EXPLAIN_TRANSIENT, false,
		 "the token endpoint answered HTTP 429, error new_error; "},
		/* An overloaded server's word on configuration isn't final. */
		{503, "invalid_client", "[]", "x", 0, EXPLAIN_CONFIG, false,
		 "HTTP 503: Entra does not"},
		{429, "invalid_request", "[50196]", "x", 50196, EXPLAIN_CONFIG, false,
		 "AADSTS50196: "},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		parse_error(cases[i].status, cases[i].error, cases[i].codes, cases[i].text);
		if (answer.aadsts != cases[i].aadsts || answer.class != cases[i].class ||
		    answer.permanent != cases[i].permanent ||
		    strncmp(answer.reason, cases[i].reason, strlen(cases[i].reason)) != 0)
			fail_msg("case %zu: %ld, %s, %d: %s", i, answer.aadsts,
				 explain_class_name(answer.class), answer.permanent,
				 answer.reason);
	}
}

static void test_retry_after(void **state)
{
	static const char body[] = "{\"error\":\"temporarily_unavailable\"}";

	(void)state;
	parse_len(429, body, sizeof(body) - 1, 7000);
	assert_false(answer.permanent);
	parse_len(503, body, sizeof(body) - 1, 0);
	assert_false(answer.permanent);
	parse_len(503, "busy", 4, 120000);
	assert_false(answer.permanent);
	parse_len(401, "{\"error\":\"invalid_client\"}", 26, 120000);
	assert_true(answer.permanent);
}

/* Of the ids only plain letters are kept, and no more than there is room for. */
static void test_ids(void **state)
{
	(void)state;
	parse(400, "{\"error\":\"a.b-c_d\",\"correlation_id\":\"12\\n34\"}");
	assert_string_equal(answer.error, "a.b-c_d");
	assert_string_equal(answer.correlation_id, "12");
	parse(400, "{\"error\":5,\"correlation_id\":[]}");
	assert_string_equal(answer.error, "");
	assert_string_equal(answer.correlation_id, "");
	parse(400, "{\"error\":\"x\",\"correlation_id\":"
		   "\"0123456789012345678901234567890123456789012345678901234567890123\"}");
	assert_int_equal(strlen(answer.correlation_id), sizeof(answer.correlation_id) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_expires_in),
		cmocka_unit_test(test_renewal),
		cmocka_unit_test(test_bad_tokens),
		cmocka_unit_test(test_token_size),
		cmocka_unit_test(test_not_json),
		cmocka_unit_test(test_redirect),
		cmocka_unit_test(test_token_with_other_status),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_deep_and_huge),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_retry_after),
		cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests_name("answer", tests, NULL, leave);
}
