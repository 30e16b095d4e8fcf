#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/kv.h"

#define LIT(text) (text), sizeof(text) - 1
#define REQUEST "relay365=1\nverb=lease\nmailbox=relay@contoso.com\n\n"

struct parse_case {
	const char *name;
	const char *data;
	size_t len;
	enum kv_result result;
	size_t used;
	size_t count;
};

static const struct parse_case parse_cases[] = {
	{"request", LIT(REQUEST), KV_OK, sizeof(REQUEST) - 1, 3},
	{"one pair", LIT("a=b\n\n"), KV_OK, 5, 1},
	{"no pairs", LIT("\n"), KV_OK, 1, 0},
	{"empty value", LIT("a=\n\n"), KV_OK, 4, 1},
	{"value with =", LIT("a=b=c==\n\n"), KV_OK, 9, 1},
	{"value with blanks", LIT("a= b c \n\n"), KV_OK, 9, 1},
	{"value with control bytes", LIT("a=\001\t\377\n\n"), KV_OK, 7, 1},
	{"every kind of key byte", LIT("az09_=b\n\n"), KV_OK, 9, 1},
	{"two messages", LIT("a=b\n\nc=d\n\n"), KV_OK, 5, 1},
	{"rubbish behind the message", LIT("a=b\n\n\r\0"), KV_OK, 5, 1},
	{"nothing", LIT(""), KV_MORE, 0, 0},
	{"half a key", LIT("rel"), KV_MORE, 0, 0},
	{"half a value", LIT("a=b"), KV_MORE, 0, 0},
	{"no empty line yet", LIT("a=b\n"), KV_MORE, 0, 1},
	{"line without =", LIT("a\n\n"), KV_BAD, 0, 0},
	{"no key", LIT("=b\n\n"), KV_BAD, 0, 0},
	{"no key, half a line", LIT("=b"), KV_BAD, 0, 0},
	{"capital in a key", LIT("aB=c\n\n"), KV_BAD, 0, 0},
	{"hyphen in a key", LIT("a-b=c\n\n"), KV_BAD, 0, 0},
	{"blank before =", LIT("a =c\n\n"), KV_BAD, 0, 0},
	{"HTTP", LIT("GET / HTTP/1.1"), KV_BAD, 0, 0},
	{"NUL in a key", LIT("a\0=c\n\n"), KV_BAD, 0, 0},
	{"NUL in a value", LIT("a=\0c\n\n"), KV_BAD, 0, 0},
	{"NUL in half a value", LIT("a=\0"), KV_BAD, 0, 0},
	{"CR LF", LIT("a=b\r\n\r\n"), KV_BAD, 0, 0},
	{"CR in a value", LIT("a=b\rc\n\n"), KV_BAD, 0, 0},
	{"CR LF as the empty line", LIT("a=b\n\r\n"), KV_BAD, 0, 1},
	{"doubled key", LIT("a=b\nc=d\na=e\n\n"), KV_BAD, 0, 2},
	{"doubled key, same value", LIT("a=b\na=b\n\n"), KV_BAD, 0, 1},
	{"doubled key, half a line", LIT("a=b\na="), KV_BAD, 0, 1},
	{"a key that another one starts with", LIT("ab=c\na=d\n\n"), KV_OK, 10, 2},
};

static void test_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(parse_cases); i++) {
		const struct parse_case *c = &parse_cases[i];
		struct kv_message message;
		size_t used = SIZE_MAX;
		enum kv_result result = kv_parse(c->data, c->len, &message, &used);

		if (result != c->result || used != c->used || message.count != c->count)
			fail_msg("%s: result %d, used %zu, count %zu", c->name, (int)result, used,
				 message.count);
	}
}

/* Whatever was read so far: no prefix of a message is one, and none is refused. */
static void test_every_prefix(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(parse_cases); i++) {
		const struct parse_case *c = &parse_cases[i];
		struct kv_message message;
		size_t used;

		for (size_t len = 0; c->result == KV_OK && len < c->used; len++) {
			if (kv_parse(c->data, len, &message, &used) != KV_MORE || used != 0)
				fail_msg("%s: cut after %zu bytes", c->name, len);
		}
	}
}

