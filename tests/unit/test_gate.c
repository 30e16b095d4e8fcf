#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "token/gate.h"

/* A clock of the test's own. */
static int64_t now_ms = 1000;
int64_t __wrap_clock_boot_ms(void);
int64_t __wrap_clock_boot_ms(void)
{
	return now_ms;
}

enum { MANY = 100 };

static struct gate_ticket ticket[MANY];
static int gone[MANY], went; /* in order of going */

static void go(struct gate_ticket *t)
{
	gone[went++] = (int)(t - ticket);
}

static struct gate *start(struct loop **loop_r)
{
	*loop_r = loop_new();
	memset(ticket, 0, sizeof(ticket));
	went = 0;
	for (int i = 0; i < MANY; i++)
		ticket[i].go = go;
	return gate_new(*loop_r);
}

static void end(struct gate *gate, struct loop *loop)
{
	for (int i = MANY - 1; i >= 0; i--)
		gate_leave(gate, &ticket[i]);
	gate_free(&gate);
	loop_free(&loop);
}

static void test_limits(void **state)
{
	static const char *const names[] = {"a", "b", "c", "d", "e"};
	struct loop *loop;
	struct gate *gate = start(&loop);

	(void)state;
	for (int i = 0; i < MANY; i++) {
		ticket[i].tenant = names[i / 20];
		gate_enter(gate, &ticket[i]);
		gate_enter(gate, &ticket[i]); /* once more changes nothing */
	}
	/* 8 of a, 8 of b, 4 of c: 20 in all. */
	assert_int_equal(went, GATE_MOST);
	assert_int_equal(gone[0], 0);
	assert_int_equal(gone[GATE_TENANT], 20);
	assert_int_equal(gone[2 * GATE_TENANT], 40);
	/* Who waited longest goes first: a has room again. */
	gate_leave(gate, &ticket[3]);
	assert_int_equal(went, GATE_MOST + 1);
	assert_int_equal(gone[GATE_MOST], GATE_TENANT);
	/* One that gives up while it waits takes nobody's place. */
	gate_leave(gate, &ticket[9]);
	assert_int_equal(went, GATE_MOST + 1);
	gate_leave(gate, &ticket[0]);
	assert_int_equal(gone[GATE_MOST + 1], 10);
	end(gate, loop);
}

/* Endpoints that never answer: each of their tenants waits, nobody else. */
static void test_slow(void **state)
{
	static const char *const names[] = {"slow1", "slow2", "slow3", "fast"};
	struct loop *loop;
	struct gate *gate = start(&loop);

	(void)state;
	for (int i = 0; i < 40; i++) {
		ticket[i].tenant = names[i / 12];
		gate_enter(gate, &ticket[i]);
	}
	assert_int_equal(went, GATE_MOST);
	for (int i = 0; i < 20; i++)
		assert_true(ticket[gone[i]].tenant != names[3]);
	now_ms += GATE_SLOW_MS;
	ticket[50].tenant = names[3];
	gate_enter(gate, &ticket[50]);
	ticket[51].tenant = names[3];
	gate_enter(gate, &ticket[51]);
	/* 4 more of slow3, which have not been slow yet, and all of fast. */
	assert_int_equal(went, GATE_MOST + 4 + 6);
	assert_int_equal(gone[went - 1], 51);
	end(gate, loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_slow),
	};

	return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
