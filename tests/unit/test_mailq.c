#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ctl/mailq.h"

struct list {
	struct mailq_item item[8];
	size_t count;
};

static void keep(void *arg, const struct mailq_item *item)
{
	struct list *list = arg;

	assert_true(list->count < ARRAY_LEN(list->item));
	list->item[list->count++] = *item;
}

static void parses(void **state)
{
	static const char text[] =
		"\t\t/var/spool/mqueue/q1 (2 requests)\n"
		"-----Q-ID----- --Size-- -----Q-Time----- "
		"------------Sender/Recipient-----------\n"
		"6AQBeppE010153*       5 Thu Nov 26 11:40 <erp@contoso.com>\n"
		"                 (Deferred: 451 4.7.0 relay@contoso.com: full (again))\n"
		"\t\t\t\t\t <a2@example.net>\n"
		"\t\t\t\t\t <a3@example.net>\n"
		"6AQBepFj010150        5 Thu Nov 26 11:40 <erp@contoso.com>\n"
		"     QUARANTINE: source erp: 1 of 1 messages used in 1 h\n"
		"\t\t\t\t\t <a1@example.net>\n"
		"\t\t/var/spool/mqueue/q2 (2 requests)\n"
		"-----Q-ID----- --Size-- -----Q-Time----- "
		"------------Sender/Recipient-----------\n"
		"6AQBepFj010151-    1023 Thu Nov 26 11:41 <>\n"
		"\t\t\t\t\t <erp@contoso.com>\n"
		"6AQBepFj010152                 root\n"
		"\t\tTotal requests: 4";
	static const struct {
		const char *id, *sender, *reason;
		int recipients;
	} wanted[] = {
		{"6AQBeppE010153", "erp@contoso.com",
		 "Deferred: 451 4.7.0 relay@contoso.com: full (again)", 2},
		{"6AQBepFj010150", "erp@contoso.com", "source erp: 1 of 1 messages used in 1 h",
		 1},
		{"6AQBepFj010151", "", "", 1},
		{"6AQBepFj010152", "root", "", 0},
	};
	struct list list = {.count = 0};

	(void)state;
	mailq_parse(text, keep, &list);
	assert_int_equal(list.count, ARRAY_LEN(wanted));
	for (size_t i = 0; i < list.count; i++) {
		assert_string_equal(list.item[i].id, wanted[i].id);
		assert_string_equal(list.item[i].sender, wanted[i].sender);
		assert_string_equal(list.item[i].reason, wanted[i].reason);
		assert_int_equal(list.item[i].recipients, wanted[i].recipients);
	}
}

static void nothing(void **state)
{
	static const char *const texts[] = {
		"", "\n", "/var/spool/mqueue is empty\n\t\tTotal requests: 0\n",
		"     (reason without a message)\n\t <a@b>\n", "short <a@b>\n"};
	struct list list = {.count = 0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		mailq_parse(texts[i], keep, &list);
	assert_int_equal(list.count, 0);
}

/* What is longer than its place is cut. */
static void long_texts(void **state)
{
	char text[4096] = "6AQBeppE010153 5 Thu Nov 26 11:40 <";
	struct list list = {.count = 0};
	size_t at = strlen(text);

	(void)state;
	memset(text + at, 'a', 1000);
	(void)snprintf(text + at + 1000, sizeof(text) - at - 1000, ">\n  (");
	at = strlen(text);
	memset(text + at, 'b', 1000);
	(void)snprintf(text + at + 1000, sizeof(text) - at - 1000, ")\n <r@x>\n");
	mailq_parse(text, keep, &list);
	assert_int_equal(list.count, 1);
	assert_int_equal(strlen(list.item[0].sender), MAILQ_TEXT_MAX - 1);
	assert_int_equal(strlen(list.item[0].reason), MAILQ_TEXT_MAX - 1);
	assert_int_equal(list.item[0].recipients, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses),
		cmocka_unit_test(nothing),
		cmocka_unit_test(long_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