/* What was refused once stays refused, whatever follows. */
static void test_bad_stays_bad(void **state)
{
	char data[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(parse_cases); i++) {
		const struct parse_case *c = &parse_cases[i];
		struct kv_message message;
		size_t used;

		if (c->result != KV_BAD)
			continue;
		memcpy(data, c->data, c->len);
		memcpy(data + c->len, "=x\n\n", 4);
		if (kv_parse(data, c->len + 4, &message, &used) != KV_BAD)
			fail_msg("%s: mended by more data", c->name);
	}
}

/* A message of len bytes: one pair and the empty line. */
static void fill(char *data, size_t len)
{
	memset(data, 'x', len);
	data[1] = '=';
	data[len - 2] = '\n';
	data[len - 1] = '\n';
}

static void test_size(void **state)
{
	static char data[KV_MESSAGE_MAX + 2];
	struct kv_message message;
	size_t used;

	(void)state;
	fill(data, KV_MESSAGE_MAX);
	assert_int_equal(kv_parse(data, KV_MESSAGE_MAX - 1, &message, &used), KV_MORE);
	assert_int_equal(kv_parse(data, KV_MESSAGE_MAX, &message, &used), KV_OK);
	assert_int_equal(used, KV_MESSAGE_MAX);
	assert_int_equal(message.pair[0].value_len, KV_MESSAGE_MAX - 4);
	fill(data, KV_MESSAGE_MAX + 1);
	assert_int_equal(kv_parse(data, KV_MESSAGE_MAX - 1, &message, &used), KV_MORE);
	assert_int_equal(kv_parse(data, KV_MESSAGE_MAX, &message, &used), KV_BAD);
	assert_int_equal(kv_parse(data, KV_MESSAGE_MAX + 1, &message, &used), KV_BAD);
	memset(data, 'x', sizeof(data));
	assert_int_equal(kv_parse(data, KV_MESSAGE_MAX - 1, &message, &used), KV_MORE);
	assert_int_equal(kv_parse(data, KV_MESSAGE_MAX, &message, &used), KV_BAD);
	assert_int_equal(kv_parse(data, sizeof(data), &message, &used), KV_BAD);
}

/* A message of n pairs: k0=v .. Returns its length. */
static size_t put_pairs(char *data, size_t cap, int n)
{
	size_t at = 0;

	for (int i = 0; i < n; i++) {
		char key[16];

		(void)snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(kv_put(data, cap, &at, key, "v", 1), 0);
	}
	assert_int_equal(kv_end(data, cap, &at), 0);
	return at;
}

static void test_number_of_pairs(void **state)
{
	char data[1024];
	struct kv_message message;
	size_t used;
	size_t len = put_pairs(data, sizeof(data), KV_PAIRS_MAX);

	(void)state;
	assert_int_equal(kv_parse(data, len, &message, &used), KV_OK);
	assert_int_equal(message.count, KV_PAIRS_MAX);
	assert_true(kv_is(&message, "k63", "v"));
	len = put_pairs(data, sizeof(data), KV_PAIRS_MAX + 1);
	assert_int_equal(kv_parse(data, len, &message, &used), KV_BAD);
}

static void parse(const char *data, size_t len, struct kv_message *message)
{
	size_t used;

	assert_int_equal(kv_parse(data, len, message, &used), KV_OK);
	assert_int_equal(used, len);
}

static void test_find_is_copy(void **state)
{
	static const char data[] = "status=ok\nempty=\ntoken=a=b==\n\n";
	struct kv_message message;
	char text[6];

	(void)state;
	parse(LIT(data), &message);
	assert_null(kv_find(&message, "stat"));
	assert_null(kv_find(&message, "status_"));
	assert_null(kv_find(&message, ""));
	assert_ptr_equal(kv_find(&message, "token")->value, strstr(data, "a=b=="));
	assert_int_equal(kv_find(&message, "token")->value_len, 5);
	assert_true(kv_is(&message, "status", "ok"));
	assert_false(kv_is(&message, "status", "o"));
	assert_false(kv_is(&message, "status", "okay"));
	assert_false(kv_is(&message, "missing", ""));
	assert_true(kv_is(&message, "empty", ""));
	assert_int_equal(kv_copy(&message, "missing", text, sizeof(text)), -1);
	assert_int_equal(kv_copy(&message, "token", text, 5), -2);
	assert_int_equal(kv_copy(&message, "empty", text, 0), -2);
	assert_int_equal(kv_copy(&message, "token", text, 6), 5);
	assert_string_equal(text, "a=b==");
	assert_int_equal(kv_copy(&message, "empty", text, 1), 0);
	assert_string_equal(text, "");
}

