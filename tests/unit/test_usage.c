/* Who sends how much, on a clock of the test's own. */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "milter/usage.h"

#include "base/buf.h"
#include "base/file.h"

#include "temp.h"

#define HOUR (3600 * 1000LL)
#define FIRST (500000 * HOUR) /* an hour of 2027 */
#define MAILBOX "relay@contoso.com"
#define FACTOR 10

static int64_t wall_ms;
static struct usage *usage;

/* Linked with --wrap. */
int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_boot_ms(void);

int64_t __wrap_clock_wall_ms(void)
{
	return wall_ms;
}

int64_t __wrap_clock_boot_ms(void)
{
	return wall_ms;
}

static int enter(void **state)
{
	int result = temp_enter(state);

	wall_ms = FIRST;
	usage = usage_open(temp_path("sources"));
	return result;
}

static int leave(void **state)
{
	usage_free(&usage);
	return temp_leave(state);
}

static struct usage_hour add(const char *source, int64_t n)
{
	struct usage_hour hour;

	usage_add(usage, source, MAILBOX, n, FACTOR, &hour);
	return hour;
}

/* Hours go by; how many sources ran away and do no more. */
static size_t pass(int64_t hours)
{
	struct usage_row row[4];
	size_t ended = 0;

	for (; hours > 0; hours--) {
		wall_ms += HOUR;
		ended += usage_roll(usage, FACTOR, row, 4);
	}
	return ended;
}

/* A source that is known, and sends at most n in an hour. */
static void learn(const char *source, int64_t n)
{
	(void)add(source, n);
	(void)pass(USAGE_KNOWN_H);
}

static void test_runs_away(void **state)
{
	struct usage_hour hour;
	struct usage_row row;

	(void)state;
	learn("erp", 50);
	hour = add("erp", 400);
	assert_int_equal(hour.incident, 0);
	hour = add("erp", 200);
	assert_int_not_equal(hour.incident, 0);
	assert_true(hour.begins);
	assert_int_equal(hour.recipients, 600);
	assert_in_range(hour.usual, 45, 50);
	assert_false(add("erp", 1).begins);
	assert_int_equal(usage_runaways(usage, &row, 1), 1);
	assert_string_equal(row.source, "erp");
	assert_int_equal(row.incident, hour.incident);
	assert_int_equal(add("other", 1).incident, 0);
	/* It goes on in the next hour, in which it sends less, and is over in the one after. */
	assert_int_equal(pass(1), 0);
	assert_int_equal(add("erp", 1).incident, hour.incident);
	assert_int_equal(pass(1), 1);
	assert_int_equal(add("erp", 1).incident, 0);
	/* What it sent meanwhile did not become usual. */
	assert_in_range(add("erp", 1).usual, 40, 50);
}

static const struct {
	const char *what;
	int64_t usual, known_h, now;
	bool away;
} cases[] = {
	{"new sources have nothing that is usual", 1, USAGE_KNOWN_H - 1, 10000, false},
	{"after a day they have", 1, USAGE_KNOWN_H, 10000, true},
	{"little is never running away", 1, USAGE_KNOWN_H, USAGE_RUNAWAY_MIN, false},
	{"more than little is", 1, USAGE_KNOWN_H, USAGE_RUNAWAY_MIN + 1, true},
	{"a batch a week is usual", 1000, 7 * 24, 4000, false},
	{"ten times that is not", 1000, 7 * 24, 10001, true},
	{"a batch of a year ago is forgotten", 1000, 365 * 24, 10001, false},
};

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		(void)add(cases[i].what, cases[i].usual);
		(void)pass(cases[i].known_h);
		if ((add(cases[i].what, cases[i].now).incident != 0) != cases[i].away)
			fail_msg("%s", cases[i].what);
	}
}

static void test_factor_0(void **state)
{
	struct usage_hour hour;

	(void)state;
	learn("erp", 1);
	usage_add(usage, "erp", MAILBOX, 10000, 0, &hour);
	assert_int_equal(hour.incident, 0);
}

