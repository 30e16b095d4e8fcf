#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "milter/sender.h"

#define TEN "xxxxxxxxxx"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

/* What a value says: addresses, separated by blanks; NULL: it can't be read. */
static const struct {
	const char *value, *addresses;
} parsed[] = {
	{"erp@contoso.com", "erp@contoso.com"},
	{"ERP@Contoso.COM", "erp@contoso.com"},
	{"<erp@contoso.com>", "erp@contoso.com"},
	{"  Erp   <erp@contoso.com>  ", "erp@contoso.com"},
	{"\"Erp, the <old>\" <erp@contoso.com>", "erp@contoso.com"},
	{"\"a \\\" <x@y.z>\" <erp@contoso.com>", "erp@contoso.com"},
	{"=?utf-8?Q?M=C3=BCller?= <m@contoso.com>", "m@contoso.com"},
	{"M\xc3\xbcller <m@contoso.com>", "m@contoso.com"},
	{"Joe Q. Public <joe@contoso.com>", "joe@contoso.com"},
	{"root (Cron Daemon)", "root"},
	{"root@srv01.lan (Cron Daemon)", "root@srv01.lan"},
	{"(a (b \\) ) c) erp (d) @ (e) contoso (f) . com (g)", "erp@contoso.com"},
	{"Erp\n <erp@contoso.com>", "erp@contoso.com"},
	{"Erp\r\n\t<erp@contoso.com>", "erp@contoso.com"},
	{"<@a.example,@b.example:erp@contoso.com>", "erp@contoso.com"},
	{"\"erp\"@contoso.com", "erp@contoso.com"},
	{"\"e.rp\"@contoso.com", "e.rp@contoso.com"},
	{"\"e rp\"@contoso.com", "\"e rp\"@contoso.com"},
	{"\"erp@evil.example\"@contoso.com", "\"erp@evil.example\"@contoso.com"},
	{"erp@[10.1.0.5]", "erp@[10.1.0.5]"},
	{"erp@[IPv6:2001:db8::1]", "erp@[ipv6:2001:db8::1]"},
	{"a@contoso.com, b@contoso.com", "a@contoso.com b@contoso.com"},
	{",, A <a@contoso.com>,, b@contoso.com,", "a@contoso.com b@contoso.com"},
	{"A Group:a@contoso.com, B <b@contoso.com>;", "a@contoso.com b@contoso.com"},
	{"undisclosed:;", ""},
	{"g:a@x.y;, b@x.y", "a@x.y b@x.y"},
	/* Nobody quoted the name. */
	{"scan@contoso.com <scan@contoso.com>", "scan@contoso.com"},
	{"boss@contoso.com <evil@example.net>", "evil@example.net"},
	{"Contoso, Inc <a@contoso.com>", "contoso a@contoso.com"},
	/* Nobody can tell. */
	{"", NULL},
	{"   ", NULL},
	{",", NULL},
	{"<>", NULL},
	{"Erp <>", NULL},
	{"Erp <erp@>", NULL},
	{"Erp <@contoso.com>", NULL},
	{"erp@", NULL},
	{"@contoso.com", NULL},
	{"Erp <erp@contoso.com", NULL},
	{"Erp <erp@contoso.com> x", NULL},
	{"erp@contoso.com x", NULL},
	{"the erp@contoso.com", NULL},
	{"erp@a@contoso.com", NULL},
	{"erp@con toso.com", NULL},
	{"erp@\"contoso.com\"", NULL},
	{"erp@[10.1.0.5", NULL},
	{"a@b.c; d@e.f", NULL},
	{"g:a@b.c", NULL},
	{"g:h:a@b.c;;", NULL},
	{"\"Erp <erp@contoso.com>", NULL},
	{"(Erp <erp@contoso.com>", NULL},
	{"erp@contoso.com (", NULL},
	{"Erp \\<erp@contoso.com>", "erp@contoso.com"},
	{"erp\\@contoso.com", NULL},
	{"erp\001@contoso.com", NULL},
	{HUNDRED HUNDRED HUNDRED "@contoso.com", HUNDRED HUNDRED HUNDRED "@contoso.com"},
	{HUNDRED HUNDRED HUNDRED "@contoso.com." TEN, NULL},
	{"a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", "a a a a a a a a a a a a a a a a"},
	{"a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", NULL},
	{"((((((((((((((((((((((((((((((((x)))))))))))))))))))))))))))))))) a@b.c", "a@b.c"},
	{"(((((((((((((((((((((((((((((((((x))))))))))))))))))))))))))))))))) a@b.c", NULL},
};

static void test_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(parsed); i++) {
		struct buf got = BUF_INIT(FROM_MAX);
		struct from from;
		int result = from_parse(parsed[i].value, strlen(parsed[i].value), &from);

		for (size_t j = 0; result == 0 && j < from.count; j++)
			(void)buf_addf(&got, "%s%s", j == 0 ? "" : " ", from.address[j].address);
		if ((result == 0) != (parsed[i].addresses != NULL))
			fail_msg("%s: %d %s", parsed[i].value, result, buf_text(&got));
		if (result == 0 && strcmp(buf_text(&got), parsed[i].addresses) != 0)
			fail_msg("%s: %s", parsed[i].value, buf_text(&got));
		buf_clear(&got);
	}
}

