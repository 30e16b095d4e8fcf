#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "token/form.h"

static void test_get(void **state)
{
	static const struct {
		const char *query, *value; /* NULL: there is none */
	} cases[] = {
		{"code=abc", "abc"},
		{"state=x&code=a%2Bb+c%20d&y", "a+b c d"},
		{"code=a&code=b", "a"},
		{"code=", ""},
		{"xcode=1&code=2#code=3", "2"},
		{"state=1#code=3", NULL},
		{"code", NULL},
		{"", NULL},
		{"codex=1", NULL},
		{"code=%", NULL},
		{"code=%4", NULL},
		{"code=%zz", NULL},
		{"code=a%00b", NULL},
		{"code=%41%4a%4A", "AJJ"},
		{"code=123456789012345", "123456789012345"},
		{"code=1234567890123456", NULL}, /* does not fit */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char value[16];
		int n = form_get(cases[i].query, "code", value, sizeof(value));

		if (cases[i].value == NULL) {
			assert_int_equal(n, -1);
			continue;
		}
		assert_int_equal(n, strlen(cases[i].value));
		assert_string_equal(value, cases[i].value);
	}
}

static void test_add_and_get(void **state)
{
	struct buf form = BUF_INIT(4000);
	char all[256], value[256];

	(void)state;
	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	all[255] = '\0';
	assert_int_equal(form_add_text(&form, "first", "1"), 0);
	assert_int_equal(form_add(&form, "all", all, 255), 0);
	assert_null(strpbrk(buf_text(&form) + strlen("first=1&all="), "&=+# "));
	assert_int_equal(form_get(buf_text(&form), "all", value, sizeof(value)), 255);
	assert_memory_equal(value, all, 256);
	buf_clear(&form);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_add_and_get),
	};

	return cmocka_run_group_tests_name("form", tests, NULL, NULL);
}
