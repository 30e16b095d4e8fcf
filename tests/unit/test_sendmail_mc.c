#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sendmail/generate.h"
#include "test_conf_kit.h"

#define MC "include(`/usr/share/sendmail/cf/m4/cf.m4')dnl\nOSTYPE(`debian')dnl\n"
#define MAILERS "MAILER(`local')dnl\nMAILER(`smtp')dnl\n"

static void test_feature(void **state)
{
	static const struct {
		const char *top, *mailbox, *line;
	} cases[] = {
		{"", "",
		 "FEATURE(`relay365', `/run/relay365s/submit', "
		 "`local:/var/spool/postfix/relay365m/milter', `100')dnl\n"},
		{"queue_directories = []\n", "",
		 "FEATURE(`relay365', `/run/relay365s/submit', `local:/run/relay365m/milter', "
		 "`100')dnl\n"},
		{"submit_run_dir = \"/s\" milter_socket = \"unix:/m\"\n",
		 "recipients_per_day = 1000\n",
		 "FEATURE(`relay365', `/s/submit', `local:/m', `50')dnl\n"},
		{"milter_socket = \"inet:8365@localhost\"\n", "recipients_per_day = 5\n",
		 "FEATURE(`relay365', `/run/relay365s/submit', `inet:8365@localhost', "
		 "`10')dnl\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf line = BUF_INIT(1024), text = BUF_INIT(4096);
		struct err err = ERR_INIT;
		struct conf *conf;

		(void)buf_addf(&text,
			       "%s" TENANT "mailboxes: { relay: { address = "
			       "\"relay@contoso.com\" %s} }\n",
			       cases[i].top, cases[i].mailbox);
		conf = load_good(buf_text(&text));
		assert_int_equal(generate_feature(conf, &line, &err), 0);
		assert_string_equal(buf_text(&line), cases[i].line);
		conf_free(&conf);
		buf_clear(&line);
		buf_clear(&text);
	}
}

static void test_no_one_milter_socket(void **state)
{
	struct buf line = BUF_INIT(1024);
	struct err err = ERR_INIT;
	struct conf *conf = load_good("queue_directories = [\"/a\", \"/b\"]\n" TENANT MAILBOX);

	(void)state;
	assert_int_equal(generate_feature(conf, &line, &err), -1);
	assert_non_null(strstr(err.text, "milter_socket"));
	conf_free(&conf);
	buf_clear(&line);
}

static void test_edit_and_undo(void **state)
{
	static const char *const texts[] = {MC MAILERS, MC "MAILER_DEFINITIONS\n" MAILERS,
					    MC "\n\n" MAILERS "LOCAL_RULESETS\nMAILER\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct buf once = BUF_INIT(4096), twice = BUF_INIT(4096), back = BUF_INIT(4096);
		struct err err = ERR_INIT;

		assert_int_equal(generate_mc(texts[i], "FEATURE(1)\n", &once, &err), 0);
		assert_true(strstr(buf_text(&once), "FEATURE(1)") <
			    strstr(buf_text(&once), "MAILER"));
		assert_int_equal(generate_mc(buf_text(&once), "FEATURE(2)\n", &twice, &err), 0);
		assert_null(strstr(buf_text(&twice), "FEATURE(1)"));
		assert_int_equal(generate_mc_undo(buf_text(&twice), &back, &err), 0);
		assert_string_equal(buf_text(&back), texts[i]);
		buf_clear(&once);
		buf_clear(&twice);
		buf_clear(&back);
	}
}

static void test_bad_mc(void **state)
{
	struct buf to = BUF_INIT(4096), cut = BUF_INIT(4096);
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(generate_mc(MC, "x\n", &to, &err), -1);
	assert_non_null(strstr(err.text, "MAILER"));
	assert_int_equal(generate_mc(MC MAILERS, "x\n", &to, &err), 0);
	(void)buf_add(&cut, to.data, (size_t)(strstr(buf_text(&to), "x\n") - to.data));
	assert_int_equal(generate_mc_undo(buf_text(&cut), &to, &err), -1);
	assert_non_null(strstr(err.text, "is missing"));
	buf_clear(&to);
	buf_clear(&cut);
}

static void test_cf(void **state)
{
	char *folder = generate_cf_folder("include(`/a')\n" MC MAILERS);

	(void)state;
	assert_string_equal(folder, "/usr/share/sendmail/cf");
	free(folder);
	assert_null(generate_cf_folder(MAILERS));
	assert_true(generate_same_cf("# built on Monday\nDj\n\nO x\n", "# on Tuesday\nDj\nO x"));
	assert_false(generate_same_cf("Dj\n", "Dk\n"));
	assert_false(generate_same_cf("Dj\n", "Dj\nDk\n"));
	assert_false(generate_same_cf("Dj\nDk\n", "Dj\n"));
}

/* The mailbox of a sender: relay365-submit's choice, and the milter's under Sendmail. */
static void test_mailbox_of_a_sender(void **state)
{
	static const struct {
		const char *sender, *mailbox; /* NULL: none */
	} cases[] = {{"erp@contoso.com", "relay"},
		     {"ERP@Contoso.com", "relay"},
		     {"x@example.com", "relay"},
		     {"vip@example.com", "other"},
		     {"Other@contoso.com", "other"},
		     {"who@nowhere", NULL},
		     {"", NULL},
		     {"erp", NULL}};
	struct conf *conf = load_good(TWO_WITH("senders = [\"*@example.com\", \"*@contoso.com\"]",
					       "senders = [\"vip@example.com\"]"));

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct conf_mailbox *found = conf_mailbox_by_sender(conf, cases[i].sender);

		if (cases[i].mailbox == NULL)
			assert_null(found);
		else
			assert_string_equal(found->name, cases[i].mailbox);
	}
	conf_free(&conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TEMP(test_feature),
		IN_TEMP(test_no_one_milter_socket),
		cmocka_unit_test(test_edit_and_undo),
		cmocka_unit_test(test_bad_mc),
		cmocka_unit_test(test_cf),
		IN_TEMP(test_mailbox_of_a_sender),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
