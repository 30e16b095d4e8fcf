#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/quota.h"

#include <pthread.h>
#include <stdatomic.h>

#include "temp.h"

enum { THREADS = 64, ROUNDS = 30, LEFT = 10, TRIES = 40 };

static struct quota_limit limit_of(int64_t max)
{
	struct quota_limit limit = {.name = "day",
				    .per = QUOTA_PER_MAILBOX,
				    .count = QUOTA_RECIPIENTS,
				    .max = max,
				    .window_ms = 24 * 3600 * 1000LL,
				    .action = QUOTA_DEFER};

	return limit;
}

struct race {
	struct quota *quota;
	pthread_barrier_t start;
	atomic_int admitted;
	atomic_bool over;
};

/* One more recipient, once or with releases and new tries in between. */
static bool take_one(struct quota_message *m)
{
	struct quota_facts facts = {.mailbox = "relay@contoso.com"};
	struct quota_need need = {.messages = 1, .recipients = 1};
	struct quota_verdict verdict;

	quota_reserve(m, &facts, &need, &verdict);
	return !verdict.exceeded;
}

static void *run_once(void *arg)
{
	struct race *race = arg;
	struct quota_message *m = quota_message_new(race->quota);
	struct err err = ERR_INIT;

	(void)pthread_barrier_wait(&race->start);
	if (take_one(m) && quota_charge(m, false, NULL, &err) == 0)
		atomic_fetch_add(&race->admitted, 1);
	quota_message_free(&m);
	return NULL;
}

static void *run_unsteady(void *arg)
{
	struct race *race = arg;
	struct quota_message *m = quota_message_new(race->quota);
	struct err err = ERR_INIT;

	(void)pthread_barrier_wait(&race->start);
	for (int i = 0; i < TRIES; i++) {
		bool taken = take_one(m);

		if (taken && i % 3 == 0 && quota_charge(m, false, NULL, &err) == 0)
			atomic_fetch_add(&race->admitted, 1);
		quota_release(m);
	}
	quota_message_free(&m);
	return NULL;
}

static void race(struct race *race, void *(*run)(void *))
{
	pthread_t thread[THREADS];

	atomic_init(&race->admitted, 0);
	assert_int_equal(pthread_barrier_init(&race->start, NULL, THREADS), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, run, race), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	(void)pthread_barrier_destroy(&race->start);
}

static struct quota *open_well(const struct quota_limit *limit)
{
	struct err err = ERR_INIT;
	struct quota *quota = quota_open(temp_path("ledger.db"), limit, 1, &err);

	assert_non_null(quota);
	return quota;
}

static void check_used(struct quota *quota, int64_t used)
{
	struct quota_row row;

	quota_look(quota, "day", "relay@contoso.com", &row);
	assert_int_equal(row.used, used);
	assert_int_equal(row.reserved, 0);
}

/* 64 threads for the last 10 places: 10 get one. */
static void test_last_places(void **state)
{
	struct quota_limit limit = limit_of(0);
	struct quota *quota = open_well(&limit);
	struct race r = {.quota = quota};

	(void)state;
	for (int i = 1; i <= ROUNDS; i++) {
		limit = limit_of(LEFT * i);
		quota_set_limits(quota, &limit, 1);
		race(&r, run_once);
		assert_int_equal(atomic_load(&r.admitted), LEFT);
		check_used(quota, LEFT * i);
	}
	quota_close(&quota);
	quota = open_well(&limit);
	check_used(quota, LEFT * ROUNDS);
	quota_close(&quota);
}

static void ignore_row(void *arg, const struct quota_row *row)
{
	*(int64_t *)arg += row->used;
}

static void *run_disturbance(void *arg)
{
	struct race *r = arg;
	struct quota_limit limit = limit_of(300);
	int64_t sum = 0;

	while (!atomic_load(&r->over)) {
		limit.window_ms = limit.window_ms == 3600000 ? 7200000 : 3600000;
		quota_set_limits(r->quota, &limit, 1);
		quota_tick(r->quota);
		(void)quota_sweep(r->quota, 3600000);
		quota_each(r->quota, ignore_row, &sum);
	}
	return NULL;
}

/* Reloads, sweeps, checkpoints and status meanwhile; nothing is lost or let through. */
static void test_disturbed(void **state)
{
	struct quota_limit limit = limit_of(300);
	struct quota *quota = open_well(&limit);
	pthread_t disturbance;
	struct race r = {.quota = quota};

	(void)state;
	atomic_init(&r.over, false);
	assert_int_equal(pthread_create(&disturbance, NULL, run_disturbance, &r), 0);
	race(&r, run_unsteady);
	atomic_store(&r.over, true);
	assert_int_equal(pthread_join(disturbance, NULL), 0);
	assert_int_equal(atomic_load(&r.admitted), 300);
	check_used(quota, 300);
	quota_close(&quota);
	quota = open_well(&limit);
	check_used(quota, 300);
	quota_close(&quota);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_last_places), TEST(test_disturbed)};

	return cmocka_run_group_tests_name("quota race", tests, NULL, NULL);
}
