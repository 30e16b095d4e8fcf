#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/ledger.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "temp.h"

#define DAY (24 * 3600 * 1000LL)
#define MINUTE 60000LL
#define T0 (1795442825000LL / MINUTE * MINUTE)

struct loaded {
	int64_t sum;
	int rows;
	char last_name[LEDGER_NAME_MAX + 1];
	int64_t last_window_ms, last_at_ms;
	bool disordered;
};

static void on_row(void *arg, const char *name, int64_t window_ms, int64_t at_ms, int64_t n)
{
	struct loaded *l = arg;

	if (strcmp(l->last_name, name) == 0 && at_ms <= l->last_at_ms)
		l->disordered = true;
	(void)snprintf(l->last_name, sizeof(l->last_name), "%s", name);
	l->last_window_ms = window_ms;
	l->last_at_ms = at_ms;
	l->sum += n;
	l->rows++;
}

static struct loaded load(struct ledger *ledger)
{
	struct loaded l = {.rows = 0};
	struct err err = ERR_INIT;

	assert_int_equal(ledger_load(ledger, on_row, &l, &err), 0);
	assert_false(l.disordered);
	return l;
}

static struct ledger *open_well(const char *path, struct ledger_news *news)
{
	struct err err = ERR_INIT;
	struct ledger *ledger = ledger_open(path, news, &err);

	if (ledger == NULL)
		fail_msg("%s", err.text);
	return ledger;
}

static int add(struct ledger *ledger, const char *name, int64_t at_ms, int64_t n, struct err *err)
{
	if (ledger_begin(ledger, err) < 0 || ledger_add(ledger, name, DAY, at_ms, n, err) < 0)
		return -1;
	return ledger_commit(ledger, err);
}

static void test_reopen(void **state)
{
	const char *path = temp_path("ledger.db");
	struct ledger_news news;
	struct ledger *ledger = open_well(path, &news);
	struct err err = ERR_INIT;
	struct loaded l;

	(void)state;
	assert_true(news.created);
	assert_false(news.has_mark);
	assert_string_equal(news.damaged_as, "");
	assert_int_equal(add(ledger, "a/x@y.z", T0, 1, &err), 0);
	assert_int_equal(add(ledger, "a/x@y.z", T0 + MINUTE - 1, 2, &err), 0);
	assert_int_equal(add(ledger, "a/x@y.z", T0 + MINUTE, 3, &err), 0);
	assert_int_equal(add(ledger, "b/\xff\xfe weird '\"%", T0, 4, &err), 0);
	ledger_close(&ledger);
	assert_null(ledger);

	ledger = open_well(path, &news);
	assert_false(news.created);
	l = load(ledger);
	assert_int_equal(l.rows, 3);
	assert_int_equal(l.sum, 10);
	assert_string_equal(l.last_name, "b/\xff\xfe weird '\"%");
	assert_int_equal(l.last_window_ms, DAY);
	assert_int_equal(l.last_at_ms, T0 + MINUTE - 1); /* the bucket's last ms */
	ledger_close(&ledger);
}

static void test_rollback(void **state)
{
	struct ledger_news news;
	struct ledger *ledger = open_well(temp_path("ledger.db"), &news);
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(ledger_begin(ledger, &err), 0);
	assert_int_equal(ledger_add(ledger, "a/x", DAY, T0, 5, &err), 0);
	ledger_rollback(ledger);
	ledger_rollback(ledger); /* nothing to do */
	assert_int_equal(load(ledger).rows, 0);
	assert_int_equal(add(ledger, "a/x", T0, 7, &err), 0);
	assert_int_equal(load(ledger).sum, 7);
	ledger_close(&ledger);
}

static void test_window_changes(void **state)
{
	struct ledger_news news;
	struct ledger *ledger = open_well(temp_path("ledger.db"), &news);
	struct err err = ERR_INIT;
	struct loaded l;

	(void)state;
	assert_int_equal(add(ledger, "a/x", T0, 5, &err), 0);
	assert_int_equal(ledger_begin(ledger, &err), 0);
	assert_int_equal(ledger_add(ledger, "a/x", 7 * DAY, T0, 6, &err), 0);
	assert_int_equal(ledger_commit(ledger, &err), 0);
	l = load(ledger);
	assert_int_equal(l.sum, 11);
	assert_int_equal(l.last_window_ms, 7 * DAY);
	assert_int_equal(ledger_begin(ledger, &err), 0);
	assert_int_equal(ledger_forget(ledger, "a/x", &err), 0);
	assert_int_equal(ledger_forget(ledger, "nobody", &err), 0);
	assert_int_equal(ledger_commit(ledger, &err), 0);
	assert_int_equal(load(ledger).rows, 0);
	ledger_close(&ledger);
}

