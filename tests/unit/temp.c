#include "base/compat.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "temp.h"

static char folder[64];

int temp_enter(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/relay365-test-XXXXXX");
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int temp_leave(void **state)
{
	(void)state;
	return nftw(folder, drop, 16, FTW_DEPTH | FTW_PHYS);
}

const char *temp_path(const char *name)
{
	static char path[8][128];
	static unsigned int turn;
	char *to = path[turn++ % ARRAY_LEN(path)];

	assert_true(snprintf(to, sizeof(path[0]), "%s/%s", folder, name) < (int)sizeof(path[0]));
	return to;
}

const char *temp_write(const char *name, const void *data, size_t len, unsigned int mode)
{
	const char *path = temp_path(name);
	int fd;

	(void)unlink(path); /* its mode may forbid to write */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	assert_int_equal(fchmod(fd, (mode_t)mode), 0);
	assert_int_equal(close(fd), 0);
	return path;
}

const char *temp_text(const char *name, const char *text)
{
	return temp_write(name, text, strlen(text), 0600);
}
