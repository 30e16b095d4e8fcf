#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/wiped_heap.h"

#include <malloc.h>
#include <stdbool.h>

#define SECRET "the client secret"

/* Linked with --wrap: looks at the first bytes of what is given back, while we look. */
static bool looking;
static size_t looked_at, found;
void __real_free(void *block);
void __wrap_free(void *block);

void __wrap_free(void *block)
{
	/* Behind whatever stands before the block. */
	if (looking && block != NULL) {
		looked_at++;
		for (size_t i = 0; i < 64 && i + 6 <= malloc_usable_size(block); i++)
			found += memcmp((char *)block + i, SECRET, 6) == 0;
	}
	__real_free(block);
}

static char *full(size_t size)
{
	char *text = wiped_malloc(size);

	assert_non_null(text);
	assert_int_equal((uintptr_t)text % _Alignof(max_align_t), 0);
	memset(text, 'x', size);
	memcpy(text, SECRET, sizeof(SECRET));
	return text;
}

static int look(void **state)
{
	(void)state;
	looking = true;
	looked_at = found = 0;
	return 0;
}

static int look_away(void **state)
{
	(void)state;
	looking = false;
	return 0;
}

static void freed_is_wiped(void **state)
{
	(void)state;
	wiped_free(full(200));
	wiped_free(wiped_strdup(SECRET SECRET SECRET SECRET SECRET));
	wiped_free(NULL);
	assert_int_equal(looked_at, 2);
	assert_int_equal(found, 0);
}

static void moved_is_wiped(void **state)
{
	char *text = wiped_realloc(full(200), 400), *old = text;

	(void)state;
	assert_string_equal(text, SECRET);
	assert_int_equal(text[199], 'x');
	assert_null(wiped_realloc(text, SIZE_MAX - 4));
	assert_string_equal(old, SECRET); /* it stays when there is no room for more */
	text = wiped_realloc(text, 100);
	assert_string_equal(text, SECRET);
	wiped_free(text);
	assert_int_equal(looked_at, 3);
	assert_int_equal(found, 0);
	text = wiped_realloc(NULL, 100);
	assert_non_null(text);
	wiped_free(text);
}

static void sizes_are_checked(void **state)
{
	static const char zero[100];
	char *text = wiped_calloc(10, 10);

	(void)state;
	assert_memory_equal(text, zero, sizeof(zero));
	wiped_free(text);
	assert_null(wiped_calloc(SIZE_MAX / 2, 3));
	assert_null(wiped_malloc(SIZE_MAX));
	text = wiped_malloc(0);
	assert_non_null(text);
	wiped_free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(freed_is_wiped, look, look_away),
		cmocka_unit_test_setup_teardown(moved_is_wiped, look, look_away),
		cmocka_unit_test(sizes_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
