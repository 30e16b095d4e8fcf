#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/secret.h"
#include "base/xalloc.h"
#include "temp.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- secrets ---- */

static void test_secret_set(void **state)
{
	struct secret secret = SECRET_INIT, other = SECRET_INIT;
	char *large = xcalloc(1, SECRET_MAX + 1);

	(void)state;
	assert_false(secret_is_set(&secret));
	assert_int_equal(secret_set(&secret, "canary", 6), 0);
	assert_true(secret_is_set(&secret));
	assert_string_equal(secret.data, "canary");
	/* From its own content. */
	assert_int_equal(secret_set(&secret, secret.data + 1, 3), 0);
	assert_string_equal(secret.data, "ana");
	memset(large, 'x', SECRET_MAX + 1);
	assert_int_equal(secret_set(&secret, large, SECRET_MAX + 1), -1);
	assert_string_equal(secret.data, "ana");
	assert_int_equal(secret_set(&secret, large, SECRET_MAX), 0);
	assert_int_equal(secret.len, SECRET_MAX);
	assert_int_equal(secret.data[SECRET_MAX], '\0');
	secret_move(&other, &secret);
	assert_null(secret.data);
	assert_int_equal(other.len, SECRET_MAX);
	secret_clear(&other);
	assert_false(secret_is_set(&other));
	secret_clear(&other);
	assert_int_equal(secret_set(&secret, "", 0), 0);
	assert_false(secret_is_set(&secret));
	secret_clear(&secret);
	free(large);
}

static void test_secret_trim(void **state)
{
	static const struct {
		const char *before, *after;
	} cases[] = {
		{"abc", "abc"},	  {"abc\n", "abc"}, {"abc \t\r\n\r\n", "abc"},
		{" a b", " a b"}, {"\n", ""},	    {"", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct secret secret = SECRET_INIT;

		assert_int_equal(secret_set(&secret, cases[i].before, strlen(cases[i].before)),
				 0);
		secret_trim(&secret);
		assert_string_equal(secret.data, cases[i].after);
		assert_int_equal(secret.len, strlen(cases[i].after));
		secret_clear(&secret);
	}
}

/* ---- files that hold a secret ---- */

static void test_modes(void **state)
{
	(void)state;
	for (unsigned int mode = 0400; mode <= 0777; mode++) {
		const char *path = temp_write("secret", "canary\n", 7, mode);
		struct secret secret = SECRET_INIT;
		struct err err = ERR_INIT;
		int expected = (mode & 0027) == 0 ? 0 : -1;
		char hint[64];

		if ((mode & 0400) == 0)
			continue;
		if (file_check_secrecy(path, &err) != expected ||
		    file_read_secret(path, &secret, &err) != expected)
			fail_msg("mode %04o", mode);
		if (expected == 0) {
			assert_string_equal(secret.data, "canary\n");
		} else {
			(void)snprintf(hint, sizeof(hint), "has mode %04o; run: chmod", mode);
			assert_false(secret_is_set(&secret));
			assert_int_equal(err.class, ERR_CONFIG);
			assert_non_null(strstr(err.text, path));
			assert_non_null(strstr(err.text, hint));
			assert_null(strstr(err.text, "canary"));
		}
		secret_clear(&secret);
	}
}

static void expect_refused(const char *path, const char *why)
{
	struct secret secret = SECRET_INIT;
	struct buf buf = BUF_INIT(SECRET_MAX);
	struct err err = ERR_INIT;

	assert_int_equal(file_read_secret(path, &secret, &err), -1);
	assert_int_equal(err.class, ERR_CONFIG);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, why));
	assert_int_equal(file_read(path, &buf, &err), -1);
	assert_non_null(strstr(err.text, why));
	assert_int_equal(file_check_secrecy(path, &err), -1);
	assert_non_null(strstr(err.text, why));
	buf_clear(&buf);
}

