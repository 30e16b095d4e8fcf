#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "test_loop_kit.h"

#include <unistd.h>

/* ---- timers ---- */

enum { TIMERS = 3000 };

struct clocked {
	struct loop_timer timer;
	bool set;  /* what the model says */
	int fired; /* since it was set */
};

static struct clocked clocked[TIMERS];
static int64_t last_fired;
static unsigned int fired;
static uint64_t seed = 365;
static int budget; /* of changes made inside callbacks */

static unsigned int random_below(unsigned int n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned int)(seed >> 33) % n;
}

static void set_timer(struct clocked *c, int64_t at)
{
	loop_timer_at(loop, &c->timer, at);
	c->set = true;
}

static void stop_timer(struct clocked *c)
{
	loop_timer_stop(loop, &c->timer);
	c->set = false;
}

static void on_due(struct loop_timer *timer)
{
	struct clocked *self = timer->owner, *other = &clocked[random_below(TIMERS)];

	assert_true(self->set);
	assert_true(timer->at_boot_ms >= last_fired);
	assert_int_equal(timer->place, 0);
	last_fired = timer->at_boot_ms;
	self->set = false;
	fired++;
	if (budget-- <= 0)
		return;
	switch (random_below(4)) {
	case 0: /* again, later */
		set_timer(self, last_fired + random_below(50));
		break;
	case 1:
		stop_timer(other);
		break;
	case 2: /* moved, or set that was not */
		set_timer(other, last_fired + random_below(5000));
		break;
	default:
		break;
	}
}

/* In order, each once, none that was stopped, whatever callbacks do to themselves and others. */
static void test_timers_property(void **state)
{
	int64_t base = clock_boot_ms() - 100000;

	(void)state;
	memset(clocked, 0, sizeof(clocked));
	last_fired = base;
	fired = 0;
	budget = 20000;
	for (size_t i = 0; i < TIMERS; i++) {
		clocked[i].timer.due = on_due;
		clocked[i].timer.owner = &clocked[i];
		set_timer(&clocked[i], base + random_below(20000));
	}
	for (size_t i = 0; i < TIMERS; i++) {
		struct clocked *c = &clocked[random_below(TIMERS)];

		if (random_below(2) == 0)
			stop_timer(c);
		else
			set_timer(c, base + random_below(20000));
	}
	run_due(base + 99999);
	assert_true(fired >= TIMERS / 2);
	for (size_t i = 0; i < TIMERS; i++) {
		assert_false(clocked[i].set);
		assert_int_equal(clocked[i].timer.place, 0);
	}
}

static void on_early(struct loop_timer *timer)
{
	(void)timer;
	fail_msg("a timer that is not due");
}

static void test_timer_not_due(void **state)
{
	struct loop_timer future = {.due = on_early}, unset = {0};

	(void)state;
	loop_timer_in(loop, &future, 3600 * 1000);
	loop_timer_stop(loop, &unset);
	run_due(clock_boot_ms());
	assert_int_not_equal(future.place, 0);
	loop_timer_stop(loop, &future);
	loop_timer_stop(loop, &future);
	assert_int_equal(future.place, 0);
}

static int turns;

static void on_greedy(struct loop_timer *timer)
{
	turns++;
	loop_timer_at(loop, timer, loop_now(loop));
}

static void on_pipe(struct loop_fd *watch, unsigned int events)
{
	assert_int_equal(events & LOOP_READ, LOOP_READ);
	loop_stop(watch->loop);
}

/* A timer that is always due again must not keep descriptors waiting for ever. */
static void test_greedy_timer(void **state)
{
	struct loop_timer greedy = {.due = on_greedy};
	struct loop_fd watch = {.want = LOOP_READ, .ready = on_pipe};
	int pair[2];

	(void)state;
	assert_int_equal(pipe(pair), 0);
	watch.fd = pair[0];
	turns = 0;
	loop_timer_in(loop, &greedy, 0);
	assert_int_equal(loop_add(loop, &watch), 0);
	assert_int_equal(write(pair[1], "x", 1), 1);
	assert_int_equal(loop_run(loop), 0);
	loop_timer_stop(loop, &greedy);
	loop_del(&watch);
	loop_del(&watch);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

/* ---- descriptors ---- */

static struct loop_fd pair_watch[2];
static int pair_told;

static void on_either(struct loop_fd *watch, unsigned int events)
{
	(void)events;
	pair_told++;
	loop_del(&pair_watch[watch == &pair_watch[0] ? 1 : 0]);
	loop_stop(loop);
}

/* Both are ready in one round; who is told first removes the other, which then stays untold. */
static void test_removed_in_its_round(void **state)
{
	int pipes[2][2];

	(void)state;
	pair_told = 0;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe(pipes[i]), 0);
		assert_int_equal(write(pipes[i][1], "x", 1), 1);
		pair_watch[i] = (struct loop_fd){
			.fd = pipes[i][0], .want = LOOP_READ, .ready = on_either};
		assert_int_equal(loop_add(loop, &pair_watch[i]), 0);
	}
	assert_int_equal(loop_run(loop), 0);
	run_due(clock_boot_ms());
	assert_int_equal(pair_told, 2); /* the one that stayed, twice */
	for (int i = 0; i < 2; i++) {
		loop_del(&pair_watch[i]);
		(void)close(pipes[i][0]);
		(void)close(pipes[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOPED(test_timers_property),
		LOOPED(test_timer_not_due),
		LOOPED(test_greedy_timer),
		LOOPED(test_removed_in_its_round),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
