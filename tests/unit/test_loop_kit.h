/*
 * A loop for a test, and its private folder: loop_enter() and loop_leave() are
 * cmocka's set-up and tear-down.
 */
#ifndef RELAY365_TESTS_LOOP_KIT_H
#define RELAY365_TESTS_LOOP_KIT_H

#include "base/loop.h"

extern struct loop *loop;

int loop_enter(void **state);
int loop_leave(void **state);

/* Runs what is due up to then, all in one go: no test waits for a timer. */
void run_due(int64_t at);

#define LOOPED(test) cmocka_unit_test_setup_teardown(test, loop_enter, loop_leave)

#endif
