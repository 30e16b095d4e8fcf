#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "temp.h"
#include "test_loop_kit.h"

struct loop *loop;

int loop_enter(void **state)
{
	loop = loop_new();
	return loop == NULL ? -1 : temp_enter(state);
}

int loop_leave(void **state)
{
	loop_free(&loop);
	return temp_leave(state);
}

static void stop_at(struct loop_timer *timer)
{
	loop_stop(timer->owner);
}

void run_due(int64_t at)
{
	struct loop_timer last = {.due = stop_at, .owner = loop};

	loop_timer_at(loop, &last, at);
	assert_int_equal(loop_run(loop), 0);
	loop_timer_stop(loop, &last);
}