static void test_mark(void **state)
{
	struct steady_mark mark = {T0, 12345, T0 + 7, "11111111-2222-3333-4444-555555555555"};
	const char *path = temp_path("ledger.db");
	struct ledger_news news;
	struct ledger *ledger = open_well(path, &news);
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(ledger_mark(ledger, &mark, &err), 0);
	mark.at_ms++;
	assert_int_equal(ledger_mark(ledger, &mark, &err), 0);
	ledger_close(&ledger);
	ledger = open_well(path, &news);
	assert_true(news.has_mark);
	assert_int_equal(news.mark.at_ms, T0 + 1);
	assert_int_equal(news.mark.boot_ms, 12345);
	assert_int_equal(news.mark.wall_ms, T0 + 7);
	assert_string_equal(news.mark.boot_id, mark.boot_id);
	ledger_close(&ledger);
}

/* Only what is older than its window goes, in steps, and counters with it. */
static void test_maintain(void **state)
{
	struct ledger_news news;
	struct ledger *ledger = open_well(temp_path("ledger.db"), &news);
	struct err err = ERR_INIT;
	int steps = 1, more;

	(void)state;
	assert_int_equal(ledger_begin(ledger, &err), 0);
	for (int i = 0; i < 1200; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "a/%d", i);
		assert_int_equal(ledger_add(ledger, name, DAY, T0, 1, &err), 0);
		if (i % 2 == 0)
			assert_int_equal(ledger_add(ledger, name, DAY, T0 + MINUTE, 1, &err), 0);
	}
	assert_int_equal(ledger_commit(ledger, &err), 0);
	while (ledger_maintain(ledger, T0 + MINUTE - 1 + DAY, &err) == 1)
		;
	assert_int_equal(load(ledger).rows, 1800);
	while ((more = ledger_maintain(ledger, T0 + MINUTE + DAY, &err)) == 1)
		steps++;
	assert_int_equal(more, 0);
	assert_true(steps > 1);
	assert_int_equal(load(ledger).rows, 600);
	while (ledger_maintain(ledger, T0 + 2 * DAY, &err) == 1)
		;
	assert_int_equal(load(ledger).rows, 0);
	ledger_close(&ledger);
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

/* A WAL that nobody moves away grows for ever; a checkpoint lets it start over. */
static void test_checkpoint(void **state)
{
	const char *path = temp_path("ledger.db"), *wal = temp_path("ledger.db-wal");
	struct ledger_news news;
	struct ledger *ledger = open_well(path, &news);
	struct err err = ERR_INIT;
	off_t before;

	(void)state;
	for (int i = 0; i < 50; i++)
		assert_int_equal(add(ledger, "a/x", T0 + i * MINUTE, 1, &err), 0);
	before = size_of(wal);
	assert_true(before > 50 * 1024);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(ledger_checkpoint(ledger, &err), 0);
		assert_int_equal(add(ledger, "a/x", T0, 1, &err), 0);
	}
	assert_true(size_of(wal) <= before);
	assert_int_equal(load(ledger).sum, 100);
	ledger_close(&ledger);
}

/* ---- damage ---- */

static void spoil_truncate(const char *path)
{
	assert_int_equal(truncate(path, size_of(path) / 2 + 100), 0);
}

static void spoil_empty(const char *path)
{
	assert_int_equal(truncate(path, 0), 0);
}

static void overwrite(const char *path, off_t at, int byte, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	char block[512];

	assert_true(fd >= 0);
	memset(block, byte, sizeof(block));
	for (size_t done = 0; done < len; done += sizeof(block))
		assert_int_equal(pwrite(fd, block, sizeof(block), at + (off_t)done),
				 sizeof(block));
	(void)close(fd);
}

