#include "ctl/maillog.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/xalloc.h"
#include "ctl/child.h"
#include "maillog/logfile.h"

#include <glob.h>
#include <sys/stat.h>

enum { JOURNAL_MAX = 512 << 20, JOURNAL_TIMEOUT_MS = 120000 };

typedef void each_line(void *arg, const struct logline *line);

static int read_file(const char *path, each_line *each, void *arg, struct err *err)
{
	struct logfile *file = logfile_open(path, err);
	int64_t now_ms = clock_wall_ms();
	struct logtext text;
	struct logline line;
	int result = file == NULL ? -1 : 1;

	while (result > 0) {
		result = logfile_next(file, &text, err);
		if (result > 0 && logline_parse(text.data, text.len, now_ms, &line))
			each(arg, &line);
	}
	logfile_close(&file);
	return result;
}

static int64_t changed_s(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : (int64_t)st.st_mtime;
}

static int by_age(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;
	int64_t m = changed_s(*x), n = changed_s(*y);

	return m < n ? -1 : m > n;
}

/* Returns 1 when there were such files, 0 when there are none. */
static int read_rotated(const char *pattern, each_line *each, void *arg, struct err *err)
{
	glob_t found;
	int result = 1;

	if (glob(pattern, 0, NULL, &found) != 0)
		return 0;
	qsort(found.gl_pathv, found.gl_pathc, sizeof(found.gl_pathv[0]), by_age);
	for (size_t i = 0; i < found.gl_pathc && result > 0; i++)
		if (read_file(found.gl_pathv[i], each, arg, err) < 0)
			result = -1;
	globfree(&found);
	return result;
}

static int read_journal(each_line *each, void *arg, struct err *err)
{
	static const char *const argv[] = {
		"journalctl", "-q", "--no-pager", "-o", "short-iso", "--facility=mail", NULL};
	struct buf text = BUF_INIT(JOURNAL_MAX), errors = BUF_INIT(65536);
	int64_t now_ms = clock_wall_ms();
	struct logline line;
	int result = -1;

	if (child_exec(argv, NULL, &text, &errors, JOURNAL_TIMEOUT_MS) != 0 || text.len == 0) {
		err_set(err, ERR_CONFIG,
			"no mail log is found, neither in /var/log nor in the journal; name "
			"its file: --log FILE");
		goto out;
	}
	for (const char *at = buf_text(&text); *at != '\0';) {
		size_t len = strcspn(at, "\n");

		if (logline_parse(at, len, now_ms, &line))
			each(arg, &line);
		at += len + (at[len] == '\n');
	}
	result = 0;
out:
	buf_clear(&text);
	buf_clear(&errors);
	return result;
}

int maillog_read(const char *const *files, size_t count, each_line *each, void *arg,
		 struct err *err)
{
	static const char *const usual[] = {"/var/log/mail.log*", "/var/log/maillog*"};
	int result = 0;

	for (size_t i = 0; i < count; i++)
		if (read_file(files[i], each, arg, err) < 0)
			return -1;
	if (count > 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(usual) && result == 0; i++)
		result = read_rotated(usual[i], each, arg, err);
	if (result == 0)
		return read_journal(each, arg, err);
	return result < 0 ? -1 : 0;
}
