#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test_quota_kit.h"

#include "base/xalloc.h"

#include "base/log.h"

#include "temp.h"

static void test_life(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;
	struct quota_use use;

	(void)state;
	assert_true(kit_reserve(m, &kit_relay, 4, &verdict));
	assert_true(kit_reserve(m, &kit_relay, 3, &verdict));
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 7);
	assert_false(kit_reserve(m, &kit_relay, 4, &verdict));
	assert_int_equal(verdict.used, 7);
	assert_int_equal(verdict.max, 10);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 7);
	quota_release(m);
	quota_release(m); /* an abort comes more than once */
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 0);
	assert_true(kit_reserve(m, &kit_relay, 10, &verdict)); /* used anew */
	assert_int_equal(quota_charge(m, false, &use, &err), 0);
	assert_string_equal(use.limit, "day");
	assert_int_equal(use.used, 10);
	assert_int_equal(use.max, 10);
	quota_release(m);					 /* nothing: it was charged */
	assert_int_equal(quota_charge(m, false, &use, &err), 0); /* nothing to charge */
	assert_string_equal(use.limit, "");
	assert_int_equal(kit_used(quota, "day", "RELAY@contoso.COM"), 10);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 0);
	assert_false(kit_reserve(m, &kit_relay, 1, &verdict));
	assert_int_equal(verdict.room_at_wall_ms, T0 + MINUTE + DAY);
	assert_int_equal(verdict.room, 10);
	quota_message_free(&m);
	quota_close(&quota);

	quota = kit_open(&limit, 1);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 10);
	kit_pass(DAY + MINUTE - 1);
	assert_false(kit_send(quota, 1));
	kit_pass(1 + DAY / 100); /* the wall clock is followed slowly */
	assert_true(kit_send(quota, 10));
	quota_close(&quota);
}

/* A message meets all its limits or takes nothing of any. */
static void test_all_or_none(void **state)
{
	struct quota_limit limits[] = {kit_day_limit(100, QUOTA_DEFER),
				       kit_source_limit(QUOTA_RECIPIENTS, 5)};
	struct quota *quota = kit_open(limits, 2);
	struct quota_message *m = quota_message_new(quota);
	struct quota_facts other = kit_relay;
	struct quota_verdict verdict;

	(void)state;
	assert_true(kit_reserve(m, &kit_relay, 5, &verdict));
	assert_false(kit_reserve(m, &kit_relay, 1, &verdict));
	assert_string_equal(verdict.limit, "per-user");
	assert_string_equal(verdict.key, "erp");
	assert_int_equal(verdict.action, QUOTA_REJECT);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 5);
	other.source = "scanner"; /* a key of its own */
	assert_true(kit_reserve(m, &other, 1, &verdict));
	other.mailbox = "another@contoso.com"; /* the built-in limit is not its */
	other.source = NULL;
	assert_true(kit_reserve(m, &other, 1000, &verdict));
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 6);
	assert_int_equal(kit_reserved(quota, "per-user", "scanner"), 1);
	quota_message_free(&m);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 0);
	quota_close(&quota);
}

/* Messages and bytes count once a message, not once a recipient. */
static void test_whole_message_counts(void **state)
{
	struct quota_limit limit = kit_source_limit(QUOTA_MESSAGES, 2);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;

	(void)state;
	for (int message = 0; message < 2; message++) {
		for (int i = 0; i < 5; i++)
			assert_true(kit_reserve(m, &kit_relay, 1, &verdict));
		assert_int_equal(quota_charge(m, false, NULL, &err), 0);
	}
	assert_int_equal(kit_used(quota, "per-user", "erp"), 2);
	assert_false(kit_reserve(m, &kit_relay, 1, &verdict));
	limit = kit_source_limit(QUOTA_BYTES, 250);
	(void)snprintf(limit.name, sizeof(limit.name), "volume");
	quota_set_limits(quota, &limit, 1);
	for (int i = 0; i < 5; i++)
		assert_true(kit_reserve(m, &kit_relay, 1, &verdict));
	assert_int_equal(kit_reserved(quota, "volume", "erp"), 100);
	quota_message_free(&m);
	quota_close(&quota);
}

