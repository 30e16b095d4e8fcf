/*
 * The limit engine without a milter protocol, on a clock of its own (link with
 * --wrap=clock_wall_ms,--wrap=clock_boot_ms):
 *
 *	engine decide FOLDER FEW MANY	time of a decision when so many messages, spread
 *					over the day, are in the window
 *	engine fill FOLDER KEYS		makes FOLDER/ledger.db with so many keys of the limit
 *					"per-user"
 *
 * The result is one line of JSON.
 */
#include "base/compat.h"

#include "base/clock.h"
#include "quota/quota.h"

enum { DECISIONS = 5000, ROUNDS = 101, HOURS_OF_FILL = 3 };

#define DAY_MS (24 * 3600 * 1000LL)

static int64_t passed_ms;

int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_boot_ms(void);
int64_t __real_clock_wall_ms(void);

/* The day ends now, so that a milter that is started next finds it in its window. */
int64_t __wrap_clock_wall_ms(void)
{
	static int64_t start_ms;

	if (start_ms == 0)
		start_ms = __real_clock_wall_ms() - DAY_MS;
	return start_ms + passed_ms;
}

int64_t __wrap_clock_boot_ms(void)
{
	return 1000000 + passed_ms;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static const struct quota_limit limits[] = {
	{.name = "recipients_per_day",
	 .key = "relay@contoso.com",
	 .per = QUOTA_PER_MAILBOX,
	 .count = QUOTA_RECIPIENTS,
	 .max = 100000000,
	 .window_ms = DAY_MS,
	 .action = QUOTA_DEFER},
	{.name = "per-user",
	 .per = QUOTA_PER_SOURCE,
	 .count = QUOTA_MESSAGES,
	 .max = 100000000,
	 .window_ms = DAY_MS,
	 .action = QUOTA_REJECT},
};

static struct quota *open_ledger(const char *path)
{
	struct err err = ERR_INIT;
	struct quota *quota;

	quota = quota_open(path, limits, ARRAY_LEN(limits), &err);
	if (quota == NULL) {
		(void)fprintf(stderr, "engine: %s\n", err.text);
		exit(1);
	}
	return quota;
}

static void reserve(struct quota_message *message, const char *source)
{
	const struct quota_facts facts = {.mailbox = "relay@contoso.com",
					  .source = source,
					  .sender = "user@contoso.com",
					  .sender_domain = "contoso.com"};
	const struct quota_need need = {.messages = 1, .recipients = 1, .bytes = 1024};
	struct quota_verdict verdict;

	quota_reserve(message, &facts, &need, &verdict);
	if (verdict.exceeded)
		exit(1);
}

static void charge(struct quota_message *message)
{
	struct err err = ERR_INIT;

	if (quota_charge(message, false, NULL, &err) == 0)
		return;
	(void)fprintf(stderr, "engine: %s\n", err.text);
	exit(1);
}

/* A message of a quota with so many messages, spread over the day, in its window. */
static struct quota_message *filled(const char *folder, const char *name, long messages,
				    struct quota **quota_r)
{
	char path[512];
	struct quota_message *message;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	*quota_r = open_ledger(path);
	message = quota_message_new(*quota_r);
	for (long i = 0; i < messages; i++) {
		passed_ms = DAY_MS * i / messages;
		reserve(message, "erp");
		charge(message);
	}
	return message;
}

/* The least of this and what was the least: what else the machine does only adds. */
static void decide_ns(struct quota_message *message, int64_t *least_r)
{
	int64_t start = now_ns(), ns;

	for (int i = 0; i < DECISIONS; i++) {
		reserve(message, "erp");
		quota_release(message);
	}
	ns = now_ns() - start;
	if (ns < *least_r)
		*least_r = ns;
}

static void decide(const char *folder, long few, long many)
{
	struct quota *a_quota, *b_quota;
	struct quota_message *a = filled(folder, "few.db", few, &a_quota),
			     *b = filled(folder, "many.db", many, &b_quota);
	int64_t a_ns = INT64_MAX, b_ns = INT64_MAX;

	for (int r = 0; r < ROUNDS; r++) {
		decide_ns(a, &a_ns);
		decide_ns(b, &b_ns);
	}
	(void)printf("{\"few_ns\": %.1f, \"many_ns\": %.1f}\n", (double)a_ns / DECISIONS,
		     (double)b_ns / DECISIONS);
	quota_message_free(&a);
	quota_message_free(&b);
	quota_close(&a_quota);
	quota_close(&b_quota);
}

/* Each key in several buckets of the last hours. */
static void fill(const char *folder, long keys)
{
	struct quota_message *message;
	struct quota *quota;
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/ledger.db", folder);
	quota = open_ledger(path);
	message = quota_message_new(quota);
	for (int hour = 0; hour < HOURS_OF_FILL; hour++) {
		passed_ms = DAY_MS - (HOURS_OF_FILL - hour) * 3600000LL;
		for (long i = 0; i < keys; i++) {
			char source[64];

			(void)snprintf(source, sizeof(source), "user%06ld@contoso.com", i);
			reserve(message, source);
			charge(message);
		}
	}
	quota_message_free(&message);
	quota_close(&quota);
	(void)printf("{\"keys\": %ld}\n", keys);
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "decide") == 0) {
		decide(argv[2], strtol(argv[3], NULL, 10), strtol(argv[4], NULL, 10));
	} else if (argc == 4 && strcmp(argv[1], "fill") == 0) {
		fill(argv[2], strtol(argv[3], NULL, 10));
	} else {
		(void)fputs("usage: engine decide FOLDER FEW MANY | fill FOLDER KEYS\n", stderr);
		return 2;
	}
	return 0;
}
