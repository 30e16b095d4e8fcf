#include "ctl/setup.h"

#include "base/file.h"
#include "base/xalloc.h"
#include "ctl/child.h"
#include "postfix/edit.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

int setup_file_read(struct setup_file *file, const char *path, struct err *err)
{
	char *real = realpath(path, NULL);
	struct stat st;

	*file = (struct setup_file){.old = BUF_INIT(EDIT_MAX), .new = BUF_INIT(EDIT_MAX)};
	/* What a link leads to is changed, and the link stays. */
	file->path = real != NULL ? real : xstrdup(path);
	file->mode = 0644;
	file->uid = geteuid();
	file->gid = getegid();
	if (stat(file->path, &st) < 0)
		return errno == ENOENT ? 0
				       : err_set(err, ERR_CONFIG, "cannot read %s: %s",
						 file->path, err_no(errno));
	file->exists = true;
	file->mode = st.st_mode & 07777;
	file->uid = st.st_uid;
	file->gid = st.st_gid;
	if (file_read(file->path, &file->old, err) < 0)
		return -1;
	if (memchr(buf_text(&file->old), '\0', file->old.len) != NULL)
		return err_set(err, ERR_CONFIG, "%s is no text: it has a NUL byte", file->path);
	return 0;
}

bool setup_file_differs(const struct setup_file *file)
{
	return strcmp(buf_text(&file->old), buf_text(&file->new)) != 0;
}

static int write_temporary(char *path, const struct buf *text)
{
	int fd = mkstemp(path);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, buf_text(text), text->len);
	(void)close(fd);
	return n == (ssize_t)text->len ? 0 : -1;
}

void setup_file_diff(const struct setup_file *file, struct buf *text)
{
	char old[] = "/tmp/relay365-old-XXXXXX", new[] = "/tmp/relay365-new-XXXXXX";
	const char *const argv[] = {"diff",	"-u", "-L", file->path, "-L",
				    file->path, old,  new,  NULL};

	if (!setup_file_differs(file))
		return;
	if (write_temporary(old, &file->old) < 0 || write_temporary(new, &file->new) < 0 ||
	    child_exec(argv, NULL, text, NULL, SETUP_TIMEOUT_MS) != 1)
		(void)buf_addf(text, "--- %s (no diff: is diff(1) installed?)\n%s", file->path,
			       buf_text(&file->new));
	(void)unlink(old);
	(void)unlink(new);
}

static int put(const struct setup_file *file, const struct buf *content, struct err *err)
{
	if (file_replace(file->path, buf_text(content), content->len, file->mode, err) < 0)
		return -1;
	if ((file->uid != geteuid() || file->gid != getegid()) &&
	    chown(file->path, file->uid, file->gid) < 0)
		return err_set(err, ERR_TEMP, "cannot give %s its owner: %s", file->path,
			       err_no(errno));
	return 0;
}

int setup_file_write(const struct setup_file *file, struct err *err)
{
	return put(file, &file->new, err);
}

int setup_file_restore(const struct setup_file *file, struct err *err)
{
	if (file->exists)
		return put(file, &file->old, err);
	if (unlink(file->path) < 0 && errno != ENOENT)
		return err_set(err, ERR_TEMP, "cannot remove %s: %s", file->path, err_no(errno));
	return 0;
}

void setup_file_clear(struct setup_file *file)
{
	free(file->path);
	buf_clear(&file->old);
	buf_clear(&file->new);
}