static void test_length(void **state)
{
	char value[FROM_MAX + 2];
	struct from from;

	(void)state;
	memset(value, ' ', sizeof(value));
	memcpy(value, "a@b.c", 5);
	assert_int_equal(from_parse(value, FROM_MAX, &from), 0);
	assert_int_equal(from_parse(value, FROM_MAX + 1, &from), -1);
	assert_int_equal(from_parse("a@b.c\0d", 7, &from), -1);
	assert_int_equal(from_parse("a@b.cde", 5, &from), 0);
	assert_string_equal(from.address[0].address, "a@b.c");
}

/* What the relay makes of a From; reply_to is NULL where none is added. */
static const struct {
	const char *value, *from, *reply_to;
} changed[] = {
	{"erp@fabrikam.com", "relay@contoso.com", "erp@fabrikam.com"},
	{"Erp <erp@fabrikam.com>", "Erp <relay@contoso.com>", "Erp <erp@fabrikam.com>"},
	{"\"Erp, old\" <erp@fabrikam.com>", "\"Erp, old\" <relay@contoso.com>",
	 "\"Erp, old\" <erp@fabrikam.com>"},
	{"=?utf-8?Q?M=C3=BCller?=\n =?utf-8?Q?_Ltd?= <m@x.test>",
	 "=?utf-8?Q?M=C3=BCller?=\n =?utf-8?Q?_Ltd?= <relay@contoso.com>",
	 "=?utf-8?Q?M=C3=BCller?=\n =?utf-8?Q?_Ltd?= <m@x.test>"},
	/* Nobody could answer to these. */
	{"root@srv01 (Cron Daemon)", "Cron Daemon <relay@contoso.com>", NULL},
	{"root", "relay@contoso.com", NULL},
	{"root@srv01.lan (=?utf-8?B?w7w=?=)", "=?utf-8?B?w7w=?= <relay@contoso.com>",
	 "root@srv01.lan (=?utf-8?B?w7w=?=)"},
	{"a@b.c (x \\(y\\) \"z\")", "\"x (y) \\\"z\\\"\" <relay@contoso.com>",
	 "a@b.c (x \\(y\\) \"z\")"},
	{"boss@b.c <a@b.c>", "\"boss@b.c\" <relay@contoso.com>", "boss@b.c <a@b.c>"},
	{"A <a@b.c>, B <b@b.c>", "A <relay@contoso.com>", "A <a@b.c>, B <b@b.c>"},
	{"a@b.c, root", "relay@contoso.com", NULL},
	/* Nothing can be kept of what can't be read. */
	{"Erp <", "relay@contoso.com", NULL},
	{"team:;", "relay@contoso.com", NULL},
	{"A\nB <a@b.c>", "A B <relay@contoso.com>", "AB <a@b.c>"},
	{"A\r\n B <a@b.c>", "A\n B <relay@contoso.com>", "A\n B <a@b.c>"},
};

