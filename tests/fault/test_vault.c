/*
 * The vault under faults, as a loop over its system calls: the process is
 * killed before or after the n-th call of a write, or that call fails, or all
 * from there on do. However it goes, what is read afterwards is the last entry
 * that was told as written, or a later one: no working token is ever lost.
 */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../unit/temp.h"
#include "token/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROTATIONS = 3, CALLS_MOST = 200 };

enum mode { KILL_BEFORE, KILL_AFTER, FAIL_ONE, FAIL_FROM, MODES };

static struct {
	enum mode mode;
	int at; /* strike at this call; 0: never */
	int calls;
	bool inside;	 /* a write of the vault, on its thread */
	char order[200]; /* the calls of all writes, by name */
} fault;

/* ---- the system calls of file_replace() ---- */

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t len);
int __real_fsync(int fd);
int __real_close(int fd);
int __real_fchmod(int fd, mode_t mode);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_file_replace(const char *path, const void *data, size_t len, unsigned int mode,
			struct err *err);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *data, size_t len);
int __wrap_fsync(int fd);
int __wrap_close(int fd);
int __wrap_fchmod(int fd, mode_t mode);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_file_replace(const char *path, const void *data, size_t len, unsigned int mode,
			struct err *err);

static void die(void)
{
	(void)kill(getpid(), SIGKILL);
	for (;;)
		(void)pause();
}

/* Whether this call fails. */
static bool strikes(const char *call)
{
	size_t len = strlen(fault.order);

	if (!fault.inside)
		return false;
	(void)snprintf(fault.order + len, sizeof(fault.order) - len, "%s ", call);
	if (fault.at == 0)
		return false;
	fault.calls++;
	if (fault.calls == fault.at && fault.mode == KILL_BEFORE)
		die();
	if ((fault.mode == FAIL_ONE && fault.calls == fault.at) ||
	    (fault.mode == FAIL_FROM && fault.calls >= fault.at)) {
		errno = ENOSPC;
		return true;
	}
	return false;
}

static void struck(void)
{
	if (fault.inside && fault.mode == KILL_AFTER && fault.calls == fault.at && fault.at != 0)
		die();
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;
	int fd;

	va_start(args, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	if (strikes("open"))
		return -1;
	fd = __real_open(path, flags, mode);
	struck();
	return fd;
}

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
	ssize_t n;

	if (strikes("write"))
		return -1;
	/* The kernel may take less than all; then two calls can be struck. */
	if (fault.inside && len > 3000)
		len = 3000;
	n = __real_write(fd, data, len);
	struck();
	return n;
}