static void test_keys(void **state)
{
	char a[QUOTA_KEY_MAX + 40], b[QUOTA_KEY_MAX + 40];
	struct quota_limit limit = kit_source_limit(QUOTA_RECIPIENTS, 3);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_facts facts = {.source = "User@Example.COM"};
	struct quota_verdict verdict;
	struct err err = ERR_INIT;

	(void)state;
	assert_true(kit_reserve(m, &facts, 2, &verdict));
	facts.source = "uSER@example.com"; /* the same */
	assert_false(kit_reserve(m, &facts, 2, &verdict));
	facts.source = "\xc3\x84@example.com"; /* other bytes stay as they are */
	assert_true(kit_reserve(m, &facts, 2, &verdict));
	facts.source = "\xc3\xa4@example.com";
	assert_true(kit_reserve(m, &facts, 2, &verdict));
	/* Two long keys that differ at their ends only. */
	memset(a, 'x', sizeof(a));
	memset(b, 'X', sizeof(b));
	a[sizeof(a) - 1] = b[sizeof(b) - 1] = '\0';
	b[sizeof(b) - 2] = 'y';
	facts.source = a;
	assert_true(kit_reserve(m, &facts, 2, &verdict));
	facts.source = b;
	assert_true(kit_reserve(m, &facts, 2, &verdict));
	assert_int_equal(kit_reserved(quota, "per-user", b), 2);
	facts.source = ""; /* no key, no limit */
	assert_true(kit_reserve(m, &facts, 200, &verdict));
	assert_int_equal(quota_charge(m, false, NULL, &err), 0);
	quota_message_free(&m);
	quota_close(&quota);
	quota = kit_open(&limit, 1);
	assert_int_equal(kit_used(quota, "per-user", b), 2);
	assert_int_equal(kit_used(quota, "per-user", "\xc3\x84@EXAMPLE.com"), 2);
	quota_close(&quota);
}

static void test_sweep(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *lost = quota_message_new(quota), *live = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;

	(void)state;
	assert_true(kit_reserve(lost, &kit_relay, 6, &verdict));
	kit_pass(FORGOTTEN / 2);
	assert_true(kit_reserve(live, &kit_relay, 4, &verdict));
	assert_false(kit_send(quota, 1));
	assert_int_equal(quota_sweep(quota, FORGOTTEN), 0);
	kit_pass(FORGOTTEN / 2);
	assert_int_equal(quota_sweep(quota, FORGOTTEN), 1);
	assert_int_equal(quota_sweep(quota, FORGOTTEN), 0);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 4);
	assert_true(kit_send(quota, 5));
	/* It was not lost after all: what was answered "accepted" counts. */
	assert_int_equal(quota_charge(lost, false, NULL, &err), 0);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 11);
	quota_release(lost);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 4);
	quota_message_free(&lost);
	quota_message_free(&live);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 0);
	quota_close(&quota);
}

/* A swept message that goes on holds again what it had. */
static void test_sweep_then_reserve(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_verdict verdict;

	(void)state;
	assert_true(kit_reserve(m, &kit_relay, 6, &verdict));
	kit_pass(FORGOTTEN);
	assert_int_equal(quota_sweep(quota, FORGOTTEN), 1);
	assert_true(kit_reserve(m, &kit_relay, 4, &verdict));
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 10);
	quota_message_free(&m);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 0);
	quota_close(&quota);
}

static void test_reload(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER), other = kit_source_limit(0, 1);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;

	(void)state;
	assert_true(kit_send(quota, 10));
	assert_false(kit_send(quota, 1));
	limit.max = 12;
	quota_set_limits(quota, &limit, 1);
	assert_true(kit_reserve(m, &kit_relay, 2, &verdict));
	limit.max = 5;
	quota_set_limits(quota, &limit, 1);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 2);
	assert_int_equal(quota_charge(m, false, NULL, &err), 0);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 12);
	/* A limit that is gone for a while keeps its use. */
	assert_int_equal(kit_rows(quota), 1);
	quota_set_limits(quota, &other, 1);
	assert_int_equal(kit_rows(quota), 0);
	(void)quota_sweep(quota, FORGOTTEN);
	limit.max = 13;
	quota_set_limits(quota, &limit, 1);
	assert_int_equal(kit_rows(quota), 1);
	assert_true(kit_send(quota, 1));
	assert_false(kit_send(quota, 1));
	quota_message_free(&m);
	quota_close(&quota);
}

/* A longer window remembers what the shorter one had, also over a restart. */
static void test_window_changes(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER);
	struct quota *quota;

	(void)state;
	limit.window_ms = HOUR;
	quota = kit_open(&limit, 1);
	assert_true(kit_send(quota, 10));
	kit_pass(MINUTE);
	limit.window_ms = 7 * DAY;
	quota_set_limits(quota, &limit, 1);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 10);
	quota_tick(quota);
	kit_pass(6 * DAY);
	quota_tick(quota);
	assert_false(kit_send(quota, 1));
	quota_close(&quota);
	quota = kit_open(&limit, 1);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 10);
	limit.window_ms = DAY;
	quota_set_limits(quota, &limit, 1);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 0);
	quota_close(&quota);
}

