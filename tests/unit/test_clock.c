#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

#define BOOT_A "11111111-2222-3333-4444-555555555555"
#define BOOT_B "99999999-2222-3333-4444-555555555555"
#define MINUTE 60000LL
#define HOUR 3600000LL
#define T0 1795442825000LL /* 2026-11-23T14:07:05Z */

static void test_rfc3339(void **state)
{
	static const struct {
		int64_t wall_ms;
		const char *text;
	} cases[] = {
		{0, "1970-01-01T00:00:00Z"},
		{999, "1970-01-01T00:00:00Z"},
		{T0, "2026-11-23T14:07:05Z"},
		{T0 + 999, "2026-11-23T14:07:05Z"},
		{1709164800000, "2024-02-29T00:00:00Z"},
		{253402300799999, "9999-12-31T23:59:59Z"},
	};
	char text[CLOCK_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_string_equal(clock_rfc3339(cases[i].wall_ms, text), cases[i].text);
}

/* What is promised for a minute must be true when it begins, or a second later. */
static void test_for_people(void **state)
{
	static const struct {
		int64_t at, now;
		const char *text;
	} cases[] = {
		{T0, T0, "14:08 UTC"},
		{T0 - 5000, T0, "14:07 UTC"},
		{T0 - 4000, T0, "14:07 UTC"}, /* a second is not worth a minute */
		{T0 - 3999, T0, "14:08 UTC"},
		{T0 - 5000 + MINUTE - 1, T0, "14:08 UTC"},
		{T0 - 5000 + 10 * HOUR - 1, T0, "00:07 UTC"},
		{T0 + 18 * HOUR, T0, "08:08 UTC"},
		{T0 + 18 * HOUR + 1, T0, "2026-11-24 08:08 UTC"},
		{T0 - HOUR, T0, "13:08 UTC"},
		/* Over midnight by the rounding alone. */
		{1795478399001, T0, "00:00 UTC"},
		{1795478399001 + 24 * HOUR, T0, "2026-11-25 00:00 UTC"},
	};
	char text[CLOCK_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_string_equal(clock_for_people(cases[i].at, cases[i].now, text),
				    cases[i].text);
}

static void test_clocks_move(void **state)
{
	int64_t boot = clock_boot_ms();
	char id[40];

	(void)state;
	assert_true(clock_wall_ms() > T0 - 10 * 365 * 24 * HOUR);
	assert_true(boot > 0 && clock_boot_ms() >= boot);
	clock_boot_id(id);
	assert_true(strlen(id) == 36 || strlen(id) == 0);
}

/* ---- the steady clock ---- */

static const struct {
	const char *name;
	bool has_mark;
	struct steady_mark mark;
	int64_t wall, boot;
	const char *boot_id;
	int64_t at, ahead;
} starts[] = {
	{"no history", false, {0, 0, 0, ""}, T0, 5000, BOOT_A, T0, 0},
	{"same boot", true, {T0, 5000, 0, BOOT_A}, T0 + 1000, 6000, BOOT_A, T0 + 1000, 0},
	{"same boot, wall a day ahead",
	 true,
	 {T0, 5000, 0, BOOT_A},
	 T0 + 24 * HOUR,
	 6000,
	 BOOT_A,
	 T0 + 1000,
	 24 * HOUR - 1000},
	{"same boot, wall a day behind",
	 true,
	 {T0, 5000, 0, BOOT_A},
	 T0 - 24 * HOUR,
	 6000,
	 BOOT_A,
	 T0 + 1000,
	 -24 * HOUR - 1000},
	{"another boot, down for 5 minutes",
	 true,
	 {T0, 90 * HOUR, 0, BOOT_A},
	 T0 + 5 * MINUTE,
	 MINUTE,
	 BOOT_B,
	 T0 + 5 * MINUTE,
	 0},
	{"another boot, down for exactly what is believed",
	 true,
	 {T0, 90 * HOUR, 0, BOOT_A},
	 T0 + 11 * MINUTE,
	 MINUTE,
	 BOOT_B,
	 T0 + 11 * MINUTE,
	 0},
	{"another boot, wall a day ahead",
	 true,
	 {T0, 90 * HOUR, 0, BOOT_A},
	 T0 + 24 * HOUR,
	 MINUTE,
	 BOOT_B,
	 T0 + 11 * MINUTE,
	 24 * HOUR - 11 * MINUTE},
	{"another boot, wall known to be a day ahead, down for 5 minutes",
	 true,
	 {T0, 90 * HOUR, T0 + 24 * HOUR, BOOT_A},
	 T0 + 24 * HOUR + 5 * MINUTE,
	 MINUTE,
	 BOOT_B,
	 T0 + 5 * MINUTE,
	 0},
	{"same boot, wall known to be a day ahead",
	 true,
	 {T0, 5000, T0 + 24 * HOUR, BOOT_A},
	 T0 + 24 * HOUR + 1000,
	 6000,
	 BOOT_A,
	 T0 + 1000,
	 0},
	{"another boot, wall an hour behind",
	 true,
	 {T0, 90 * HOUR, 0, BOOT_A},
	 T0 - HOUR,
	 MINUTE,
	 BOOT_B,
	 T0 + MINUTE,
	 -HOUR - MINUTE},
	{"boot id unknown then and now",
	 true,
	 {T0, 5000, 0, ""},
	 T0 + 24 * HOUR,
	 6000,
	 "",
	 T0 + 6000 + 10 * MINUTE,
	 24 * HOUR - 6000 - 10 * MINUTE},
	{"boot id unknown now",
	 true,
	 {T0, 5000, 0, BOOT_A},
	 T0 + MINUTE,
	 6000,
	 "",
	 T0 + MINUTE,
	 0},
	{"same id but the boot clock went back",
	 true,
	 {T0, 50000, 0, BOOT_A},
	 T0 + 1000,
	 6000,
	 BOOT_A,
	 T0 + 6000,
	 -5000},
};

static void test_start(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
		struct steady steady;
		int64_t ahead = steady_start(&steady, starts[i].has_mark ? &starts[i].mark : NULL,
					     starts[i].wall, starts[i].boot, starts[i].boot_id);
		int64_t at = steady_now(&steady, starts[i].boot);

		if (at != starts[i].at || ahead != starts[i].ahead)
			fail_msg("%s: at %lld, ahead %lld", starts[i].name, (long long)(at - T0),
				 (long long)ahead);
	}
}

/* As the boot clock goes, and never back. */
static void test_progress(void **state)
{
	struct steady steady;

	(void)state;
	(void)steady_start(&steady, NULL, T0, 1000, BOOT_A);
	assert_int_equal(steady_now(&steady, 999), T0);
	for (int64_t t = 0; t < 10 * MINUTE; t += 7)
		assert_int_equal(steady_now(&steady, 1000 + t), T0 + t);
}

static uint64_t seed = 365;

static int64_t random_below(int64_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (int64_t)((seed >> 33) % (uint64_t)n);
}

/* Restarts, in the same boot and in others, with any wall clock: never backwards either. */
static void test_restarts(void **state)
{
	struct steady_mark mark = {T0, 1000, 0, BOOT_A};
	int64_t boot = 1000, last = T0;
	bool in_a = true;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		int64_t wall = T0 + random_below(96 * HOUR) - 48 * HOUR;
		struct steady steady;
		int64_t at, ahead, most;

		if (random_below(3) == 0) {
			in_a = !in_a;
			boot = random_below(5 * MINUTE);
			most = boot + STEADY_START_JUMP_MS;
		} else {
			most = random_below(MINUTE);
			boot += most;
		}
		ahead = steady_start(&steady, &mark, wall, boot, in_a ? BOOT_A : BOOT_B);
		at = steady_now(&steady, boot);
		assert_true(at >= last);
		assert_true(at - last <= most);
		assert_int_equal(ahead, wall - at);
		mark.at_ms = last = at;
		mark.boot_ms = boot;
		(void)snprintf(mark.boot_id, sizeof(mark.boot_id), "%s", in_a ? BOOT_A : BOOT_B);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc3339),	    cmocka_unit_test(test_for_people),
		cmocka_unit_test(test_clocks_move), cmocka_unit_test(test_start),
		cmocka_unit_test(test_progress),    cmocka_unit_test(test_restarts),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