#define WRAP(name, parameters, arguments)         \
	int __wrap_##name parameters              \
	{                                         \
		int result;                       \
                                                  \
		if (strikes(#name))               \
			return -1;                \
		result = __real_##name arguments; \
		struck();                         \
		return result;                    \
	}
WRAP(fsync, (int fd), (fd))
WRAP(fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(rename, (const char *from, const char *to), (from, to))
WRAP(unlink, (const char *path), (path))

/* Fails only after it has closed, as Linux does. */
int __wrap_close(int fd)
{
	bool fails = strikes("close");
	int result = __real_close(fd);

	struck();
	return fails ? -1 : result;
}

int __wrap_file_replace(const char *path, const void *data, size_t len, unsigned int mode,
			struct err *err)
{
	int result;

	fault.inside = true;
	result = __real_file_replace(path, data, len, mode, err);
	fault.inside = false;
	return result;
}

/* ---- a process that rotates ---- */

static const char owner[] = "client https://login.example/token scope relay@contoso.com";

static void set_entry(struct vault_entry *entry, int n)
{
	char text[4000];

	memset(entry, 0, sizeof(*entry));
	memset(text, 'r', sizeof(text));
	(void)snprintf(text, sizeof(text), "refresh-%d", n);
	text[strlen(text)] = '.';
	entry->owner = owner;
	entry->refreshed_s = 1000 + n;
	entry->expires_s = 2000 + n;
	assert_int_equal(secret_set(&entry->refresh, text, sizeof(text)), 0);
	assert_int_equal(secret_set(&entry->access, text, sizeof(text)), 0);
}

static void clear_entry(struct vault_entry *entry)
{
	secret_clear(&entry->refresh);
	secret_clear(&entry->access);
}

struct told {
	struct loop *loop;
	bool failed;
};

static void on_written(void *arg, const char *problem)
{
	struct told *told = arg;

	told->failed = problem != NULL;
	loop_stop(told->loop);
}

/* Writes entries 1 to n and says to fd which of them were told as written. */
static void rotate(const char *folder, int first, int n, int fd)
{
	struct told told = {.loop = loop_new()};
	struct vault *vault = vault_open(told.loop, folder, NULL);

	for (int i = first; i < first + n; i++) {
		struct vault_entry entry;
		const char number = (char)i;

		set_entry(&entry, i);
		vault_write(vault, "mailbox-relay", &entry, on_written, &told);
		clear_entry(&entry);
		if (loop_run(told.loop) < 0)
			_exit(2);
		if (!told.failed && __real_write(fd, &number, 1) != 1)
			_exit(2);
	}
	vault_close(&vault);
	loop_free(&told.loop);
}

/* The number of the entry that is there; 0: none. */
static int read_entry(const char *folder)
{
	struct vault_entry entry = {.owner = owner};
	struct loop *loop = loop_new();
	struct vault *vault = vault_open(loop, folder, NULL);
	struct err err = ERR_INIT;
	int result = vault_read(vault, "mailbox-relay", &entry, &err), n = 0;

	if (result < 0)
		fail_msg("%s", err.text);
	if (result == 1) {
		n = (int)entry.refreshed_s - 1000;
		assert_int_equal(entry.expires_s, 2000 + n);
		assert_int_equal(entry.refresh.len, 4000);
		assert_int_equal(strtol(entry.refresh.data + strlen("refresh-"), NULL, 10), n);
		assert_memory_equal(entry.refresh.data, entry.access.data, 4000);
	}
	clear_entry(&entry);
	vault_close(&vault);
	loop_free(&loop);
	return n;
}

/* Runs rotate() in a process with a fault; returns the last entry told as written. */
static int run(const char *folder, enum mode mode, int at, bool *ended_r)
{
	int told = 1, status, end[2];
	char number;
	pid_t pid;

	assert_int_equal(pipe(end), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)close(end[0]);
		fault.mode = mode;
		fault.at = at;
		rotate(folder, 2, ROTATIONS, end[1]);
		_exit(fault.calls < at ? 0 : 1);
	}
	(void)close(end[1]);
	while (read(end[0], &number, 1) == 1)
		told = number;
	(void)close(end[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	*ended_r = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (!*ended_r && WIFEXITED(status))
		assert_int_equal(WEXITSTATUS(status), 1);
	return told;
}

static void test_no_token_is_lost(void **state)
{
	(void)state;
	for (int mode = 0; mode < MODES; mode++) {
		bool ended = false;
		int at;

		for (at = 1; !ended && at < CALLS_MOST; at++) {
			const char *folder = temp_path("tokens");
			int told, found;

			(void)unlink(temp_path("tokens/mailbox-relay"));
			rotate(folder, 1, 1, __real_open("/dev/null", O_WRONLY | O_CLOEXEC));
			assert_int_equal(read_entry(folder), 1);
			told = run(folder, (enum mode)mode, at, &ended);
			found = read_entry(folder);
			if (found < told || found > 1 + ROTATIONS)
				fail_msg("mode %d, call %d: told %d, found %d", mode, at, told,
					 found);
		}
		/* The loop must have come to every call, and beyond the last. */
		assert_in_range(at, ROTATIONS * 6, CALLS_MOST - 1);
	}
}

/* The disk has the text before it gets its name, and then the name. */
static void test_order(void **state)
{
	static const char *const calls[] = {"open", "write", "fsync", "rename", "fsync"};
	const char *at = fault.order;

	(void)state;
	fault.order[0] = '\0';
	rotate(temp_path("tokens"), 1, 1, __real_open("/dev/null", O_WRONLY | O_CLOEXEC));
	for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
		at = strstr(at, calls[i]);
		if (at == NULL)
			fail_msg("no %s in its place: %s", calls[i], fault.order);
		at += strlen(calls[i]);
	}
}

/* After a disk was full and is not any more, the next write counts. */
static void test_room_again(void **state)
{
	const char *folder = temp_path("tokens");
	bool ended;

	(void)state;
	rotate(folder, 1, 1, __real_open("/dev/null", O_WRONLY | O_CLOEXEC));
	assert_int_equal(run(folder, FAIL_FROM, 1, &ended), 1);
	assert_int_equal(read_entry(folder), 1);
	assert_int_equal(run(folder, FAIL_FROM, 0, &ended), 1 + ROTATIONS);
	assert_int_equal(read_entry(folder), 1 + ROTATIONS);
}

static void test_what_is_not_taken(void **state)
{
	struct vault_entry entry = {.owner = owner};
	const char *folder = temp_path("tokens");
	const char *path = temp_path("tokens/mailbox-relay");
	struct loop *loop = loop_new();
	struct vault *vault = vault_open(loop, folder, NULL);
	struct err err = ERR_INIT;

	(void)state;
	rotate(folder, 1, 1, __real_open("/dev/null", O_WRONLY | O_CLOEXEC));
	entry.owner = "another client";
	assert_int_equal(vault_read(vault, "mailbox-relay", &entry, &err), 0);
	assert_int_equal(vault_read(vault, "mailbox-other", &entry, &err), 0);
	entry.owner = owner;
	assert_int_equal(chmod(path, 0604), 0);
	assert_int_equal(vault_read(vault, "mailbox-relay", &entry, &err), -1);
	assert_non_null(strstr(err.text, "mode 0604"));
	assert_int_equal(chmod(path, 0600), 0);
	for (off_t len = 4100; len >= 0; len -= 1025) {
		assert_int_equal(truncate(path, len), 0);
		assert_int_equal(vault_read(vault, "mailbox-relay", &entry, &err), -1);
		assert_non_null(strstr(err.text, "damaged"));
		assert_false(secret_is_set(&entry.refresh));
	}
	vault_close(&vault);
	loop_free(&loop);
}

#define IN_TEMP(test) cmocka_unit_test_setup_teardown(test, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TEMP(test_no_token_is_lost),
		IN_TEMP(test_order),
		IN_TEMP(test_room_again),
		IN_TEMP(test_what_is_not_taken),
	};

	return cmocka_run_group_tests_name("vault", tests, NULL, NULL);
}
