#include "maillog/logfile.h"

#include "base/xalloc.h"

#include <errno.h>
#include <unistd.h>
#include <zlib.h>

enum { CHUNK = 256 * 1024 };

struct logfile {
	gzFile file;
	char *path;
	size_t at, len; /* in chunk */
	size_t line_len;
	char chunk[CHUNK];
	char line[LOGLINE_MAX];
};

struct logfile *logfile_open(const char *path, struct err *err)
{
	struct logfile *file = xcalloc(1, sizeof(*file));
	int fd;

	errno = 0;
	if (strcmp(path, "-") == 0) {
		fd = dup(STDIN_FILENO);
		file->file = fd < 0 ? NULL : gzdopen(fd, "rb");
	} else {
		file->file = gzopen(path, "rbe");
	}
	if (file->file == NULL) {
		err_set(err, ERR_CONFIG, "cannot read %s: %s", path,
			errno == 0 ? "no memory" : err_no(errno));
		free(file);
		return NULL;
	}
	file->path = xstrdup(path);
	return file;
}

void logfile_close(struct logfile **file)
{
	if (*file == NULL)
		return;
	(void)gzclose_r((*file)->file);
	free((*file)->path);
	free(*file);
	*file = NULL;
}

/* The next piece of the file. Returns as logfile_next(). */
static int fill(struct logfile *file, struct err *err)
{
	int n = gzread(file->file, file->chunk, CHUNK), problem;
	const char *why = gzerror(file->file, &problem);

	if (n < 0 || (n == 0 && problem < 0))
		return err_set(err, ERR_PERM, "cannot read %s on: %s", file->path, why);
	file->at = 0;
	file->len = (size_t)n;
	return n == 0 ? 0 : 1;
}

static void keep(struct logfile *file, size_t n)
{
	size_t room = sizeof(file->line) - file->line_len;
	size_t taken = n < room ? n : room;

	memcpy(file->line + file->line_len, file->chunk + file->at, taken);
	file->line_len += taken;
}

int logfile_next(struct logfile *file, struct logtext *line_r, struct err *err)
{
	bool any = false;

	file->line_len = 0;
	for (;;) {
		const char *end;
		size_t n;
		int result = file->at < file->len ? 1 : fill(file, err);

		if (result < 0)
			return -1;
		if (result == 0 && !any)
			return 0;
		if (result == 0)
			break; /* the last line has no line end */
		any = true;
		end = memchr(file->chunk + file->at, '\n', file->len - file->at);
		n = end == NULL ? file->len - file->at : (size_t)(end - file->chunk) - file->at;
		keep(file, n);
		file->at += n + (end != NULL);
		if (end != NULL)
			break;
	}
	*line_r = (struct logtext){file->line, file->line_len};
	return 1;
}