/* No admin need change the configuration because of them. */
static void test_passing_faults(void **state)
{
	const char *path = temp_write("plain", "x\n", 2, 0600);
	struct buf buf = BUF_INIT(100);
	struct err err = ERR_INIT;
	struct rlimit usual, none;
	int result;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
	none = (struct rlimit){0, usual.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	result = file_read(path, &buf, &err);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
	assert_int_equal(result, -1);
	assert_int_equal(err.class, ERR_TEMP);
	assert_non_null(strstr(err.text, "Too many open files"));
	assert_int_equal(file_read(path, &buf, &err), 0);
	buf_clear(&buf);
}

static void test_not_a_plain_file(void **state)
{
	(void)state;
	expect_refused(temp_path("missing"), "No such file or directory");
	assert_int_equal(mkdir(temp_path("folder"), 0700), 0);
	expect_refused(temp_path("folder"), "is not a plain file");
	/* Must not wait for a writer. */
	assert_int_equal(mkfifo(temp_path("fifo"), 0600), 0);
	expect_refused(temp_path("fifo"), "is not a plain file");
	expect_refused("/dev/null", "is not a plain file");
}

/* A link counts as what it leads to: Kubernetes mounts secrets as links. */
static void test_symlink(void **state)
{
	struct secret secret = SECRET_INIT;
	struct err err = ERR_INIT;

	(void)state;
	(void)temp_write("good", "canary", 6, 0600);
	(void)temp_write("open", "canary", 6, 0644);
	assert_int_equal(symlink("good", temp_path("to-good")), 0);
	assert_int_equal(symlink("open", temp_path("to-open")), 0);
	assert_int_equal(symlink("nothing", temp_path("dangling")), 0);
	assert_int_equal(file_read_secret(temp_path("to-good"), &secret, &err), 0);
	assert_string_equal(secret.data, "canary");
	assert_int_equal(file_read_secret(temp_path("to-open"), &secret, &err), -1);
	assert_non_null(strstr(err.text, "mode 0644"));
	expect_refused(temp_path("dangling"), "No such file");
	secret_clear(&secret);
}

static void test_size(void **state)
{
	static char data[SECRET_MAX + 1];
	struct secret secret = SECRET_INIT;
	struct err err = ERR_INIT;
	const char *path;

	(void)state;
	memset(data, 'x', sizeof(data));
	path = temp_write("secret", data, SECRET_MAX, 0600);
	assert_int_equal(file_read_secret(path, &secret, &err), 0);
	assert_int_equal(secret.len, SECRET_MAX);
	path = temp_write("secret", data, SECRET_MAX + 1, 0600);
	assert_int_equal(file_read_secret(path, &secret, &err), -1);
	assert_non_null(strstr(err.text, "is larger than 65536 bytes"));
	path = temp_write("secret", "", 0, 0600);
	assert_int_equal(file_read_secret(path, &secret, &err), 0);
	assert_false(secret_is_set(&secret));
	secret_clear(&secret);
}

static void test_read_bounded(void **state)
{
	static const size_t sizes[] = {0, 1, 254, 255, 256, 999, 1000};
	char data[1001];

	(void)state;
	memset(data, 'y', sizeof(data));
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct buf buf = BUF_INIT(1000);
		struct err err = ERR_INIT;

		assert_int_equal(file_read(temp_write("f", data, sizes[i], 0644), &buf, &err), 0);
		assert_int_equal(buf.len, sizes[i]);
		assert_false(buf.overflowed);
		assert_int_equal(strlen(buf_text(&buf)), sizes[i]);
		buf_clear(&buf);
		assert_int_equal(file_read(temp_write("f", data, 1001, 0644), &buf, &err), -1);
		buf_clear(&buf);
	}
}

/* ---- replacing ---- */

static void expect_content(const char *path, const char *text, unsigned int mode)
{
	struct buf buf = BUF_INIT(1000);
	struct err err = ERR_INIT;
	struct stat st;

	assert_int_equal(file_read(path, &buf, &err), 0);
	assert_string_equal(buf_text(&buf), text);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | mode);
	buf_clear(&buf);
}

static void test_replace(void **state)
{
	struct err err = ERR_INIT;
	const char *path = temp_path("token");
	struct stat before, after;
	mode_t mask = umask(0077);

	(void)state;
	assert_int_equal(file_replace(path, "one", 3, 0640, &err), 0);
	expect_content(path, "one", 0640);
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(file_replace(path, "two", 3, 0600, &err), 0);
	expect_content(path, "two", 0600);
	/* A new file took its place: whoever reads the old one reads it to its end. */
	assert_int_equal(stat(path, &after), 0);
	assert_int_not_equal(before.st_ino, after.st_ino);
	assert_int_equal(file_replace(path, "", 0, 0600, &err), 0);
	expect_content(path, "", 0600);
	assert_int_equal(access(temp_path("token.tmp"), F_OK), -1);
	(void)umask(mask);
}

/* What a crash left behind, or somebody put there, is neither followed nor in the way. */
static void test_replace_beside_leftovers(void **state)
{
	struct err err = ERR_INIT;
	const char *victim = temp_text("victim", "untouched");
	const char *path = temp_path("token");

	(void)state;
	(void)temp_text("token.tmp", "half of an old tok");
	assert_int_equal(file_replace(path, "one", 3, 0600, &err), 0);
	assert_int_equal(symlink("victim", temp_path("token.tmp")), 0);
	assert_int_equal(file_replace(path, "two", 3, 0600, &err), 0);
	expect_content(path, "two", 0600);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("victim", path), 0);
	assert_int_equal(file_replace(path, "three", 5, 0600, &err), 0);
	expect_content(path, "three", 0600);
	expect_content(victim, "untouched", 0600);
}

static void test_replace_fails(void **state)
{
	struct err err = ERR_INIT;
	char long_path[5000];

	(void)state;
	assert_int_equal(file_replace(temp_path("no/such/folder"), "x", 1, 0600, &err), -1);
	assert_non_null(strstr(err.text, "no/such/folder.tmp"));
	assert_int_equal(mkdir(temp_path("folder"), 0700), 0);
	assert_int_equal(file_replace(temp_path("folder"), "x", 1, 0600, &err), -1);
	assert_int_equal(err.class, ERR_TEMP);
	assert_non_null(strstr(err.text, "cannot write"));
	assert_int_equal(access(temp_path("folder.tmp"), F_OK), -1);
	memset(long_path, 'x', sizeof(long_path));
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(file_replace(long_path, "x", 1, 0600, &err), -1);
	assert_non_null(strstr(err.text, "too long"));
}

#define IN_TEMP(test) cmocka_unit_test_setup_teardown(test, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_secret_set),
		cmocka_unit_test(test_secret_trim),
		IN_TEMP(test_modes),
		IN_TEMP(test_passing_faults),
		IN_TEMP(test_not_a_plain_file),
		IN_TEMP(test_symlink),
		IN_TEMP(test_size),
		IN_TEMP(test_read_bounded),
		IN_TEMP(test_replace),
		IN_TEMP(test_replace_fails),
		IN_TEMP(test_replace_beside_leftovers),
	};

	return cmocka_run_group_tests_name("secret_file", tests, NULL, NULL);
}