static void test_number(void **state)
{
	static const struct {
		const char *value;
		int result;
		long long number;
	} cases[] = {
		{"0", 0, 0},
		{"1795451778", 0, 1795451778},
		{"000000000000007", 0, 7},
		{"999999999999999", 0, 999999999999999},
		{"0000000000000007", -2, 0},
		{"1000000000000000", -2, 0},
		{"", -2, 0},
		{"-1", -2, 0},
		{"+1", -2, 0},
		{" 1", -2, 0},
		{"1 ", -2, 0},
		{"0x10", -2, 0},
		{"1.5", -2, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char data[64];
		size_t at = 0;
		long long number = -5;
		struct kv_message message;

		assert_int_equal(kv_put(data, sizeof(data), &at, "n", cases[i].value,
					strlen(cases[i].value)),
				 0);
		assert_int_equal(kv_end(data, sizeof(data), &at), 0);
		parse(data, at, &message);
		assert_int_equal(kv_number(&message, "n", &number), cases[i].result);
		assert_int_equal(number, cases[i].result == 0 ? cases[i].number : -5);
		assert_int_equal(kv_number(&message, "m", &number), -1);
	}
}

static void test_put_refuses(void **state)
{
	char data[8] = "........";
	size_t at = 0;

	(void)state;
	assert_int_equal(kv_put(data, sizeof(data), &at, "", LIT("v")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "K", LIT("v")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a=", LIT("v")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a\n", LIT("v")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a", LIT("v\n")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a", LIT("v\r")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a", LIT("\0v")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a", LIT("123456")), -1);
	assert_int_equal(kv_put(data, sizeof(data), &at, "abcdefgh", LIT("")), -1);
	assert_int_equal(kv_put(data, 1, &at, "a", LIT("")), -1);
	assert_int_equal(kv_put(data, 0, &at, "a", LIT("")), -1);
	assert_int_equal(at, 0);
	assert_memory_equal(data, "........", 8);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a", LIT("12345")), 0);
	assert_int_equal(at, 8);
	assert_memory_equal(data, "a=12345\n", 8);
	assert_int_equal(kv_put(data, sizeof(data), &at, "a", LIT("")), -1);
	assert_int_equal(kv_end(data, sizeof(data), &at), -1);
	at = 7;
	assert_int_equal(kv_end(data, sizeof(data), &at), 0);
	assert_int_equal(at, 8);
}

/* Every byte that may stand in a value comes back as it was. */
static void test_round_trip(void **state)
{
	char value[256];
	char data[512];
	struct kv_message message;
	size_t value_len = 0;
	size_t at = 0;

	(void)state;
	for (int c = 1; c < 256; c++) {
		if (c != '\r' && c != '\n')
			value[value_len++] = (char)c;
	}
	assert_int_equal(kv_put(data, sizeof(data), &at, "first", LIT("")), 0);
	assert_int_equal(kv_put(data, sizeof(data), &at, "all_bytes", value, value_len), 0);
	assert_int_equal(kv_end(data, sizeof(data), &at), 0);
	parse(data, at, &message);
	assert_int_equal(message.count, 2);
	assert_int_equal(kv_find(&message, "all_bytes")->value_len, value_len);
	assert_memory_equal(kv_find(&message, "all_bytes")->value, value, value_len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),		cmocka_unit_test(test_every_prefix),
		cmocka_unit_test(test_bad_stays_bad),	cmocka_unit_test(test_size),
		cmocka_unit_test(test_number_of_pairs), cmocka_unit_test(test_find_is_copy),
		cmocka_unit_test(test_number),		cmocka_unit_test(test_put_refuses),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests_name("kv", tests, NULL, NULL);
}