static void test_change(void **state)
{
	struct conf_mailbox mailbox = {.address = (char[]){"relay@contoso.com"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(changed); i++) {
		struct sender_header header = {0};
		struct sender_change change;

		sender_change_init(&change);
		sender_add_field(&header, "from", changed[i].value);
		sender_add_field(&header, "DKIM-Signature", "v=1");
		sender_add_field(&header, "dkim-signature", "v=1");
		sender_add_field(&header, "SENDER", "x");
		sender_change_header(&mailbox, &header, &change);
		assert_string_equal(buf_text(&change.from), changed[i].from);
		assert_string_equal(buf_text(&change.reply_to),
				    changed[i].reply_to == NULL ? "" : changed[i].reply_to);
		assert_int_equal(change.froms, 1);
		assert_int_equal(change.senders, 1);
		assert_int_equal(change.signatures, 2);
		sender_change_clear(&change);
		/* A Reply-To that is there stays. */
		sender_add_field(&header, "Reply-To", "x@y.z");
		sender_change_header(&mailbox, &header, &change);
		assert_int_equal(change.reply_to.len, 0);
		sender_change_clear(&change);
		sender_header_clear(&header);
	}
}

static void test_change_of_a_long_name(void **state)
{
	struct conf_mailbox mailbox = {.address = (char[]){"relay@contoso.com"}};
	struct sender_header header = {0};
	struct sender_change change;
	char value[FROM_MAX + 1];

	(void)state;
	/* Each byte is to be quoted, and the address must not fall off the end. */
	memset(value, '"', sizeof(value));
	for (size_t i = 1; i < sizeof(value) - 20; i += 2)
		value[i] = '\\';
	(void)snprintf(value + sizeof(value) - 20, 20, "\" @ <erp@contoso.com>");
	sender_change_init(&change);
	sender_add_field(&header, "From", value);
	sender_change_header(&mailbox, &header, &change);
	assert_false(change.from.overflowed);
	assert_non_null(strstr(buf_text(&change.from), "relay@contoso.com"));
	sender_change_clear(&change);
	sender_header_clear(&header);
}

static void test_own(void **state)
{
	char *senders[] = {(char[]){"*@contoso.com"}, (char[]){"erp@fabrikam.com"}};
	struct conf_mailbox mailbox = {.address = (char[]){"relay@mail.test"},
				       .senders = {.item = senders, .count = 2}};
	static const struct {
		const char *address;
		bool own;
	} cases[] = {
		{"", false},
		{"relay@mail.test", true},
		{"Relay@Mail.Test", true},
		{"any@contoso.com", true},
		{"Any@CONTOSO.com", true},
		{"any@sub.contoso.com", false},
		{"any@contoso.com.evil.test", false},
		{"ERP@fabrikam.com", true},
		{"erp2@fabrikam.com", false},
		{"root", false},
		{"root@srv01", false},
		{"contoso.com", false},
		{"\"x@contoso.com\"@evil.test", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (conf_is_sender(&mailbox, cases[i].address) != cases[i].own)
			fail_msg("%s", cases[i].address);
}

/* From and Sender (NULL: none, "+": a second one is there), and what becomes of them. */
static const struct {
	const char *from, *sender;
	enum sender_verdict verdict;
	const char *other;
	bool changes;
	const char *new_from; /* "": it stays */
} judged[] = {
	{NULL, NULL, SENDER_OWN, "", true, "relay@contoso.com"},
	{"Erp <erp@contoso.com>", NULL, SENDER_OWN, "", false, ""},
	{"Erp <erp@contoso.com>", "relay@contoso.com", SENDER_OWN, "", false, ""},
	{"Erp <erp@contoso.com>", "x@fabrikam.com", SENDER_OTHER_SENDER, "x@fabrikam.com", true,
	 ""},
	{"Erp <erp@contoso.com>", "<", SENDER_OTHER_SENDER, "", true, ""},
	{"Erp <erp@contoso.com>", "+erp@contoso.com", SENDER_OTHER_SENDER, "", true, ""},
	{"erp@contoso.com <erp@fabrikam.com>", NULL, SENDER_OTHER_FROM, "erp@fabrikam.com", true,
	 "\"erp@contoso.com\" <relay@contoso.com>"},
	{"A <a@contoso.com>, b@fabrikam.com", "a@contoso.com", SENDER_OTHER_FROM,
	 "b@fabrikam.com", true, "A <relay@contoso.com>"},
	{"+erp@contoso.com", NULL, SENDER_OTHER_FROM, "", true, "relay@contoso.com"},
	{"erp@contoso.com <", NULL, SENDER_OTHER_FROM, "", true, "relay@contoso.com"},
	{"team:;", NULL, SENDER_OTHER_FROM, "", true, "relay@contoso.com"},
	/* Exchange wants to know which of them it was. */
	{"A <a@contoso.com>, b@contoso.com", "a@contoso.com", SENDER_OWN, "", false, ""},
	{"A <a@contoso.com>, b@contoso.com", NULL, SENDER_OWN, "", true, "A <relay@contoso.com>"},
	{"A <a@contoso.com>, b@contoso.com", "x@y.z", SENDER_OTHER_SENDER, "x@y.z", true,
	 "A <relay@contoso.com>"},
};

static void add(struct sender_header *header, const char *name, const char *value)
{
	if (value == NULL)
		return;
	sender_add_field(header, name, value[0] == '+' ? value + 1 : value);
	if (value[0] == '+')
		sender_add_field(header, name, value + 1);
}

static void test_judge(void **state)
{
	char *senders[] = {(char[]){"*@contoso.com"}};
	struct conf_mailbox mailbox = {.address = (char[]){"relay@contoso.com"},
				       .senders = {.item = senders, .count = 1}};
	char other[FROM_ADDRESS_MAX + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(judged); i++) {
		struct sender_header header = {0};
		struct sender_change change;

		add(&header, "From", judged[i].from);
		add(&header, "Sender", judged[i].sender);
		if (sender_judge(&mailbox, &header, other) != judged[i].verdict)
			fail_msg("%zu: %s", i, judged[i].from);
		assert_string_equal(other, judged[i].other);
		assert_int_equal(sender_needs_change(&mailbox, &header), judged[i].changes);
		sender_change_init(&change);
		sender_change_header(&mailbox, &header, &change);
		assert_string_equal(buf_text(&change.from), judged[i].new_from);
		sender_change_clear(&change);
		sender_header_clear(&header);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),  cmocka_unit_test(test_length),
		cmocka_unit_test(test_change), cmocka_unit_test(test_change_of_a_long_name),
		cmocka_unit_test(test_own),    cmocka_unit_test(test_judge),
	};

	return cmocka_run_group_tests_name("from", tests, NULL, NULL);
}
