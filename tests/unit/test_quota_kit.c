#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test_quota_kit.h"

#include "base/clock.h"
#include "base/log.h"

#include <signal.h>
#include <sys/resource.h>

#include "temp.h"

int64_t kit_wall_ms, kit_boot_ms;

int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_boot_ms(void);

int64_t __wrap_clock_wall_ms(void)
{
	return kit_wall_ms;
}

int64_t __wrap_clock_boot_ms(void)
{
	return kit_boot_ms;
}

void kit_pass(int64_t ms)
{
	kit_wall_ms += ms;
	kit_boot_ms += ms;
}

int kit_enter(void **state)
{
	kit_wall_ms = T0;
	kit_boot_ms = 1000000;
	return temp_enter(state);
}

struct quota_limit kit_day_limit(int64_t max, enum quota_action action)
{
	struct quota_limit limit = {.name = "day",
				    .key = "Relay@Contoso.com",
				    .per = QUOTA_PER_MAILBOX,
				    .count = QUOTA_RECIPIENTS,
				    .max = max,
				    .window_ms = DAY,
				    .action = action,
				    .then = QUOTA_DEFER,
				    .max_wait_ms = 4 * HOUR};

	return limit;
}

struct quota_limit kit_source_limit(enum quota_count count, int64_t max)
{
	struct quota_limit limit = {.name = "per-user",
				    .per = QUOTA_PER_SOURCE,
				    .count = count,
				    .max = max,
				    .window_ms = HOUR,
				    .action = QUOTA_REJECT};

	return limit;
}

const struct quota_facts kit_relay = {.mailbox = "relay@contoso.com",
				      .tenant = "contoso",
				      .source = "erp",
				      .sender = "erp@contoso.com",
				      .sender_domain = "contoso.com"};

struct quota *kit_open(const struct quota_limit *limits, size_t count)
{
	struct err err = ERR_INIT;
	struct quota *quota = quota_open(temp_path("ledger.db"), limits, count, &err);

	if (quota == NULL)
		fail_msg("%s", err.text);
	return quota;
}

/* Whether n more recipients were reserved. */
bool kit_reserve(struct quota_message *m, const struct quota_facts *facts, int64_t n,
		 struct quota_verdict *verdict)
{
	struct quota_need need = {.messages = 1, .recipients = n, .external = 0, .bytes = 100};

	quota_reserve(m, facts, &need, verdict);
	return !(verdict->exceeded && verdict->refused);
}

int64_t kit_used(struct quota *quota, const char *limit, const char *key)
{
	struct quota_row row;

	quota_look(quota, limit, key, &row);
	return row.used;
}

int64_t kit_reserved(struct quota *quota, const char *limit, const char *key)
{
	struct quota_row row;

	quota_look(quota, limit, key, &row);
	return row.reserved;
}

/* One whole message of n recipients; whether it was taken. */
bool kit_send(struct quota *quota, int64_t n)
{
	struct quota_message *m = quota_message_new(quota);
	struct quota_verdict verdict;
	struct err err = ERR_INIT;
	bool taken = kit_reserve(m, &kit_relay, n, &verdict);

	if (taken)
		assert_int_equal(quota_charge(m, false, NULL, &err), 0);
	quota_message_free(&m);
	return taken;
}

static void count_row(void *arg, const struct quota_row *row)
{
	(void)row;
	(*(int *)arg)++;
}

int kit_rows(struct quota *quota)
{
	int n = 0;

	quota_each(quota, count_row, &n);
	return n;
}

void kit_file_limit(unsigned long long bytes)
{
	struct rlimit limit;

	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = (rlim_t)bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}
