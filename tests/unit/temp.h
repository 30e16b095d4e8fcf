/*
 * A private folder for a test: temp_enter() and temp_leave() are cmocka's
 * set-up and tear-down. What can't be done fails the test.
 */
#ifndef RELAY365_TESTS_TEMP_H
#define RELAY365_TESTS_TEMP_H

#include <stddef.h>

int temp_enter(void **state);
int temp_leave(void **state);

/* The path of name in the folder; valid until eight calls later. */
const char *temp_path(const char *name);

/* Makes a file in the folder, in place of one that is there, and gives its path. */
const char *temp_write(const char *name, const void *data, size_t len, unsigned int mode);
const char *temp_text(const char *name, const char *text);

#endif