static void test_clock_steps(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER);
	struct quota *quota = kit_open(&limit, 1);

	(void)state;
	assert_true(kit_send(quota, 10));
	kit_wall_ms += 30 * HOUR; /* somebody sets the date */
	kit_pass(MINUTE);
	assert_false(kit_send(quota, 1));
	quota_tick(quota);
	quota_close(&quota);
	quota = kit_open(&limit, 1); /* nor does a restart give credit */
	assert_false(kit_send(quota, 1));
	kit_wall_ms -= 60 * HOUR;
	kit_pass(24 * HOUR - 1);
	assert_false(kit_send(quota, 1));
	kit_pass(1); /* a day has passed, whatever the date */
	assert_true(kit_send(quota, 10));
	assert_false(kit_send(quota, 1));
	quota_close(&quota);
}

/* What is held or only warned of does not wait: the time is when the window has room again. */
static void test_room_of_what_does_not_wait(void **state)
{
	static const enum quota_action action[] = {QUOTA_HOLD, QUOTA_WARN};

	(void)state;
	for (size_t i = 0; i < sizeof(action) / sizeof(action[0]); i++) {
		struct quota_limit limit = kit_day_limit(5, action[i]);
		struct quota *quota = kit_open(&limit, 1);
		struct quota_message *m = quota_message_new(quota);
		struct quota_verdict verdict;
		int64_t begin;

		kit_pass(MINUTE);
		begin = kit_wall_ms;
		for (int n = 1; n <= 34; n++) {
			assert_true(kit_reserve(m, &kit_relay, 1, &verdict));
			assert_int_equal(verdict.exceeded, n > 5);
			if (n > 5)
				assert_in_range(verdict.room_at_wall_ms, begin,
						begin + DAY + MINUTE);
		}
		quota_message_free(&m);
		quota_close(&quota);
	}
}

static void test_wait(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_WAIT);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota), *n = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;

	(void)state;
	assert_true(kit_send(quota, 10));
	assert_false(kit_reserve(m, &kit_relay, 1, &verdict)); /* a day is longer than max_wait */
	assert_int_equal(verdict.action, QUOTA_DEFER);
	kit_pass(21 * HOUR);
	assert_true(kit_reserve(m, &kit_relay, 7, &verdict));
	assert_true(verdict.exceeded);
	assert_int_equal(verdict.action, QUOTA_WAIT);
	assert_int_equal(verdict.room_at_wall_ms, T0 + MINUTE + DAY);
	/* The next ones have their place behind: 3 in the same window, then a day later. */
	assert_true(kit_reserve(n, &kit_relay, 3, &verdict));
	assert_false(kit_reserve(n, &kit_relay, 1, &verdict));
	assert_int_equal(verdict.room_at_wall_ms, T0 + 2 * (MINUTE + DAY));
	assert_int_equal(quota_charge(m, false, NULL, &err), 0);
	assert_int_equal(quota_charge(n, false, NULL, &err), 0);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 20);
	quota_message_free(&m);
	quota_message_free(&n);
	quota_close(&quota);
	quota = kit_open(&limit, 1);
	kit_pass(4 * HOUR); /* the first ten are a day old, and the waiting ones went out then */
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 10);
	assert_false(kit_send(quota, 1));
	kit_pass(DAY);
	assert_true(kit_send(quota, 10));
	quota_close(&quota);
}

static void test_priority(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER);
	struct quota_facts monitoring = kit_relay;
	struct quota_verdict verdict;
	struct quota_message *m;
	struct quota *quota;

	(void)state;
	limit.reserve_percent = 20;
	quota = kit_open(&limit, 1);
	m = quota_message_new(quota);
	monitoring.priority = true;
	assert_true(kit_reserve(m, &kit_relay, 8, &verdict));
	assert_false(kit_reserve(m, &kit_relay, 1, &verdict));
	assert_int_equal(verdict.cap, 8);
	assert_true(kit_reserve(m, &monitoring, 2, &verdict));
	assert_false(kit_reserve(m, &monitoring, 1, &verdict));
	quota_message_free(&m);
	quota_close(&quota);
}

