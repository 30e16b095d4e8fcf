/* relay365 explain: what an error code, a text or a whole log means, and what to do. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/plain.h"
#include "base/xalloc.h"
#include "explain/explain.h"
#include "maillog/logfile.h"

#include <ctype.h>
#include <strings.h>
#include <sys/stat.h>

enum {
	TEXT_MAX = 16384, /* bytes of what is given as arguments */
	EXAMPLE_SIZE = 240,
	FOUND_MAX = 512 /* the tables hold fewer entries */
};

/* One entry of the tables and the lines that it explains. */
struct found {
	const struct explanation *what;
	long count;
	char example[EXAMPLE_SIZE]; /* the last line; "" when a code was given */
};

struct report {
	struct found found[FOUND_MAX];
	size_t count;
	struct found unknown; /* failures that no entry explains */
	long lines;
};

static void keep_example(struct found *found, const char *line)
{
	(void)snprintf(found->example, sizeof(found->example), "%.*s", (int)strcspn(line, "\n"),
		       line);
	(void)plain(found->example);
}

static void add(struct report *report, const struct explanation *what, const char *line)
{
	size_t i = 0;

	while (i < report->count && report->found[i].what != what)
		i++;
	if (i == FOUND_MAX)
		return;
	if (i == report->count)
		report->found[report->count++].what = what;
	report->found[i].count++;
	if (line != NULL)
		keep_example(&report->found[i], line);
}

static void add_entry(void *arg, const struct explanation *what)
{
	add(arg, what, NULL);
}

static void add_line(struct report *report, const char *line)
{
	const struct explanation *what;

	report->lines++;
	if (strstr(line, "status=sent") != NULL)
		return;
	what = explain_line(line);
	if (what != NULL) {
		add(report, what, line);
	} else if (strstr(line, "status=deferred") != NULL ||
		   strstr(line, "status=bounced") != NULL || strstr(line, "AADSTS") != NULL ||
		   strstr(line, "aadsts=") != NULL) {
		report->unknown.count++;
		keep_example(&report->unknown, line);
	}
}

/* "-" is the standard input. */
static int add_file(struct report *report, const char *path, struct err *err)
{
	struct logfile *file = logfile_open(path, err);
	int result = file == NULL ? -1 : 1;
	struct logtext text;
	char line[LOGLINE_MAX + 1];

	while (result > 0) {
		result = logfile_next(file, &text, err);
		if (result > 0) {
			(void)logtext_copy(&text, line, sizeof(line));
			add_line(report, line);
		}
	}
	logfile_close(&file);
	return result;
}

/* A code alone, "5.7.139", "535", "7000222", "AADSTS7000222" or "invalid_client". */
static bool add_code(struct report *report, const char *text)
{
	bool prefixed = strncasecmp(text, "AADSTS", 6) == 0;
	const char *digits = prefixed ? text + 6 : text;
	bool numeric = digits[0] != '\0' && digits[strspn(digits, "0123456789")] == '\0' &&
		       strlen(digits) < 10;
	const struct explanation *what = NULL;
	size_t before = report->count;

	if (numeric && (prefixed || strlen(digits) > 3))
		what = explain_aadsts(strtol(digits, NULL, 10));
	else if (numeric)
		what = explain_basic(strtol(digits, NULL, 10));
	else
		what = explain_oauth_error(text);
	if (what != NULL)
		add(report, what, NULL);
	else
		explain_code(text, add_entry, report);
	return report->count > before;
}

static int by_count(const void *a, const void *b)
{
	const struct found *left = a, *right = b;

	return (left->count < right->count) - (left->count > right->count);
}

static int print_json(const struct report *report, int status)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *list = cJSON_AddArrayToObject(json, "explanations");

	for (size_t i = 0; i < report->count; i++) {
		const struct found *found = &report->found[i];
		cJSON *item = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(item, "id", found->what->id);
		(void)cJSON_AddStringToObject(item, "class",
					      explain_class_name(found->what->class));
		(void)cJSON_AddStringToObject(item, "meaning", found->what->meaning);
		(void)cJSON_AddStringToObject(item, "action", found->what->action);
		(void)cJSON_AddNumberToObject(item, "count", (double)found->count);
		if (found->example[0] != '\0')
			(void)cJSON_AddStringToObject(item, "example", found->example);
		(void)cJSON_AddItemToArray(list, item);
	}
	(void)cJSON_AddNumberToObject(json, "lines", (double)report->lines);
	(void)cJSON_AddNumberToObject(json, "unexplained", (double)report->unknown.count);
	return ctl_print_json(json, status);
}

/* "a sentence" with its first letter large. */
static void print_sentence(const char *lead, const char *text)
{
	(void)printf("%s%c%s.\n", lead, toupper((unsigned char)text[0]), text + 1);
}

static void print_text(const struct report *report)
{
	for (size_t i = 0; i < report->count; i++) {
		const struct found *found = &report->found[i];

		(void)printf("%s%s (%s)", i > 0 ? "\n" : "", found->what->id,
			     explain_class_name(found->what->class));
		if (report->lines > 1)
			(void)printf(", %ld line%s", found->count, found->count == 1 ? "" : "s");
		print_sentence("\n  ", found->what->meaning);
		print_sentence("  What to do: ", found->what->action);
		if (found->example[0] != '\0' && report->lines > 1)
			(void)printf("  Last: %s\n", found->example);
	}
	if (report->unknown.count > 0)
		(void)printf("%s%ld failure%s that relay365 does not know. Last: %s\n",
			     report->count > 0 ? "\n" : "", report->unknown.count,
			     report->unknown.count == 1 ? "" : "s", report->unknown.example);
	else if (report->count == 0 && report->lines > 1)
		(void)printf("no failure found in %ld lines\n", report->lines);
	else if (report->count == 0)
		(void)fputs("relay365 does not know this error\n", stdout);
}

/* The arguments as one text, so that a log line needs no quotes. */
static char *joined(const struct ctl *ctl)
{
	struct buf text = BUF_INIT(TEXT_MAX);
	char *copy;

	for (int i = 0; i < ctl->argc; i++)
		if (i > 0 || strcmp(ctl->argv[i], "--") != 0)
			(void)buf_addf(&text, "%s%s", text.len > 0 ? " " : "", ctl->argv[i]);
	copy = xstrdup(buf_text(&text));
	buf_clear(&text);
	return copy;
}

int ctl_explain(const struct ctl *ctl)
{
	struct report *report = xcalloc(1, sizeof(*report));
	char *text = joined(ctl);
	struct err err = ERR_INIT;
	struct stat st;
	int status = CTL_OK;

	if (ctl->argc == 0 || strcmp(text, "-") == 0)
		status = add_file(report, "-", &err);
	else if (ctl->argc == 1 && stat(text, &st) == 0 && !S_ISDIR(st.st_mode))
		status = add_file(report, text, &err);
	else if (!add_code(report, text))
		add_line(report, text);
	free(text);
	if (status < 0) {
		status = ctl_print_error(ctl, &err, CTL_PROBLEM);
	} else {
		if (report->count > 1)
			qsort(report->found, report->count, sizeof(report->found[0]), by_count);
		/* A log without failures is well; a text that nobody knows is not. */
		if (report->unknown.count > 0 || (report->count == 0 && report->lines <= 1))
			status = CTL_PROBLEM;
		if (ctl->json)
			status = print_json(report, status);
		else
			print_text(report);
	}
	free(report);
	return status;
}
