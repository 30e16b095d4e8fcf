/* Limits that are nearly full, and when they will be: on a clock of the test's own. */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/forecast.h"
#include "test_quota_kit.h"

#include "temp.h"

static struct quota *quota;

static int leave(void **state)
{
	quota_close(&quota);
	return temp_leave(state);
}

static void open_day(int64_t max)
{
	struct quota_limit day = kit_day_limit(max, QUOTA_DEFER);

	quota = kit_open(&day, 1);
}

/* "begins 80", "" when there is no news; more than one is a failure. */
static const char *news(void)
{
	static const char *const states[] = {"lasts", "begins", "grows", "ends"};
	static char text[32];
	struct quota_incident *list;
	size_t n = quota_incidents(quota, true, &list);

	text[0] = '\0';
	assert_true(n <= 1);
	if (n == 1) {
		assert_string_equal(list[0].limit, "day");
		assert_string_equal(list[0].key, "relay@contoso.com");
		assert_true(list[0].number >= 1 && list[0].number <= 0xffff);
		(void)snprintf(text, sizeof(text), "%s %d", states[list[0].state],
			       list[0].percent);
	}
	free(list);
	return text;
}

static size_t lasting(void)
{
	struct quota_incident *list;
	size_t n = quota_incidents(quota, false, &list);

	free(list);
	return n;
}

static void test_marks(void **state)
{
	(void)state;
	open_day(100);
	assert_true(kit_send(quota, 79));
	assert_string_equal(news(), "");
	assert_true(kit_send(quota, 1));
	assert_int_equal(lasting(), 1);
	assert_string_equal(news(), "begins 80");
	assert_string_equal(news(), "");
	kit_pass(12 * HOUR);
	assert_true(kit_send(quota, 14));
	assert_string_equal(news(), "");
	assert_true(kit_send(quota, 1));
	assert_string_equal(news(), "grows 95");
	/* Down to 15, which is under 70. */
	kit_pass(12 * HOUR + 2 * MINUTE);
	assert_string_equal(news(), "ends 95");
	assert_string_equal(news(), "");
	assert_int_equal(lasting(), 0);
	assert_true(kit_send(quota, 65));
	assert_string_equal(news(), "begins 80");
}

static void test_up_and_down_is_told_once(void **state)
{
	(void)state;
	open_day(100);
	for (int hour = 0; hour < 24; hour++) {
		assert_true(kit_send(quota, 3));
		kit_pass(HOUR);
	}
	/* 72 in the day; from here each hour's 12 push it over 80, and its end below. */
	assert_string_equal(news(), "");
	assert_true(kit_send(quota, 12));
	assert_string_equal(news(), "begins 80");
	for (int i = 0; i < 3; i++) {
		kit_pass(HOUR);
		assert_string_equal(news(), "");
	}
	assert_true(kit_send(quota, 6));
	assert_string_equal(news(), "");
	assert_int_equal(lasting(), 1);
}

/* All in one: the jump from nothing to the wall. */
static void test_jump(void **state)
{
	(void)state;
	open_day(100);
	assert_true(kit_send(quota, 100));
	assert_string_equal(news(), "begins 95");
}

static void test_verdict_and_use_carry_the_number(void **state)
{
	struct quota_message *message;
	struct quota_verdict verdict;
	struct quota_use use;
	struct quota_incident *list;
	struct err err = ERR_INIT;

	(void)state;
	open_day(100);
	message = quota_message_new(quota);
	assert_true(kit_reserve(message, &kit_relay, 90, &verdict));
	assert_int_equal(quota_charge(message, false, &use, &err), 0);
	assert_int_equal(quota_incidents(quota, false, &list), 1);
	assert_int_equal(use.incident, list[0].number);
	assert_false(kit_reserve(message, &kit_relay, 11, &verdict));
	assert_true(verdict.refused);
	assert_int_equal(verdict.incident, list[0].number);
	free(list);
	quota_message_free(&message);
}

static void test_restart(void **state)
{
	(void)state;
	open_day(100);
	assert_true(kit_send(quota, 85));
	quota_close(&quota);
	open_day(100);
	assert_int_equal(lasting(), 0);
	quota_watch_all(quota);
	assert_string_equal(news(), "begins 80");
}

static void test_restart_is_quiet_about_users(void **state)
{
	struct quota_limit limit = kit_source_limit(QUOTA_RECIPIENTS, 100);

	(void)state;
	quota = kit_open(&limit, 1);
	assert_true(kit_send(quota, 85));
	quota_close(&quota);
	quota = kit_open(&limit, 1);
	quota_watch_all(quota);
	assert_int_equal(lasting(), 1);
	assert_string_equal(news(), "");
	kit_pass(2 * HOUR);
	assert_int_equal(lasting(), 1);
}

static void test_limit_that_goes(void **state)
{
	(void)state;
	open_day(100);
	assert_true(kit_send(quota, 85));
	assert_string_equal(news(), "begins 80");
	quota_set_limits(quota, NULL, 0);
	assert_string_equal(news(), "ends 80");
	assert_int_equal(lasting(), 0);
}

static void test_forecast(void **state)
{
	struct window window;

	(void)state;
	window_init(&window, DAY);
	assert_int_equal(forecast_full_at(&window, T0, 100), -1);
	/* 10 an hour for five hours: 50 more come in five hours. */
	for (int64_t t = T0; t < T0 + 5 * HOUR; t += HOUR / 10)
		window_add(&window, t, 1);
	assert_in_range(forecast_full_at(&window, T0 + 5 * HOUR, 100),
			T0 + 9 * HOUR + 45 * MINUTE, T0 + 10 * HOUR + 15 * MINUTE);
	/* At 240 a day 240 is never more than reached. */
	assert_int_equal(forecast_full_at(&window, T0 + 5 * HOUR, 250), -1);
	assert_int_equal(forecast_full_at(&window, T0 + 5 * HOUR, 50), T0 + 5 * HOUR);
	/* Nothing for an hour: no pace. */
	assert_int_equal(forecast_full_at(&window, T0 + 7 * HOUR, 100), -1);
	/* What waits for tomorrow is no pace of today. */
	window_add(&window, T0 + 30 * HOUR, 49);
	assert_int_equal(forecast_full_at(&window, T0 + 7 * HOUR, 100), -1);
	window_clear(&window);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_enter, leave)
	const struct CMUnitTest tests[] = {
		TEST(test_marks),
		TEST(test_up_and_down_is_told_once),
		TEST(test_jump),
		TEST(test_verdict_and_use_carry_the_number),
		TEST(test_restart),
		TEST(test_restart_is_quiet_about_users),
		TEST(test_limit_that_goes),
		cmocka_unit_test(test_forecast),
	};

	return cmocka_run_group_tests_name("incident", tests, NULL, NULL);
}