static void spoil_header(const char *path)
{
	overwrite(path, 0, 'x', 512);
}

static void spoil_pages(const char *path)
{
	overwrite(path, 1024, 0xa5, (size_t)size_of(path) - 1024);
}

static void spoil_all(const char *path)
{
	overwrite(path, 0, 0x5a, (size_t)size_of(path));
}

static void spoil_other_database(const char *path)
{
	/* user_version of the header, and nothing of ours in it any more. */
	overwrite(path, 1024, 0, (size_t)size_of(path) - 1024);
}

/* The tables are sound, but one index leads astray. */
static void spoil_index(const char *path)
{
	size_t len = (size_t)size_of(path);
	char *text = malloc(len);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	const char *at;

	assert_non_null(text);
	assert_int_equal(read(fd, text, len), len);
	at = memmem(text, len, "a/x", 3);
	assert_non_null(at);
	assert_int_equal(pwrite(fd, "a/y", 3, at - text), 3);
	(void)close(fd);
	free(text);
}

static int count_files(const char *part)
{
	DIR *dir = opendir(temp_path("."));
	struct dirent *entry;
	int n = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL)
		if (strstr(entry->d_name, part) != NULL)
			n++;
	(void)closedir(dir);
	return n;
}

static void test_damage(void **state)
{
	static const struct {
		const char *name;
		void (*spoil)(const char *path);
	} cases[] = {
		{"truncated", spoil_truncate}, {"empty", spoil_empty},
		{"header", spoil_header},      {"pages", spoil_pages},
		{"garbage", spoil_all},	       {"zeroed pages", spoil_other_database},
		{"index", spoil_index},
	};
	const char *path = temp_path("ledger.db");

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = ERR_INIT;
		struct ledger_news news;
		struct ledger *ledger = open_well(path, &news);

		for (int k = 0; k < 2000; k++)
			assert_int_equal(add(ledger, "a/x", T0 + k * MINUTE, 1, &err), 0);
		ledger_close(&ledger);
		cases[i].spoil(path);

		ledger = open_well(path, &news);
		if (news.damaged_as[0] == '\0')
			fail_msg("%s: not noticed", cases[i].name);
		assert_true(news.damage[0] != '\0');
		assert_int_equal(access(news.damaged_as, F_OK), 0);
		assert_int_equal(load(ledger).rows, 0);
		assert_int_equal(add(ledger, "a/x", T0, 3, &err), 0);
		ledger_close(&ledger);
		ledger = open_well(path, &news);
		assert_string_equal(news.damaged_as, "");
		assert_int_equal(load(ledger).sum, 3);
		ledger_close(&ledger);
		assert_int_equal(unlink(path), 0);
	}
	/* Each has its own, though they came within a second. */
	assert_int_equal(count_files("damaged"), ARRAY_LEN(cases));
}

static void set_version(const char *path, unsigned char version)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	unsigned char be[4] = {0, 0, 0, version};

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, be, sizeof(be), 60), sizeof(be)); /* user_version's place */
	(void)close(fd);
}

static void test_newer_schema(void **state)
{
	const char *path = temp_path("ledger.db");
	struct ledger_news news;
	struct ledger *ledger = open_well(path, &news);
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(add(ledger, "a/x", T0, 3, &err), 0);
	ledger_close(&ledger);
	set_version(path, LEDGER_SCHEMA + 1);
	assert_null(ledger_open(path, &news, &err));
	assert_int_equal(err.class, ERR_CONFIG);
	assert_non_null(strstr(err.text, "newer"));
	assert_int_equal(count_files("damaged"), 0);
	set_version(path, LEDGER_SCHEMA);
	ledger = open_well(path, &news);
	assert_int_equal(load(ledger).sum, 3); /* it was left alone */
	ledger_close(&ledger);
}