static void test_nightly_batch_is_usual(void **state)
{
	(void)state;
	for (int night = 0; night < 30; night++) {
		assert_int_equal(add("batch", 5000).incident, 0);
		assert_int_equal(pass(1), 0);
		assert_int_equal(add("batch", 5).incident, 0);
		assert_int_equal(pass(23), 0);
	}
}

static void test_clock_goes_back(void **state)
{
	struct usage_row row[2];

	(void)state;
	learn("erp", 50);
	(void)add("erp", 20);
	wall_ms -= 5 * HOUR;
	assert_int_equal(usage_roll(usage, FACTOR, row, 2), 0);
	assert_int_equal(add("erp", 20).recipients, 40);
}

static void test_top(void **state)
{
	struct usage_hour hour;
	struct usage_row row[2];

	(void)state;
	(void)add("old", 1000);
	(void)pass(23);
	(void)add("small", 1);
	(void)add("erp", 20);
	usage_add(usage, "erp", "other@contoso.com", 3000, FACTOR, &hour);
	assert_int_equal(usage_top(usage, MAILBOX, row, 2), 2);
	assert_string_equal(row[0].source, "old");
	assert_int_equal(row[0].recipients, 1000);
	assert_string_equal(row[1].source, "erp");
	assert_int_equal(row[1].recipients, 20);
	assert_int_equal(usage_top(usage, NULL, row, 1), 1);
	assert_string_equal(row[0].source, "erp");
	assert_int_equal(row[0].recipients, 3020);
	(void)pass(1);
	assert_int_equal(usage_top(usage, MAILBOX, row, 2), 2);
	assert_string_equal(row[0].source, "erp");
	assert_string_equal(row[1].source, "small");
}

static void reopen(void)
{
	usage_save(usage, true);
	usage_free(&usage);
	usage = usage_open(temp_path("sources"));
}

static void test_restart(void **state)
{
	(void)state;
	learn("erp one", 50);
	(void)add("erp one", 400);
	(void)add("new", 1000);
	reopen();
	assert_int_equal(add("new", 10000).incident, 0);
	assert_in_range(add("erp one", 1).usual, 390, 400);
	assert_int_not_equal(add("erp one", 4000).incident, 0);
	/* The hour in which it ran away is not remembered as usual. */
	reopen();
	assert_in_range(add("erp one", 1).usual, 390, 400);
}

static void test_damaged_file(void **state)
{
	static const char text[] = "499000 499999 12800 erp\n"
				   "499000 499999\n"
				   "x y z erp2\n"
				   "499000 499999 12800 \n"
				   "-1 499999 12800 erp3\n"
				   "499000 999999 12800 erp4\n"
				   "499000 499999 99999999999999999999 erp5\n"
				   "499000 499999 256 erp\n"
				   "499000 499999 12800 erp6";

	(void)state;
	usage_free(&usage);
	(void)temp_write("sources", text, sizeof(text) - 1, 0600);
	usage = usage_open(temp_path("sources"));
	assert_in_range(add("erp", 1).usual, 49, 50);
	assert_int_equal(add("erp3", 1).usual, 0);
	assert_in_range(add("erp6", 1).usual, 49, 50);
}

static void test_forgets(void **state)
{
	(void)state;
	learn("erp", 50);
	(void)pass(USAGE_FORGET_H + 1);
	assert_int_equal(add("erp", 10000).incident, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, enter, leave)
	const struct CMUnitTest tests[] = {
		TEST(test_runs_away),	    TEST(test_cases),
		TEST(test_factor_0),	    TEST(test_nightly_batch_is_usual),
		TEST(test_clock_goes_back), TEST(test_top),
		TEST(test_restart),	    TEST(test_damaged_file),
		TEST(test_forgets),
	};

	return cmocka_run_group_tests_name("usage", tests, NULL, NULL);
}
