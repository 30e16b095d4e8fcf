#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "token/memo.h"

#include "base/clock.h"

#include <fcntl.h>
#include <unistd.h>

#include "temp.h"

/* Linked with --wrap: the machine starts again when the test says so. */
static char boot;
void __wrap_clock_boot_id(char out[40]);

void __wrap_clock_boot_id(char out[40])
{
	memset(out, 0, 40);
	out[0] = boot;
}

static struct memo *memo;

static void start(void)
{
	struct err err = ERR_INIT;

	memo = memo_open(temp_path("memo"), &err);
	assert_string_equal(err.text, "");
}

static void restart(void)
{
	memo_close(&memo);
	start();
}

static int enter(void **state)
{
	boot = 'a';
	if (temp_enter(state) != 0)
		return -1;
	start();
	return 0;
}

static int leave(void **state)
{
	memo_close(&memo);
	return temp_leave(state);
}

static int64_t unwritten;
static int pages;

static void add(void *arg, const struct memo_page *page)
{
	(void)arg;
	unwritten += page->unwritten;
	pages++;
}

static void expect_unwritten(int in_pages, int64_t n)
{
	unwritten = pages = 0;
	memo_each_unwritten(memo, add, NULL);
	assert_int_equal(pages, in_pages);
	assert_int_equal(unwritten, n);
}

static void what_was_noted_is_found_again(void **state)
{
	struct memo_page *page = memo_of(memo, "relay@contoso.com");

	(void)state;
	assert_int_equal(page->unwritten, 0);
	page->unwritten = 7;
	page->unwritten_at_ms = 12345;
	memo_of(memo, "alerts@contoso.com")->circuit_step = 2;
	assert_ptr_equal(memo_of(memo, "relay@contoso.com"), page);
	restart();
	expect_unwritten(1, 7);
	assert_int_equal(memo_of(memo, "relay@contoso.com")->unwritten_at_ms, 12345);
	assert_int_equal(memo_of(memo, "alerts@contoso.com")->circuit_step, 2);
}

static void another_boot_knows_nothing(void **state)
{
	(void)state;
	memo_of(memo, "relay@contoso.com")->unwritten = 7;
	boot = 'b';
	restart();
	expect_unwritten(0, 0);
	assert_int_equal(memo_of(memo, "relay@contoso.com")->unwritten, 0);
}

static void what_is_no_memo_is_begun_anew(void **state)
{
	char rubbish[4096];
	int fd;

	(void)state;
	memset(rubbish, 0xa5, sizeof(rubbish));
	memo_of(memo, "relay@contoso.com")->unwritten = 7;
	memo_close(&memo);
	fd = open(temp_path("memo"), O_WRONLY);
	assert_int_equal(write(fd, rubbish, sizeof(rubbish)), sizeof(rubbish));
	assert_int_equal(close(fd), 0);
	start();
	expect_unwritten(0, 0);
}

static void more_than_there_are_pages(void **state)
{
	char address[400];

	(void)state;
	for (int i = 0; i < MEMO_PAGES + 10; i++) {
		(void)snprintf(address, sizeof(address), "m%d@contoso.com", i);
		memo_of(memo, address)->unwritten = 1;
	}
	memo_of(memo, address)->unwritten++;
	assert_int_equal(memo_of(memo, address)->unwritten, 2);
	expect_unwritten(MEMO_PAGES, MEMO_PAGES);
	/* Pages with nothing to keep are there for others. */
	restart();
	for (int i = 0; i < MEMO_PAGES; i++) {
		(void)snprintf(address, sizeof(address), "m%d@contoso.com", i);
		memo_of(memo, address)->unwritten = 0;
	}
	restart();
	memo_of(memo, "relay@contoso.com")->unwritten = 3;
	restart();
	expect_unwritten(1, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_noted_is_found_again, enter, leave),
		cmocka_unit_test_setup_teardown(another_boot_knows_nothing, enter, leave),
		cmocka_unit_test_setup_teardown(what_is_no_memo_is_begun_anew, enter, leave),
		cmocka_unit_test_setup_teardown(more_than_there_are_pages, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
