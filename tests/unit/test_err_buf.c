#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/xalloc.h"

#include <errno.h>

/* ---- err ---- */

static void test_err_set(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(err.class, ERR_NONE);
	assert_int_equal(err_set(&err, ERR_CONFIG, "%s is %d", "x", 5), -1);
	assert_int_equal(err.class, ERR_CONFIG);
	assert_string_equal(err.text, "x is 5");
	/* An argument may be the text itself. */
	assert_int_equal(err_set(&err, ERR_TEMP, "so: %s!", err.text), -1);
	assert_int_equal(err.class, ERR_TEMP);
	assert_string_equal(err.text, "so: x is 5!");
	assert_int_equal(err_set(NULL, ERR_PERM, "%s", "nobody listens"), -1);
}

/* Texts hold others' words, which a terminal must not obey; UTF-8 stays. */
static void test_err_is_plain(void **state)
{
	static const struct {
		const char *text, *shown;
	} cases[] = {
		{"a b~", "a b~"},
		{"\033[31mred", "?[31mred"},
		{"a\r\nb\tc\177", "a  b c?"},
		{"f\303\274r \342\202\254 \360\237\222\214",
		 "f\303\274r \342\202\254 \360\237\222\214"},
		{"\302\233m", "??m"},	/* CSI in one character */
		{"\233m \377", "?m ?"}, /* and in one byte */
		{"\342\202", "??"},
		{"\355\240\200", "???"}, /* a surrogate */
	};
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		err_set(&err, ERR_TEMP, "%s", cases[i].text);
		assert_string_equal(err.text, cases[i].shown);
	}
	err_set(&err, ERR_TEMP, "x");
	err_add(&err, "\033");
	assert_string_equal(err.text, "?: x");
}

static void test_err_add(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	err_set(&err, ERR_CONFIG, "no such file");
	assert_int_equal(err_add(&err, "%s:%d", "relay365.conf", 7), -1);
	assert_string_equal(err.text, "relay365.conf:7: no such file");
	assert_int_equal(err.class, ERR_CONFIG);
	assert_int_equal(err_add(NULL, "%s", "nobody listens"), -1);
}

static void test_err_too_long(void **state)
{
	struct err err = ERR_INIT;
	char text[3 * ERR_TEXT_MAX];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	err_set(&err, ERR_PERM, "%s", text);
	assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
	err_add(&err, "%s", "where");
	assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
	assert_memory_equal(err.text, "where: xxx", 10);
	/* A context that leaves room for nothing else, or for only some of it. */
	for (size_t n = ERR_TEXT_MAX - 4; n < ERR_TEXT_MAX + 2; n++) {
		err_set(&err, ERR_PERM, "cause");
		err_add(&err, "%.*s", (int)n, text);
		assert_true(strlen(err.text) < ERR_TEXT_MAX);
		assert_memory_equal(err.text, text, ERR_TEXT_MAX - 4);
	}
}

static void test_err_no(void **state)
{
	(void)state;
	assert_string_equal(err_no(ENOENT), "No such file or directory");
	assert_string_not_equal(err_no(99999), "");
}

/* ---- buf ---- */

static void test_buf_empty(void **state)
{
	struct buf buf = BUF_INIT(10);

	(void)state;
	assert_string_equal(buf_text(&buf), "");
	assert_int_equal(buf_add(&buf, "", 0), 0);
	assert_string_equal(buf_text(&buf), "");
	assert_int_equal(buf.len, 0);
	buf_consume(&buf, 0);
	buf_clear(&buf);
	buf_clear(&buf);
	assert_null(buf.data);
}

static void test_buf_add(void **state)
{
	struct buf buf = BUF_INIT(1000);

	(void)state;
	assert_int_equal(buf_adds(&buf, "one "), 0);
	assert_int_equal(buf_add(&buf, "two\0!", 5), 0);
	assert_int_equal(buf_addf(&buf, " %d", 3), 0);
	assert_int_equal(buf.len, 11);
	assert_memory_equal(buf.data, "one two\0! 3", 12);
	assert_false(buf.overflowed);
	buf_clear(&buf);
	assert_int_equal(buf.max, 1000);
}

