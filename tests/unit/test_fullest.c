/* The fullest keys of each limit, out of more than are listed. */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "milter/fullest.h"
#include "test_quota_kit.h"

enum { SOURCES = 2 * FULLEST_MAX, LIMITS = 2 };

static void send_from(struct quota *quota, int number, int64_t recipients)
{
	struct quota_message *m = quota_message_new(quota);
	struct quota_facts facts = kit_relay;
	struct quota_verdict verdict;
	struct err err = ERR_INIT;
	char source[32];

	(void)snprintf(source, sizeof(source), "s%d", number);
	facts.source = source;
	assert_true(kit_reserve(m, &facts, recipients, &verdict));
	assert_int_equal(quota_charge(m, false, NULL, &err), 0);
	quota_message_free(&m);
}

static void test_fullest(void **state)
{
	const struct quota_limit limits[LIMITS] = {
		kit_day_limit(INT64_MAX, QUOTA_DEFER),
		kit_source_limit(QUOTA_RECIPIENTS, SOURCES),
	};
	struct quota *quota = quota_simulate(limits, LIMITS);
	struct fullest_limit *found;
	int64_t sum = 0;

	(void)state;
	/* In no order: 7 and SOURCES have no common divisor. */
	for (int i = 0; i < SOURCES; i++) {
		int n = i * 7 % SOURCES;

		send_from(quota, n, n + 1);
		sum += n + 1;
	}
	found = fullest_find(quota, limits, LIMITS);
	assert_int_equal(found[0].count, 1);
	assert_string_equal(found[0].key[0].name, "relay@contoso.com");
	assert_int_equal(found[0].key[0].used, sum);
	assert_int_equal(found[1].in_use, SOURCES);
	assert_int_equal(found[1].count, FULLEST_MAX);
	for (int i = 0; i < FULLEST_MAX; i++) {
		char source[32];

		(void)snprintf(source, sizeof(source), "s%d", SOURCES - 1 - i);
		assert_string_equal(found[1].key[i].name, source);
		assert_int_equal(found[1].key[i].used, SOURCES - i);
		assert_int_equal(found[1].key[i].room_at_wall_ms > 0, i == 0);
	}
	fullest_free(&found, LIMITS);
	quota_close(&quota);
}

/* Limits that are not those in force have nobody. */
static void test_others(void **state)
{
	const struct quota_limit limits[LIMITS] = {
		kit_day_limit(1, QUOTA_DEFER),
		kit_source_limit(QUOTA_RECIPIENTS, SOURCES),
	};
	struct quota *quota = quota_simulate(limits + 1, 1);
	struct fullest_limit *found;

	(void)state;
	send_from(quota, 1, 1);
	found = fullest_find(quota, limits, LIMITS);
	assert_int_equal(found[0].count, 0);
	assert_int_equal(found[1].count, 0);
	fullest_free(&found, LIMITS);
	quota_close(&quota);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fullest),
		cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests_name("fullest", tests, NULL, NULL);
}
