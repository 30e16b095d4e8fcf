/* The journal by itself, and what it and the ledger make of a crash. */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/fold.h"
#include "test_quota_kit.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "temp.h"

#define NAME "day/relay@contoso.com"

struct seen {
	int64_t sum;
	size_t entries;
};

static int on_entries(void *arg, const struct journal_entry *entries, size_t count,
		      struct err *err)
{
	struct seen *seen = arg;

	(void)err;
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(entries[i].name_len, strlen(NAME));
		assert_memory_equal(entries[i].name, NAME, strlen(NAME));
		assert_int_equal(entries[i].window_ms, DAY);
		assert_int_equal(entries[i].at_ms, T0);
		seen->sum += entries[i].n;
	}
	seen->entries += count;
	return 0;
}

static struct seen read_all(uint64_t number)
{
	struct journal *journal = journal_new(temp_path("j"));
	struct err err = ERR_INIT;
	struct seen seen = {0, 0};

	assert_int_equal(journal_read(journal, number, on_entries, &seen, &err), 0);
	journal_free(&journal);
	return seen;
}

static struct journal *begin(uint64_t number)
{
	struct journal *journal = journal_new(temp_path("j"));
	struct err err = ERR_INIT;

	assert_int_equal(journal_prepare(journal, number, false, &err), 0);
	assert_int_equal(journal_switch(journal), number);
	assert_true(journal_is_empty(journal));
	return journal;
}

static int append(struct journal *journal, int64_t n, size_t times)
{
	struct journal_entry entry[10];
	struct err err = ERR_INIT;

	for (size_t i = 0; i < times; i++)
		entry[i] = (struct journal_entry){NAME, strlen(NAME), DAY, T0, n};
	return journal_append(journal, entry, times, &err);
}

/* Over several blocks, in records of different length. */
static void test_round_trip(void **state)
{
	struct journal *journal = begin(7);
	int64_t sum = 0;
	size_t entries = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		size_t times = 1 + (size_t)i % 10;

		assert_int_equal(append(journal, i, times), 0);
		sum += i * (int64_t)times;
		entries += times;
	}
	assert_false(journal_is_empty(journal));
	assert_int_equal(journal_number(journal, 1), 7);
	assert_int_equal(journal_number(journal, 0), 0);
	journal_free(&journal);
	assert_int_equal(read_all(7).entries, entries);
	assert_int_equal(read_all(7).sum, sum);
	assert_int_equal(read_all(9).entries, 0); /* another number is another journal */
	assert_int_equal(read_all(8).entries, 0);
}

static off_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

static off_t write_three(void)
{
	struct journal *journal = begin(1);
	off_t before;

	assert_int_equal(append(journal, 100, 1), 0);
	assert_int_equal(append(journal, 10, 2), 0);
	before = size_of(temp_path("j.recent-1"));
	assert_int_equal(append(journal, 1, 3), 0);
	journal_free(&journal);
	return before;
}

/* A file that ends anywhere in its last record has all the others. */
static void test_torn(void **state)
{
	off_t before = write_three(), end;
	char path[512];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s", temp_path("j.recent-1"));
	end = size_of(path);
	assert_int_equal(read_all(1).sum, 123);
	for (off_t len = end - 1; len >= before; len--) {
		assert_int_equal(truncate(path, len), 0);
		assert_int_equal(read_all(1).sum, 120);
	}
	assert_int_equal(truncate(path, end), 0); /* zeros, as after a power cut */
	assert_int_equal(read_all(1).sum, 120);
	for (off_t len = 23; len >= 0; len--) { /* its head */
		assert_int_equal(truncate(path, len), 0);
		assert_int_equal(read_all(1).sum, 0);
	}
}

