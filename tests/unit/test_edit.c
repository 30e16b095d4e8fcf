#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "postfix/edit.h"
#include "postfix/facts.h"

static struct edit_parameter parameters[] = {
	{(char[]){"relayhost"}, (char[]){"[new]:587"}},
	{(char[]){"smtpd_milters"}, (char[]){"unix:m"}},
};

static const char services[] = "relay365-relay unix - - y - - smtp\n    -o a=b\n";

#define BEGIN                                                                     \
	"# ---- relay365 begin ----\n# Made by relay365 setup postfix; relay365 " \
	"setup postfix --undo takes it out.\n"
#define END "# ---- relay365 end ----\n"

/* Texts that main.cf and master.cf may hold; each must come back whole. */
static const char *const texts[] = {
	"",
	"\n",
	"x",
	"relayhost = [old]\n",
	"relayhost=[old]",
	"relayhost\t= [old],\n  continued\n# comment inside\n\n\tand more\nother = 1\n",
	"  odd = begin\nrelayhost = 1\nrelayhost = 2\n",
	"#relayhost = [old]\nrelayhosts = 1\nmyrelayhost = 2\n",
	"relay365-relay unix - - n - - smtp\n  -o x=y\nrelay365-relay2 unix - - n - - smtp\n",
	"relay365-relay\tunix\t- - n - - smtp\n",
	"relay365-relay inet - - n - - smtp\n",
	"a = b\r\nrelayhost = c\r\n",
	"=\n = \nrelayhost\n",
};

static void test_there_and_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		for (int master = 0; master < 2; master++) {
			struct buf made = BUF_INIT(EDIT_MAX), again = BUF_INIT(EDIT_MAX),
				   back = BUF_INIT(EDIT_MAX);
			struct err err = ERR_INIT;

			for (int round = 0; round < 2; round++) {
				const char *from = round == 0 ? texts[i] : buf_text(&made);
				struct buf *to = round == 0 ? &made : &again;
				int result = master ? edit_master(from, services, to, &err)
						    : edit_main(from, parameters,
								ARRAY_LEN(parameters), to, &err);

				if (result < 0)
					fail_msg("text %zu: %s", i, err.text);
			}
			assert_string_equal(buf_text(&again), buf_text(&made));
			assert_int_equal(edit_undo(buf_text(&made), &back, &err), 0);
			assert_string_equal(buf_text(&back), texts[i]);
			buf_clear(&made);
			buf_clear(&again);
			buf_clear(&back);
		}
}

static void test_main(void **state)
{
	struct buf made = BUF_INIT(EDIT_MAX);
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(edit_main(texts[5], parameters, ARRAY_LEN(parameters), &made, &err), 0);
	assert_string_equal(buf_text(&made),
			    "#relay365# relayhost\t= [old],\n#relay365#   continued\n"
			    "# comment inside\n\n#relay365# \tand more\nother = 1\n" BEGIN
			    "relayhost = [new]:587\nsmtpd_milters = unix:m\n" END);
	buf_clear(&made);
}

static void test_master(void **state)
{
	struct buf made = BUF_INIT(EDIT_MAX);
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(edit_master(texts[8], services, &made, &err), 0);
	assert_string_equal(buf_text(&made),
			    "#relay365# relay365-relay unix - - n - - smtp\n#relay365#   -o x=y\n"
			    "relay365-relay2 unix - - n - - smtp\n" BEGIN
			    "relay365-relay unix - - y - - smtp\n    -o a=b\n" END);
	buf_clear(&made);
	assert_int_equal(edit_master(texts[10], services, &made, &err), 0);
	assert_memory_equal(buf_text(&made), texts[10], strlen(texts[10])); /* another type */
	buf_clear(&made);
}

/* An admin changes what is around our marks, or inside. */
static void test_changed_meanwhile(void **state)
{
	static const struct {
		const char *text;
		const char *undone; /* NULL: refused */
	} cases[] = {
		{"a = 1\n" BEGIN "b = 2\n" END "c = 3\n", "a = 1\nc = 3\n"},
		{BEGIN END, ""},
		{"#relay365# a = 1\n#relay365# \tb\n", "a = 1\n\tb\n"},
		{BEGIN "#relay365# a = 1\n" END, ""},
		{BEGIN, NULL},
		{END, NULL},
		{BEGIN BEGIN END, NULL},
		{BEGIN END END, NULL},
		{"# ---- relay365 begin ---- x\n", "# ---- relay365 begin ---- x\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf back = BUF_INIT(EDIT_MAX);
		struct err err = ERR_INIT;
		int result = edit_undo(cases[i].text, &back, &err);

		if ((result == 0) != (cases[i].undone != NULL))
			fail_msg("case %zu: %d %s", i, result, err.text);
		if (result == 0)
			assert_string_equal(buf_text(&back), cases[i].undone);
		buf_clear(&back);
	}
}

static void test_too_large(void **state)
{
	struct buf made = BUF_INIT(100);
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(edit_main("", parameters, ARRAY_LEN(parameters), &made, &err), -1);
	assert_non_null(strstr(err.text, "larger than 100 bytes"));
	buf_clear(&made);
}

/* ---- what postconf prints ---- */

static void on_option(void *arg, const char *service, const char *value)
{
	char *seen = arg;
	size_t at = strlen(seen);

	(void)snprintf(seen + at, 200 - at, "%s=%s;", service, value);
}

static void test_facts(void **state)
{
	static const char text[] = "relayhost = [x]:587\nempty = \nalso_empty =\nlast = 1";
	static const char table[] =
		"smtp       inet  n       -       y       -       -       smtpd\n"
		"smtp       unix  -       -       -       -       -       smtp\n"
		"short unix -\n";
	static const char options[] = "smtp/inet/smtpd_milters = \nx/unix/a_smtpd_milters = 1\n"
				      "127.0.0.1:10025/inet/smtpd_milters = a b\n";
	static const struct {
		const char *name, *value;
		bool has;
	} values[] = {{"relayhost", "[x]:587", true}, {"empty", "", true},
		      {"also_empty", "", true},	      {"last", "1", true},
		      {"relay", "", false},	      {"", "", false}};
	char seen[200] = "";

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		char *value = facts_value(text, values[i].name);

		assert_string_equal(value, values[i].value);
		assert_int_equal(facts_has(text, values[i].name), values[i].has);
		free(value);
	}
	assert_int_equal(facts_chroot(table, "smtp", "inet"), 'y');
	assert_int_equal(facts_chroot(table, "smtp", "unix"), '-');
	assert_int_equal(facts_chroot(table, "short", "unix"), 'n');
	assert_int_equal(facts_chroot(table, "nosuch", "unix"), 'n');
	facts_each_option(options, "smtpd_milters", on_option, seen);
	assert_string_equal(seen, "smtp/inet=;127.0.0.1:10025/inet=a b;");
	assert_true(facts_lists("a, b c", "b") && facts_lists("a,b", "b"));
	assert_false(facts_lists("ab", "b") || facts_lists("", "b") || facts_lists("", ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_main),
		cmocka_unit_test(test_master),	       cmocka_unit_test(test_changed_meanwhile),
		cmocka_unit_test(test_too_large),      cmocka_unit_test(test_facts),
	};

	return cmocka_run_group_tests_name("edit", tests, NULL, NULL);
}
