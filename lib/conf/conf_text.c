#include "conf/conf_text.h"

#include "base/file.h"
#include "base/xalloc.h"

#include <ctype.h>
#include <limits.h>

enum { INCLUDES_MAX = 10 }; /* libconfig's: files within each other */

struct scan {
	const char *path;
	const char *at, *end; /* a NUL is at the end */
	unsigned int line;
	int depth;
};

static int check_file(const char *path, int depth, struct err *err);

static bool begins(const struct scan *scan, const char *text)
{
	size_t len = strlen(text);

	return (size_t)(scan->end - scan->at) >= len && memcmp(scan->at, text, len) == 0;
}

static void skip(struct scan *scan, size_t n)
{
	for (; n > 0 && scan->at < scan->end; n--)
		scan->line += *scan->at++ == '\n';
}

/* To what ends a comment, or the file. */
static void skip_comment(struct scan *scan, const char *closing)
{
	while (scan->at < scan->end && !begins(scan, closing))
		skip(scan, 1);
	skip(scan, strlen(closing));
}

/* A text in quotes, the first of which was passed. */
static void skip_text(struct scan *scan)
{
	while (scan->at < scan->end && *scan->at != '"')
		skip(scan, *scan->at == '\\' ? 2 : 1);
	skip(scan, 1);
}

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '*';
}

static void skip_name(struct scan *scan)
{
	while (is_name(*scan->at))
		scan->at++;
}

/*
 * A number without L is an int for libconfig, which in version 1.5 takes the
 * low half of a larger one. Fractions, and what is no number, are left to it.
 */
static int check_number(struct scan *scan, struct err *err)
{
	const char *begin = scan->at;
	bool hex = begin[0] == '0' && (begin[1] == 'x' || begin[1] == 'X');
	char *end;
	long long n = strtoll(begin, &end, hex ? 16 : 10);

	scan->at = end > begin ? end : begin + 1;
	if ((n >= INT_MIN && n <= INT_MAX) || *end == 'L' || *end == '.' || *end == 'e' ||
	    *end == 'E')
		return 0;
	return err_set(err, ERR_CONFIG,
		       "%s:%u: %.*s is out of range: what may be over %d must end in L",
		       scan->path, scan->line, (int)(end - begin), begin, INT_MAX);
}

static int check_include(struct scan *scan, struct err *err)
{
	const char *begin = scan->at + strcspn(scan->at, "\"\n");
	char *path;
	int result;

	if (*begin != '"' || scan->depth == INCLUDES_MAX)
		return 0;
	path = xstrndup(begin + 1, strcspn(begin + 1, "\"\n"));
	result = check_file(path, scan->depth + 1, err);
	free(path);
	return result;
}

static int check_next(struct scan *scan, struct err *err)
{
	static const char include[] = "@include";
	char c = *scan->at;

	if (c == '#' || begins(scan, "//")) {
		skip_comment(scan, "\n");
	} else if (begins(scan, "/*")) {
		skip_comment(scan, "*/");
	} else if (c == '"') {
		skip(scan, 1);
		skip_text(scan);
	} else if (begins(scan, include)) {
		skip(scan, sizeof(include) - 1);
		return check_include(scan, err);
	} else if (isdigit((unsigned char)c) || c == '-' || c == '+') {
		return check_number(scan, err);
	} else if (is_name(c)) {
		skip_name(scan);
	} else {
		skip(scan, 1);
	}
	return 0;
}

static int check_mark(const struct scan *scan, struct err *err)
{
	if (!begins(scan, "\xef\xbb\xbf") && !begins(scan, "\xff\xfe") &&
	    !begins(scan, "\xfe\xff"))
		return 0;
	return err_set(err, ERR_CONFIG,
		       "%s:1: begins with a byte order mark (BOM); save the file as UTF-8 "
		       "without one",
		       scan->path);
}

static int check_file(const char *path, int depth, struct err *err)
{
	struct buf text = BUF_INIT(CONF_FILE_MAX);
	struct scan scan = {.path = path, .line = 1, .depth = depth};
	int result = 0;

	if (file_read(path, &text, NULL) == 0) {
		scan.at = buf_text(&text);
		scan.end = scan.at + text.len;
		result = check_mark(&scan, err);
		while (scan.at < scan.end && result == 0)
			result = check_next(&scan, err);
	}
	buf_clear(&text);
	return result;
}

int conf_text_check(const char *path, struct err *err)
{
	return check_file(path, 0, err);
}
