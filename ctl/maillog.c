#include "ctl/maillog.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/xalloc.h"
#include "ctl/child.h"
#include "ctl/instance.h"
#include "maillog/logfile.h"

#include <glob.h>
#include <sys/stat.h>

enum { JOURNAL_MAX = 512 << 20, JOURNAL_TIMEOUT_MS = 120000 };

typedef void each_line(void *arg, const struct logline *line);

/* A file in its turn among the others. */
struct source {
	const char *path;
	struct logfile *file; /* open only where it can't be opened a second time: a pipe */
	struct logtext first; /* then, the line that was read ahead */
	int64_t first_ms;     /* its time stamp */
	int64_t changed_ms;
	size_t number; /* as given */
};

/* What the year of a stamp without one is told by: nothing in a file is later than its end. */
static int64_t look_at(struct source *source, bool *again_r)
{
	struct stat st;
	int64_t now_ms = clock_wall_ms();
	bool known = strcmp(source->path, "-") != 0 && stat(source->path, &st) == 0;

	*again_r = known && S_ISREG(st.st_mode);
	if (!*again_r)
		return now_ms;
	source->changed_ms = st.st_mtim.tv_sec * 1000LL + st.st_mtim.tv_nsec / 1000000;
	return source->changed_ms < now_ms ? source->changed_ms : now_ms;
}

/* Finds out when the file begins. */
static int read_ahead(struct source *source, struct err *err)
{
	bool again;
	int64_t latest_ms = look_at(source, &again);
	struct logline line;
	int result;

	source->file = logfile_open(source->path, err);
	if (source->file == NULL)
		return -1;
	do
		result = logfile_next(source->file, &source->first, err);
	while (result > 0 &&
	       !logline_parse(source->first.data, source->first.len, latest_ms, &line));
	if (result > 0)
		source->first_ms = line.at_ms;
	else
		source->first = (struct logtext){"", 0};
	if (again)
		logfile_close(&source->file);
	return result < 0 ? -1 : 0;
}

static int read_source(struct source *source, each_line *each, void *arg, struct err *err)
{
	bool again;
	int64_t latest_ms = look_at(source, &again);
	struct logtext text = {"", 0};
	struct logline line;
	int result = 1;

	if (source->file == NULL)
		source->file = logfile_open(source->path, err);
	else
		text = source->first;
	if (source->file == NULL)
		return -1;
	while (result > 0) {
		if (logline_parse(text.data, text.len, latest_ms, &line))
			each(arg, &line);
		result = logfile_next(source->file, &text, err);
	}
	logfile_close(&source->file);
	return result;
}

static int by_first(const void *a, const void *b)
{
	const struct source *x = a, *y = b;

	if (x->first_ms != y->first_ms)
		return x->first_ms < y->first_ms ? -1 : 1;
	if (x->changed_ms != y->changed_ms)
		return x->changed_ms < y->changed_ms ? -1 : 1;
	return x->number < y->number ? -1 : 1;
}

/* From the one that begins first. */
static int read_files(const char *const *paths, size_t count, each_line *each, void *arg,
		      struct err *err)
{
	struct source *source = xcalloc(count, sizeof(*source));
	int result = 0;

	for (size_t i = 0; i < count && result == 0; i++) {
		source[i].path = paths[i];
		source[i].number = i;
		result = read_ahead(&source[i], err);
	}
	if (result == 0)
		qsort(source, count, sizeof(*source), by_first);
	for (size_t i = 0; i < count && result == 0; i++)
		result = read_source(&source[i], each, arg, err);
	for (size_t i = 0; i < count; i++)
		logfile_close(&source[i].file);
	free(source);
	return result;
}

/* Files, each once. */
struct found {
	char **path;
	size_t count;
};

static bool has(const struct found *found, const char *path)
{
	for (size_t i = 0; i < found->count; i++)
		if (strcmp(found->path[i], path) == 0)
			return true;
	return false;
}

/* With what they were rotated to. */
static void find(struct found *found, const char *pattern)
{
	glob_t match;

	if (glob(pattern, 0, NULL, &match) != 0)
		return;
	for (size_t i = 0; i < match.gl_pathc; i++) {
		if (has(found, match.gl_pathv[i]))
			continue;
		found->path = xreallocarray(found->path, found->count + 1, sizeof(*found->path));
		found->path[found->count++] = xstrdup(match.gl_pathv[i]);
	}
	globfree(&match);
}

/* Where the instance's postlogd(8) writes, if its log does not go to syslog. */
static void find_own(struct found *found, const char *queue_dir)
{
	char *folder = instance_config_dir(queue_dir, NULL);
	char *file = folder == NULL ? NULL : instance_parameter(folder, "maillog_file", NULL);
	char *pattern;

	if (file != NULL && file[0] == '/' && strncmp(file, "/dev/", 5) != 0) {
		pattern = xasprintf("%s*", file);
		find(found, pattern);
		free(pattern);
	}
	free(folder);
	free(file);
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

int maillog_read(const char *const *files, size_t count, const struct conf *conf, each_line *each,
		 void *arg, struct err *err)
{
	static const char *const usual[] = {"/var/log/mail.log*", "/var/log/maillog*"};
	struct found found = {NULL, 0};
	size_t own;
	int result = 0;

	if (count > 0)
		return read_files(files, count, each, arg, err);
	for (size_t i = 0; i < conf->queue_directories.count; i++)
		find_own(&found, conf->queue_directories.item[i]);
	own = found.count;
	for (size_t i = 0; i < ARRAY_LEN(usual) && found.count == own; i++)
		find(&found, usual[i]);
	if (found.count > 0)
		result = read_files((const char *const *)found.path, found.count, each, arg, err);
	/* What relay365 logs is in syslog, wherever Postfix has its own. */
	if (result == 0 && found.count == own &&
	    read_journal(each, arg, own > 0 ? NULL : err) < 0 && own == 0)
		result = -1;
	for (size_t i = 0; i < found.count; i++)
		free(found.path[i]);
	free(found.path);
	return result;
}
