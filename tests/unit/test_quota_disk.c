#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test_quota_kit.h"

#include "base/log.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "temp.h"

static void test_full_disk(void **state)
{
	struct quota_limit limit = kit_day_limit(1000, QUOTA_DEFER);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;

	(void)state;
	assert_true(kit_send(quota, 100));
	kit_file_limit(1);
	assert_true(kit_reserve(m, &kit_relay, 5, &verdict));
	assert_int_equal(quota_charge(m, false, NULL, &err), -1);
	assert_int_equal(err.class, ERR_TEMP);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 100);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 5);
	assert_int_equal(quota_charge(m, true, NULL, &err), 1); /* accepted anyway: it counts */
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 105);
	assert_int_equal(kit_reserved(quota, "day", "relay@contoso.com"), 0);
	quota_tick(quota);
	kit_pass(MINUTE);
	kit_file_limit(RLIM_INFINITY); /* there is room again: nobody has to do anything */
	assert_true(kit_send(quota, 1));
	quota_tick(quota);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 106);
	quota_message_free(&m);
	quota_close(&quota);
	quota = kit_open(&limit, 1);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 106);
	quota_close(&quota);
}

/* Accepts from so many senders, and dies before anything is folded. */
static void crash_with(const struct quota_limit *limit, int senders)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		struct quota *quota = kit_open(limit, 1);

		for (int i = 0; i < senders; i++) {
			struct quota_message *m = quota_message_new(quota);
			struct quota_facts facts = kit_relay;
			struct quota_verdict verdict;
			char source[32];

			(void)snprintf(source, sizeof(source), "source-%d", i);
			facts.source = source;
			if (!kit_reserve(m, &facts, 1, &verdict) ||
			    quota_charge(m, false, NULL, NULL) != 0)
				_exit(1);
			quota_message_free(&m);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* What a crash has left in the journal outlives starts that a full disk fails. */
static void test_full_disk_after_a_crash(void **state)
{
	struct quota_limit limit = kit_source_limit(QUOTA_RECIPIENTS, 1000);
	struct err err = ERR_INIT;
	struct quota *quota;

	(void)state;
	crash_with(&limit, 2000);
	for (int i = 0; i < 3; i++) {
		kit_file_limit(60000); /* the clock's mark fits, what was accepted does not */
		quota = quota_open(temp_path("ledger.db"), &limit, 1, &err);
		kit_file_limit(RLIM_INFINITY);
		assert_null(quota);
		assert_non_null(strstr(err.text, "ledger.db"));
	}
	quota = kit_open(&limit, 1);
	assert_int_equal(kit_rows(quota), 2000);
	quota_close(&quota);
}

/* A ledger that goes away while it is in use is written anew from memory. */
static void test_lost_ledger(void **state)
{
	static const char *const names[] = {"ledger.db", "ledger.db-wal", "ledger.db-shm"};
	struct quota_limit limits[] = {kit_day_limit(1000, QUOTA_DEFER),
				       kit_source_limit(QUOTA_RECIPIENTS, 1000)};
	struct quota *quota = kit_open(limits, 2);

	(void)state;
	assert_true(kit_send(quota, 100));
	kit_pass(5 * MINUTE);
	assert_true(kit_send(quota, 10));
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		(void)unlink(temp_path(names[i]));
	kit_pass(1000);
	quota_tick(quota);
	assert_true(kit_send(quota, 1));
	quota_close(&quota);
	quota = kit_open(limits, 2);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 111);
	assert_int_equal(kit_used(quota, "per-user", "erp"), 111);
	kit_pass(DAY - 5 * MINUTE);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 111);
	kit_pass(5 * MINUTE);
	assert_int_equal(kit_used(quota, "day", "relay@contoso.com"), 11);
	quota_close(&quota);
}

static void test_shut(void **state)
{
	struct quota_limit limit = kit_day_limit(1000, QUOTA_DEFER);
	struct quota *quota = kit_open(&limit, 1);
	struct quota_message *m = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;

	(void)state;
	assert_true(kit_reserve(m, &kit_relay, 5, &verdict));
	quota_shut(quota);
	quota_shut(quota);
	assert_int_equal(quota_charge(m, false, NULL, &err), -1);
	quota_message_free(&m);
	quota_close(&quota);
}

/* Ticks of a day: the ledger does not grow for ever. */
static void test_maintenance(void **state)
{
	struct quota_limit limit = kit_source_limit(QUOTA_RECIPIENTS, 1000000);
	struct quota *quota = kit_open(&limit, 1);

	(void)state;
	for (int i = 0; i < 3 * 144; i++) {
		assert_true(kit_send(quota, 1));
		kit_pass(10 * MINUTE);
		quota_tick(quota);
		if (i % 6 == 0)
			(void)quota_sweep(quota, FORGOTTEN);
	}
	kit_pass(2 * HOUR);
	(void)quota_sweep(quota, FORGOTTEN);
	assert_int_equal(kit_rows(quota), 0);
	quota_tick(quota);
	quota_close(&quota);
	quota = kit_open(&limit, 1);
	assert_int_equal(kit_rows(quota), 0);
	quota_close(&quota);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_full_disk),	TEST(test_full_disk_after_a_crash),
		TEST(test_lost_ledger), TEST(test_shut),
		TEST(test_maintenance),
	};

	log_open("test", LOG_TO_STDERR, false, false);
	return cmocka_run_group_tests_name("quota and disk", tests, NULL, NULL);
}
