#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A want of the machine's passes; all else somebody must change, the path or the file. */
static enum err_class class_of(int errnum)
{
	return errnum == EMFILE || errnum == ENFILE || errnum == ENOMEM || errnum == EIO
		       ? ERR_TEMP
		       : ERR_CONFIG;
}

static int open_plain(const char *path, struct stat *st_r, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return err_set(err, class_of(errno), "cannot read %s: %s", path, err_no(errno));
	if (fstat(fd, st_r) < 0 || !S_ISREG(st_r->st_mode)) {
		(void)close(fd);
		return err_set(err, ERR_CONFIG, "%s is not a plain file", path);
	}
	return fd;
}

static int read_all(int fd, const char *path, struct buf *buf, struct err *err)
{
	for (;;) {
		size_t room = 0;
		char *to = buf_reserve(buf, 1, &room);
		ssize_t n;

		if (to == NULL) {
			char past;

			if (read(fd, &past, 1) == 0) {
				buf->overflowed = false; /* just full */
				return 0;
			}
			return err_set(err, ERR_CONFIG, "%s is larger than %zu bytes", path,
				       buf->max);
		}
		n = read(fd, to, room);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_TEMP, "cannot read %s: %s", path, err_no(errno));
		if (n == 0)
			return 0;
		buf->len += (size_t)n;
		buf->data[buf->len] = '\0';
	}
}

int file_read(const char *path, struct buf *buf, struct err *err)
{
	struct stat st;
	int fd, result;

	fd = open_plain(path, &st, err);
	if (fd < 0)
		return -1;
	result = read_all(fd, path, buf, err);
	(void)close(fd);
	return result;
}

static int judge_mode(const char *path, const struct stat *st, struct err *err)
{
	if ((st->st_mode & (S_IRWXO | S_IWGRP)) == 0)
		return 0;
	return err_set(err, ERR_CONFIG,
		       "%s holds a secret but has mode %04o; run: chmod o-rwx,g-w %s", path,
		       (unsigned int)(st->st_mode & 07777), path);
}

int file_check_secrecy(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		/* A user who can't get at the file can't leak it: whoever reads it will judge. */
		if (errno == EACCES)
			return 0;
		return err_set(err, ERR_CONFIG, "cannot read %s: %s", path, err_no(errno));
	}
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_CONFIG, "%s is not a plain file", path);
	return judge_mode(path, &st, err);
}

int file_read_secret(const char *path, struct secret *secret, struct err *err)
{
	struct buf buf = BUF_INIT(SECRET_MAX);
	struct stat st;
	int fd, result = -1;

	fd = open_plain(path, &st, err);
	if (fd < 0)
		return -1;
	if (judge_mode(path, &st, err) < 0 || read_all(fd, path, &buf, err) < 0)
		goto out;
	if (secret_set(secret, buf_text(&buf), buf.len) < 0) {
		err_set(err, ERR_TEMP, "no memory for the secret in %s", path);
		goto out;
	}
	result = 0;
out:
	buf_clear(&buf);
	(void)close(fd);
	return result;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_folder(const char *path)
{
	char folder[4096];
	const char *slash = strrchr(path, '/');
	size_t n = slash == NULL ? 0 : (size_t)(slash - path);
	int fd, result;

	if (n >= sizeof(folder))
		return -1;
	memcpy(folder, path, n);
	folder[n] = '\0';
	if (slash == NULL)
		(void)snprintf(folder, sizeof(folder), ".");
	else if (n == 0)
		(void)snprintf(folder, sizeof(folder), "/");
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	result = fsync(fd);
	(void)close(fd);
	return result;
}

int file_replace(const char *path, const void *data, size_t len, unsigned int mode,
		 struct err *err)
{
	char tmp[4096];
	int fd = -1, n;

	n = snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	if (n < 0 || (size_t)n >= sizeof(tmp))
		return err_set(err, ERR_CONFIG, "this path is too long: %s", path);
	(void)unlink(tmp);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
	if (fd < 0)
		return err_set(err, ERR_TEMP, "cannot create %s: %s", tmp, err_no(errno));
	if (fchmod(fd, (mode_t)mode) < 0 || write_all(fd, data, len) < 0 || fsync(fd) < 0)
		goto fail;
	n = close(fd);
	fd = -1;
	if (n < 0 || rename(tmp, path) < 0)
		goto fail;
	if (sync_folder(path) < 0)
		return err_set(err, ERR_TEMP, "cannot sync the folder of %s: %s", path,
			       err_no(errno));
	return 0;
fail:
	err_set(err, ERR_TEMP, "cannot write %s: %s", path, err_no(errno));
	if (fd >= 0)
		(void)close(fd);
	(void)unlink(tmp);
	return -1;
}

void *file_map(const char *path, size_t bytes, struct err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	void *map = MAP_FAILED;
	int error;

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0) {
		error = errno;
	} else {
		error = posix_fallocate(fd, 0, (off_t)bytes);
		if (error == 0)
			map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (error == 0 && map == MAP_FAILED)
			error = errno;
	}
	if (fd >= 0)
		(void)close(fd);
	if (map != MAP_FAILED)
		return map;
	err_set(err, ERR_CONFIG, "cannot keep %s in memory: %s", path, err_no(error));
	return NULL;
}

int file_make_folder(const char *path, struct err *err)
{
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	return err_set(err, ERR_CONFIG, "cannot make the folder %s: %s", path, err_no(errno));
}