/* Whatever the pieces, nothing beyond the maximum gets in, and what is in stays whole. */
static void test_buf_max(void **state)
{
	static const size_t maxima[] = {0, 1, 2, 255, 256, 257, 511, 512, 513, 5000};
	static const size_t pieces[] = {1, 2, 7, 255, 256, 300};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(maxima); i++) {
		for (size_t j = 0; j < ARRAY_LEN(pieces); j++) {
			struct buf buf = BUF_INIT(maxima[i]);
			char piece[300];
			size_t room;

			memset(piece, 'a' + (int)j, sizeof(piece));
			while (buf_add(&buf, piece, pieces[j]) == 0) {
				assert_true(buf.len <= buf.max && buf.len < buf.cap);
				assert_int_equal(buf.data[buf.len], '\0');
			}
			assert_true(buf.overflowed);
			assert_int_equal(buf.len, maxima[i] / pieces[j] * pieces[j]);
			for (size_t k = 0; k < buf.len; k++)
				assert_int_equal(buf.data[k], 'a' + (int)j);
			assert_null(buf_reserve(&buf, buf.max - buf.len + 1, &room));
			assert_non_null(buf_reserve(&buf, buf.max - buf.len, &room));
			assert_true(room >= buf.max - buf.len);
			assert_true(buf.len + room <= buf.max);
			buf_clear(&buf);
			assert_false(buf.overflowed);
		}
	}
}

static void test_buf_addf_max(void **state)
{
	struct buf buf = BUF_INIT(5);

	(void)state;
	assert_int_equal(buf_addf(&buf, "%s", "123456"), -1);
	assert_true(buf.overflowed);
	assert_string_equal(buf_text(&buf), "");
	assert_int_equal(buf_addf(&buf, "%s", "12345"), 0);
	assert_string_equal(buf_text(&buf), "12345");
	assert_int_equal(buf_addf(&buf, "%d", 6), -1);
	assert_string_equal(buf_text(&buf), "12345");
	assert_int_equal(buf_add(&buf, "x", SIZE_MAX), -1);
	buf_clear(&buf);
}

/* What was consumed leaves no trace behind the rest: it may have been a secret. */
static void test_buf_consume(void **state)
{
	struct buf buf = BUF_INIT(100);

	(void)state;
	assert_int_equal(buf_adds(&buf, "canary rest"), 0);
	buf_consume(&buf, 7);
	assert_string_equal(buf_text(&buf), "rest");
	for (size_t i = 4; i < 11; i++)
		assert_int_equal(buf.data[i], 0);
	buf_consume(&buf, 4);
	assert_int_equal(buf.len, 0);
	assert_string_equal(buf_text(&buf), "");
	assert_int_equal(buf_adds(&buf, "again"), 0);
	assert_string_equal(buf_text(&buf), "again");
	buf_clear(&buf);
}

static void test_xalloc(void **state)
{
	char *text = xasprintf("%s-%d", "a", 5);
	char *copy = xstrndup("abcdef", 3);
	int *numbers = xcalloc(10, sizeof(int));

	(void)state;
	assert_string_equal(text, "a-5");
	assert_string_equal(copy, "abc");
	for (int i = 0; i < 10; i++)
		assert_int_equal(numbers[i], 0);
	numbers = xreallocarray(numbers, 20, sizeof(int));
	numbers[19] = 1;
	free(text);
	free(copy);
	free(numbers);
	free(xmalloc(0));
	free(xcalloc(0, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err_set),	     cmocka_unit_test(test_err_is_plain),
		cmocka_unit_test(test_err_add),	     cmocka_unit_test(test_err_too_long),
		cmocka_unit_test(test_err_no),	     cmocka_unit_test(test_buf_empty),
		cmocka_unit_test(test_buf_add),	     cmocka_unit_test(test_buf_max),
		cmocka_unit_test(test_buf_addf_max), cmocka_unit_test(test_buf_consume),
		cmocka_unit_test(test_xalloc),
	};

	return cmocka_run_group_tests_name("err_buf", tests, NULL, NULL);
}