/* In a child that is nobody: root may write anywhere. */
static void test_readonly_folder(void **state)
{
	const char *path = temp_path("sub/ledger.db");
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(mkdir(temp_path("sub"), 0755), 0);
	assert_int_equal(chmod(temp_path("."), 0755), 0);
	assert_int_equal(chmod(temp_path("sub"), 0555), 0);
	pid = fork();
	if (pid == 0) {
		struct ledger_news news;
		struct err err = ERR_INIT;

		if (geteuid() == 0 && setuid(65534) < 0)
			_exit(9);
		if (ledger_open(path, &news, &err) != NULL)
			_exit(1);
		_exit(err.class == ERR_CONFIG && strstr(err.text, path) != NULL ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(chmod(temp_path("sub"), 0755), 0);
}

static void set_file_limit(rlim_t bytes)
{
	struct rlimit limit;

	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* What could not be written is said, and nothing of it counts; then all goes on. */
static void test_full_disk(void **state)
{
	const char *path = temp_path("ledger.db");
	struct ledger_news news;
	struct ledger *ledger = open_well(path, &news);
	struct err err = ERR_INIT;
	int stored = 0, failed = 0;

	(void)state;
	set_file_limit(64 * 1024);
	for (int i = 0; i < 200; i++) {
		if (add(ledger, "a/x", T0 + i * MINUTE, 1, &err) == 0)
			stored++;
		else
			failed++;
	}
	set_file_limit(RLIM_INFINITY);
	assert_true(stored > 0);
	assert_true(failed > 0);
	assert_int_equal(err.class, ERR_TEMP);
	assert_false(ledger_is_lost(ledger));
	assert_int_equal(load(ledger).sum, stored);
	assert_int_equal(add(ledger, "a/x", T0, 1, &err), 0);
	assert_int_equal(ledger_checkpoint(ledger, &err), 0);
	ledger_close(&ledger);
	ledger = open_well(path, &news);
	assert_string_equal(news.damaged_as, "");
	assert_int_equal(load(ledger).sum, stored + 1);
	ledger_close(&ledger);
}

static void test_removed(void **state)
{
	const char *path = temp_path("ledger.db");
	struct ledger_news news;
	struct ledger *ledger = open_well(path, &news);

	(void)state;
	assert_false(ledger_is_lost(ledger));
	assert_int_equal(unlink(path), 0);
	assert_true(ledger_is_lost(ledger));
	(void)temp_write("ledger.db", "", 0, 0600);
	assert_true(ledger_is_lost(ledger));
	ledger_close(&ledger);
}

/* ---- kill -9 ---- */

static void write_until_killed(const char *path, int to)
{
	struct ledger_news news;
	struct err err = ERR_INIT;
	struct ledger *ledger = ledger_open(path, &news, &err);

	for (int64_t i = 0; ledger != NULL; i++) {
		if (add(ledger, i % 3 == 0 ? "a/x" : "b/y", T0 + i % 5000 * MINUTE, 1, &err) < 0)
			break;
		(void)!write(to, "x", 1); /* "accepted" */
		if (i % 64 == 63)
			(void)ledger_checkpoint(ledger, &err);
	}
	_exit(1);
}

static int64_t drain(int fd)
{
	char block[4096];
	int64_t sum = 0;
	ssize_t n;

	while ((n = read(fd, block, sizeof(block))) > 0)
		sum += n;
	return sum;
}

static void test_kill(void **state)
{
	const char *path = temp_path("ledger.db");
	int64_t accepted = 0, stored = 0;

	(void)state;
	for (int round = 0; round < 40; round++) {
		struct ledger_news news;
		struct ledger *ledger;
		int fds[2], status;
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		(void)fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
		pid = fork();
		if (pid == 0)
			write_until_killed(path, fds[1]);
		(void)close(fds[1]);
		(void)usleep(
			(useconds_t)(3000 +
				     round * 977 % 20000)); /* for the child, not the clock */
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		accepted += drain(fds[0]);
		(void)close(fds[0]);
		ledger = open_well(path, &news);
		assert_string_equal(news.damaged_as, "");
		stored = load(ledger).sum;
		ledger_close(&ledger);
		assert_true(stored >= accepted);
		assert_true(stored <= accepted + round + 1); /* the one that was not told */
	}
	assert_true(accepted > 100);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reopen),    TEST(test_rollback),     TEST(test_window_changes),
		TEST(test_mark),      TEST(test_maintain),     TEST(test_checkpoint),
		TEST(test_damage),    TEST(test_newer_schema), TEST(test_readonly_folder),
		TEST(test_full_disk), TEST(test_removed),      TEST(test_kill),
	};

	return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