static void test_undivided(void **state)
{
	struct quota_limit limit = kit_day_limit(10, QUOTA_DEFER);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_facts facts = kit_relay;
	struct quota_verdict verdict;

	(void)state;
	facts.undivided = true;
	assert_true(kit_reserve(m, &facts, 6, &verdict));
	assert_false(kit_reserve(m, &facts, 5, &verdict));
	assert_true(verdict.never);
	assert_int_equal(verdict.action, QUOTA_REJECT);
	quota_message_free(&m);
	quota_close(&quota);
}

/* Through two mailboxes: a limit of the source's takes the bytes once, a mailbox's its own. */
static void test_bytes_of_two_mailboxes(void **state)
{
	struct quota_limit limits[] = {kit_source_limit(QUOTA_BYTES, 10000),
				       kit_day_limit(10000, QUOTA_DEFER)};
	struct quota_facts facts[] = {kit_relay, kit_relay};
	struct quota_need need = {.messages = 1, .recipients = 1, .bytes = 100};
	struct quota_message *m;
	struct quota_verdict verdict;
	struct quota *quota;

	(void)state;
	limits[1].count = QUOTA_BYTES;
	limits[1].key[0] = '\0';
	facts[1].mailbox = "alerts@contoso.com";
	quota = kit_open(limits, 2);
	m = quota_message_new(quota);
	for (size_t i = 0; i < ARRAY_LEN(facts); i++)
		quota_reserve(m, &facts[i], &need, &verdict); /* as announced */
	need = (struct quota_need){.bytes = 5900};
	for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
		facts[i].undivided = facts[i].more = true;
		quota_reserve(m, &facts[i], &need, &verdict);
		assert_false(verdict.exceeded);
	}
	assert_int_equal(quota_charge(m, false, NULL, NULL), 0);
	assert_int_equal(kit_used(quota, "per-user", "erp"), 6000);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 6000);
	assert_int_equal(kit_used(quota, "day", "alerts@contoso.com"), 6000);
	quota_message_free(&m);
	quota_close(&quota);
}

/* Reserves one recipient of a new source for a message of its own. */
static struct quota_message *reserve_new(struct quota *quota, int number,
					 struct quota_verdict *verdict)
{
	struct quota_message *m = quota_message_new(quota);
	struct quota_facts facts = {.source = NULL};
	char source[32];

	(void)snprintf(source, sizeof(source), "s%d@example.com", number);
	facts.source = source;
	(void)kit_reserve(m, &facts, 1, verdict);
	return m;
}

/* With as many counters as there may be: those that count nothing make room, no others. */
static void test_crowd(void **state)
{
	struct quota_limit limits[] = {kit_day_limit(10, QUOTA_DEFER),
				       kit_source_limit(QUOTA_RECIPIENTS, 3)};
	struct quota_message **all = xcalloc(QUOTA_COUNTERS_MAX, sizeof(struct quota_message *));
	struct quota *quota = kit_open(limits, 2);
	struct quota_verdict verdict;
	struct quota_message *m;

	(void)state;
	assert_true(kit_send(quota, 2)); /* two counters have use */
	for (int i = 0; i < QUOTA_COUNTERS_MAX - 2; i++) {
		all[i] = reserve_new(quota, i, &verdict);
		assert_false(verdict.exceeded);
	}
	m = reserve_new(quota, QUOTA_COUNTERS_MAX, &verdict);
	assert_true(verdict.crowded);
	assert_int_equal(verdict.action, QUOTA_DEFER);
	quota_message_free(&m);
	for (int i = 0; i < QUOTA_COUNTERS_MAX - 2; i++)
		quota_message_free(&all[i]); /* these count nothing any more */
	for (int i = 1; i < 5000; i++) {
		m = reserve_new(quota, QUOTA_COUNTERS_MAX + i, &verdict);
		assert_false(verdict.exceeded);
		quota_message_free(&m);
	}
	assert_int_equal(kit_used(quota, "per-user", "erp"), 2);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 2);
	free(all);
	quota_close(&quota);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_life),
		TEST(test_all_or_none),
		TEST(test_whole_message_counts),
		TEST(test_keys),
		TEST(test_sweep),
		TEST(test_sweep_then_reserve),
		TEST(test_reload),
		TEST(test_window_changes),
		TEST(test_clock_steps),
		TEST(test_room_of_what_does_not_wait),
		TEST(test_wait),
		TEST(test_priority),
		TEST(test_undivided),
		TEST(test_bytes_of_two_mailboxes),
		TEST(test_crowd),
	};

	log_open("test", LOG_TO_STDERR, false, false);
	return cmocka_run_group_tests_name("quota", tests, NULL, NULL);
}