/* A byte that is not what was written costs its record, and no other. */
static void test_changed(void **state)
{
	const char *path = temp_path("j.recent-1");
	off_t head = 24, last = write_three(), end = size_of(path);
	off_t middle = head + (last - head - 2 * 16) / 3 + 16; /* 1 and 2 entries, two heads */
	int fd = open(path, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	for (off_t at = 0; at < end; at++) {
		unsigned char was, is;
		int64_t sum;

		assert_int_equal(pread(fd, &was, 1, at), 1);
		is = was ^ (unsigned char)(1 << (at % 8));
		assert_int_equal(pwrite(fd, &is, 1, at), 1);
		sum = at < head ? 0 : at < middle ? 23 : at < last ? 103 : 120;
		assert_int_equal(read_all(1).sum, sum);
		assert_int_equal(pwrite(fd, &was, 1, at), 1);
	}
	(void)close(fd);
	assert_int_equal(read_all(1).sum, 123);
}

/* A file that is no journal is told from one that was never begun. */
static void test_damaged(void **state)
{
	static const struct {
		const char *content;
		size_t len;
		bool damaged;
	} cases[] = {
		{"", 0, false},
		{"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 26, false},
		{"R365JRN1", 8, true},
		{"something else that is longer than a head", 41, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct journal *journal = journal_new(temp_path("j"));

		(void)temp_write("j.recent-1", cases[i].content, cases[i].len, 0600);
		assert_int_equal(journal_is_damaged(journal, 1), cases[i].damaged);
		assert_int_equal(journal_number(journal, 1), 0);
		journal_free(&journal);
	}
}

/* What did not fit leaves no trace, and does not spoil what comes after it. */
static void test_full(void **state)
{
	struct journal *journal = begin(1);

	(void)state;
	assert_int_equal(append(journal, 100, 1), 0);
	kit_file_limit((unsigned long long)size_of(temp_path("j.recent-1")) + 100);
	assert_int_equal(append(journal, 10, 10), -1);
	kit_file_limit(RLIM_INFINITY);
	assert_int_equal(read_all(1).sum, 100);
	assert_int_equal(append(journal, 1, 1), 0);
	assert_int_equal(append(journal, 2, 1), 0);
	journal_free(&journal);
	assert_int_equal(read_all(1).sum, 103);
}

/*
 * Who is killed in the middle of a write leaves a gap, or a part of a record;
 * what others wrote behind it is there all the same, however large the gap is.
 */
static void test_gap(void **state)
{
	enum { HEAD = 24, GAP = 3 << 20 };
	struct journal *journal = begin(1);
	struct buf content = BUF_INIT(2 * GAP);
	struct err err = ERR_INIT;
	size_t record;

	(void)state;
	assert_int_equal(append(journal, 100, 1), 0);
	record = (size_t)size_of(temp_path("j.recent-1")) - HEAD;
	for (size_t i = 0; i < GAP / record; i++)
		assert_int_equal(append(journal, 20, 1), 0);
	assert_int_equal(append(journal, 3, 1), 0);
	journal_free(&journal);
	assert_int_equal(file_read(temp_path("j.recent-1"), &content, &err), 0);
	for (size_t kept = record; kept-- > 0;) {
		size_t from = HEAD + record + kept;

		memset(content.data + from, 0, content.len - record - from);
		if (kept % 7 == 0) {
			(void)temp_write("j.recent-1", content.data, content.len, 0600);
			assert_int_equal(read_all(1).sum, 103);
		}
	}
	buf_clear(&content);
}

enum { WRITERS = 8, EACH = 500 };

static void *write_many(void *journal)
{
	for (int i = 1; i <= EACH; i++)
		if (append(journal, i, 1 + i % 3) != 0)
			abort();
	return NULL;
}

/* Writers at the same time don't write over one another. */
static void test_writers(void **state)
{
	struct journal *journal = begin(1);
	pthread_t thread[WRITERS];
	int64_t sum = 0;

	(void)state;
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, write_many, journal), 0);
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	for (int i = 1; i <= EACH; i++)
		sum += (int64_t)i * (1 + i % 3) * WRITERS;
	journal_free(&journal);
	assert_int_equal(read_all(1).sum, sum);
}

static void sum_row(void *arg, const char *name, int64_t window_ms, int64_t at_ms, int64_t n)
{
	(void)window_ms;
	(void)at_ms;
	if (strcmp(name, NAME) == 0)
		*(int64_t *)arg += n;
}

/* A file that is folded once more after a crash does not count twice. */
static void test_fold(void **state)
{
	struct journal *journal = begin(1);
	struct err err = ERR_INIT;

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(append(journal, i, 3), 0);
	for (int i = 0; i < 3; i++) {
		struct ledger_news news;
		struct ledger *ledger = ledger_open(temp_path("l.db"), &news, &err);
		int64_t sum = 0;

		assert_non_null(ledger);
		assert_int_equal(news.folded, i > 0 ? 1 : 0);
		if (news.folded < 1)
			assert_int_equal(fold_journal(ledger, journal, 1, &err), 0);
		assert_int_equal(ledger_load(ledger, sum_row, &sum, &err), 0);
		assert_int_equal(sum, 3 * 999 * 500);
		ledger_close(&ledger);
	}
	journal_free(&journal);
}

/* A life that ends without a word: what it sent counts, however far the ledger had come. */
static int64_t live_and_die(unsigned int seed)
{
	struct quota_limit limit = kit_day_limit(1000000, QUOTA_DEFER);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct quota *quota = kit_open(&limit, 1);

		for (unsigned int i = 0; i < seed % 7; i++) {
			for (unsigned int k = 0; k < (seed >> i) % 5; k++)
				(void)kit_send(quota, 1 + k);
			if ((seed >> i) % 3 == 0)
				quota_tick(quota);
		}
		_exit((int)kit_used(quota, "day", "relay@contoso.com") % 100);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_crash(void **state)
{
	struct quota_limit limit = kit_day_limit(1000000, QUOTA_DEFER);
	unsigned int seed = 365;

	(void)state;
	for (int i = 0; i < 100; i++) {
		int64_t used;
		struct quota *quota;

		seed = seed * 1103515245U + 12345U;
		used = live_and_die(seed >> 8);
		if (i % 3 != 0)
			continue; /* dies once more, over what the one before left */
		quota = kit_open(&limit, 1);
		assert_int_equal(kit_used(quota, "day", "relay@contoso.com") % 100, used);
		quota_close(&quota);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip), TEST(test_torn),	   TEST(test_changed),
		TEST(test_gap),	       TEST(test_writers), TEST(test_full),
		TEST(test_damaged),    TEST(test_fold),	   TEST(test_crash),
	};

	log_open("test", LOG_TO_STDERR, false, false);
	return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
