#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "postfix/socketmap.h"

#define LIT(text) (text), sizeof(text) - 1

static const struct {
	const char *data;
	size_t len;
	enum socketmap_result result;
	size_t used;
	const char *name, *key;
} cases[] = {
	{LIT("12:status/a 2.0,"), SOCKETMAP_OK, 16, "status/a", "2.0"},
	{LIT("24:status/relay 4.7.3 a, b,,"), SOCKETMAP_OK, 28, "status/relay", "4.7.3 a, b,"},
	{LIT("4:a  b,rest"), SOCKETMAP_OK, 7, "a", " b"},
	{LIT("2:a ,"), SOCKETMAP_OK, 5, "a", ""},
	{LIT("2: b,"), SOCKETMAP_OK, 5, "", "b"},
	{LIT("1: ,"), SOCKETMAP_OK, 4, "", ""},
	{LIT("0003:a b,"), SOCKETMAP_OK, 9, "a", "b"},
	{LIT("5:a b:,,"), SOCKETMAP_OK, 8, "a", "b:,"},
	{LIT("3:a \n,"), SOCKETMAP_OK, 6, "a", "\n"},
	{LIT("3:a \377,"), SOCKETMAP_OK, 6, "a", "\377"},
	{LIT(""), SOCKETMAP_MORE, 0, NULL, NULL},
	{LIT("3"), SOCKETMAP_MORE, 0, NULL, NULL},
	{LIT("3:a b"), SOCKETMAP_MORE, 0, NULL, NULL},
	{LIT("100000:"), SOCKETMAP_MORE, 0, NULL, NULL},
	{LIT("999999"), SOCKETMAP_MORE, 0, NULL, NULL},
	{LIT("3:a b;"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("3:a bc,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("4:a b,"), SOCKETMAP_MORE, 0, NULL, NULL},
	{LIT("0:,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("3:abc,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("3:a\0b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("4:a b\0,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT(":a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("-3:a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("+3:a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT(" 3:a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("3 :a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("0x3:a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("3;a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("\0"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("GET / HTTP/1.1\r\n"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("get relay\n"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("100001:"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("999999:"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("0000003"), SOCKETMAP_BAD, 0, NULL, NULL},
	{LIT("18446744073709551619:a b,"), SOCKETMAP_BAD, 0, NULL, NULL},
};

static void expect(size_t i, const char *data, size_t len, enum socketmap_result result)
{
	struct socketmap_request request = {NULL, 0, NULL, 0};
	size_t used = 0;

	if (socketmap_parse(data, len, &request, &used) != result)
		fail_msg("case %zu of %zu bytes", i, len);
	if (result != SOCKETMAP_OK)
		return;
	assert_int_equal(used, cases[i].used);
	assert_int_equal(request.name_len, strlen(cases[i].name));
	assert_memory_equal(request.name, cases[i].name, request.name_len);
	assert_int_equal(request.key_len, strlen(cases[i].key));
	assert_memory_equal(request.key, cases[i].key, request.key_len);
}

static void test_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		expect(i, cases[i].data, cases[i].len, cases[i].result);
}

/* However the bytes arrive: each prefix asks for more, and no byte beyond it is looked at. */
static void test_split(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		if (cases[i].result != SOCKETMAP_OK)
			continue;
		for (size_t len = 0; len <= cases[i].used; len++) {
			char *exact = malloc(len + 1);

			assert_non_null(exact);
			memcpy(exact, cases[i].data, len);
			expect(i, exact, len,
			       len < cases[i].used ? SOCKETMAP_MORE : SOCKETMAP_OK);
			free(exact);
		}
	}
}

static void test_largest(void **state)
{
	static char data[SOCKETMAP_REQUEST_MAX + 16];
	struct socketmap_request request;
	size_t used;

	(void)state;
	memset(data, 'x', sizeof(data));
	memcpy(data, "100000:a ", 9);
	data[7 + SOCKETMAP_REQUEST_MAX] = ',';
	assert_int_equal(socketmap_parse(data, 7 + SOCKETMAP_REQUEST_MAX, &request, &used),
			 SOCKETMAP_MORE);
	assert_int_equal(socketmap_parse(data, sizeof(data), &request, &used), SOCKETMAP_OK);
	assert_int_equal(used, 7 + SOCKETMAP_REQUEST_MAX + 1);
	assert_int_equal(request.key_len, SOCKETMAP_REQUEST_MAX - 2);
}

static void test_answer(void **state)
{
	struct buf buf = BUF_INIT(64);

	(void)state;
	assert_int_equal(socketmap_answer(&buf, "NOTFOUND", ""), 0);
	assert_int_equal(socketmap_answer(&buf, "OK", "4.7.3 a, b"), 0);
	assert_string_equal(buf_text(&buf), "9:NOTFOUND ,13:OK 4.7.3 a, b,");
	assert_int_equal(
		socketmap_answer(&buf, "OK", "a text that does not fit into what is left here"),
		-1);
	assert_string_equal(buf_text(&buf), "9:NOTFOUND ,13:OK 4.7.3 a, b,");
	buf_clear(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_answer),
	};

	return cmocka_run_group_tests_name("socketmap", tests, NULL, NULL);
}
