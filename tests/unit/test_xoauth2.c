#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/xoauth2.h"

#define LIT(text) (text), sizeof(text) - 1

static char user[XOAUTH2_USER_MAX + 1];
static char token[XOAUTH2_TOKEN_MAX + 1];
static char out[XOAUTH2_RESPONSE_MAX];

struct compose_case {
	const char *name;
	const char *user;
	size_t user_len;
	const char *token;
	size_t token_len;
	enum xoauth2_result result;
	const char *response;
};

static const struct compose_case cases[] = {
	{"plain", LIT("a@b.c"), LIT("eyJ0.eyJ1.sig"), XOAUTH2_OK,
	 "user=a@b.c\001auth=Bearer eyJ0.eyJ1.sig\001\001"},
	{"all that a token may have", LIT("a"), LIT("AZaz09-._~+/=="), XOAUTH2_OK,
	 "user=a\001auth=Bearer AZaz09-._~+/==\001\001"},
	{"UTF-8 in the address", LIT("\303\266@b.c"), LIT("t"), XOAUTH2_OK,
	 "user=\303\266@b.c\001auth=Bearer t\001\001"},
	{"longest", user, XOAUTH2_USER_MAX, token, XOAUTH2_TOKEN_MAX, XOAUTH2_OK, NULL},
	{"no user", LIT(""), LIT("t"), XOAUTH2_BAD_USER, NULL},
	{"user too long", user, XOAUTH2_USER_MAX + 1, LIT("t"), XOAUTH2_BAD_USER, NULL},
	{"^A in the user", LIT("a\001auth=x"), LIT("t"), XOAUTH2_BAD_USER, NULL},
	{"NUL in the user", LIT("a\0b"), LIT("t"), XOAUTH2_BAD_USER, NULL},
	{"LF in the user", LIT("a\n"), LIT("t"), XOAUTH2_BAD_USER, NULL},
	{"DEL in the user", LIT("a\177"), LIT("t"), XOAUTH2_BAD_USER, NULL},
	{"no token", LIT("a"), LIT(""), XOAUTH2_BAD_TOKEN, NULL},
	{"token too long", LIT("a"), token, XOAUTH2_TOKEN_MAX + 1, XOAUTH2_BAD_TOKEN, NULL},
	{"^A in the token", LIT("a"), LIT("t\001\001"), XOAUTH2_BAD_TOKEN, NULL},
	{"NUL in the token", LIT("a"), LIT("t\0t"), XOAUTH2_BAD_TOKEN, NULL},
	{"NUL behind the token", LIT("a"), LIT("t\0"), XOAUTH2_BAD_TOKEN, NULL},
	{"blank in the token", LIT("a"), LIT("t t"), XOAUTH2_BAD_TOKEN, NULL},
	{"quote in the token", LIT("a"), LIT("\"t\""), XOAUTH2_BAD_TOKEN, NULL},
	{"byte over 127 in the token", LIT("a"), LIT("t\303\266"), XOAUTH2_BAD_TOKEN, NULL},
	{"= within the token", LIT("a"), LIT("t=t"), XOAUTH2_BAD_TOKEN, NULL},
	{"= alone", LIT("a"), LIT("="), XOAUTH2_BAD_TOKEN, NULL},
};

static void test_compose(void **state)
{
	(void)state;
	memset(user, 'u', sizeof(user));
	memset(token, 't', sizeof(token));
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct compose_case *c = &cases[i];
		size_t len = SIZE_MAX;
		enum xoauth2_result result = xoauth2_compose(
			c->user, c->user_len, c->token, c->token_len, out, sizeof(out), &len);

		if (result != c->result)
			fail_msg("%s: result %d", c->name, (int)result);
		if (c->response != NULL &&
		    (len != strlen(c->response) || memcmp(out, c->response, len) != 0))
			fail_msg("%s: wrong response", c->name);
	}
}

static void test_room(void **state)
{
	static const char want[] = "user=a\001auth=Bearer t\001\001";
	const size_t want_len = sizeof(want) - 1;
	size_t len = 0;

	(void)state;
	memset(out, '.', sizeof(out));
	for (size_t cap = 0; cap < want_len; cap++)
		assert_int_equal(xoauth2_compose("a", 1, "t", 1, out, cap, &len),
				 XOAUTH2_NO_ROOM);
	assert_int_equal(out[0], '.');
	assert_int_equal(xoauth2_compose("a", 1, "t", 1, out, want_len, &len), XOAUTH2_OK);
	assert_int_equal(len, want_len);
	assert_memory_equal(out, want, want_len);
	assert_int_equal(out[want_len], '.');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compose),
		cmocka_unit_test(test_room),
	};

	return cmocka_run_group_tests_name("xoauth2", tests, NULL, NULL);
}
