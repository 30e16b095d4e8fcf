#include "postfix/edit.h"

#include <ctype.h>

#define WAS "#relay365# " /* before each line that counts no more */
#define BEGIN "# ---- relay365 begin ----"
#define BEGIN_NO_NEWLINE "# ---- relay365 begin, behind a line without end ----"
#define END "# ---- relay365 end ----"
#define NOTE                                                                       \
	"\n# Made by relay365 setup postfix; relay365 setup postfix --undo takes " \
	"it out.\n"

struct line {
	const char *text;
	size_t len; /* with its line feed, if it has one */
};

/* The next line of *at, which goes behind it; false at the end. */
static bool next_line(const char **at, struct line *line)
{
	size_t n = strcspn(*at, "\n");

	if (**at == '\0')
		return false;
	line->text = *at;
	line->len = (*at)[n] == '\n' ? n + 1 : n;
	*at += line->len;
	return true;
}

static bool is(const struct line *line, const char *text)
{
	size_t len = strlen(text);

	return line->len >= len && strncmp(line->text, text, len) == 0 &&
	       (line->len == len || line->text[len] == '\n');
}

static bool begins(const struct line *line, const char *text)
{
	return line->len >= strlen(text) && strncmp(line->text, text, strlen(text)) == 0;
}

/* Comments and empty lines; they may stand inside of a logical line. */
static bool says_nothing(const struct line *line)
{
	size_t n = 0;

	while (n < line->len && isspace((unsigned char)line->text[n]))
		n++;
	return n == line->len || line->text[n] == '#';
}

int edit_undo(const char *text, struct buf *to, struct err *err)
{
	bool inside = false;
	struct line line;

	while (next_line(&text, &line)) {
		bool no_newline = is(&line, BEGIN_NO_NEWLINE);

		if (is(&line, BEGIN) || no_newline) {
			if (inside)
				return err_set(err, ERR_CONFIG, "\"%s\" stands twice", BEGIN);
			inside = true;
			/* We had added this line feed. */
			if (no_newline && to->len > 0)
				to->data[--to->len] = '\0';
		} else if (is(&line, END)) {
			if (!inside)
				return err_set(err, ERR_CONFIG, "\"%s\" stands without \"%s\"",
					       END, BEGIN);
			inside = false;
		} else if (!inside && begins(&line, WAS)) {
			(void)buf_add(to, line.text + strlen(WAS), line.len - strlen(WAS));
		} else if (!inside) {
			(void)buf_add(to, line.text, line.len);
		}
	}
	if (inside)
		return err_set(err, ERR_CONFIG, "\"%s\" has no \"%s\"", BEGIN, END);
	if (to->overflowed)
		return err_set(err, ERR_CONFIG, "the file is larger than %zu bytes", to->max);
	return 0;
}

/*
 * Copies text; each logical line for which replaced() is true becomes a
 * comment, with the lines that continue it.
 */
static void copy(const char *text, bool (*replaced)(const void *arg, const struct line *line),
		 const void *arg, struct buf *to)
{
	bool comment = false;
	struct line line;

	while (next_line(&text, &line)) {
		if (!says_nothing(&line)) {
			if (!isspace((unsigned char)line.text[0]))
				comment = replaced(arg, &line);
			if (comment)
				(void)buf_adds(to, WAS);
		}
		(void)buf_add(to, line.text, line.len);
	}
}

static void begin_block(struct buf *to)
{
	if (to->len > 0 && to->data[to->len - 1] != '\n')
		(void)buf_adds(to, "\n" BEGIN_NO_NEWLINE NOTE);
	else
		(void)buf_adds(to, BEGIN NOTE);
}

/* What we write we must be able to take back, whatever the file held before. */
static int finish(const char *before, struct buf *to, struct err *err)
{
	struct buf again = BUF_INIT(EDIT_MAX);
	int result;

	(void)buf_adds(to, END "\n");
	if (to->overflowed)
		return err_set(err, ERR_CONFIG, "the file is larger than %zu bytes", to->max);
	result = edit_undo(buf_text(to), &again, err);
	if (result == 0 && strcmp(buf_text(&again), before) != 0)
		result = err_set(err, ERR_CONFIG,
				 "the file has lines that begin with \"%s\"; take them out", WAS);
	buf_clear(&again);
	return result;
}

struct parameters {
	const struct edit_parameter *item;
	size_t count;
};

static bool sets_parameter(const void *arg, const struct line *line)
{
	const struct parameters *parameters = arg;
	const char *equals = memchr(line->text, '=', line->len);
	size_t len = equals == NULL ? 0 : (size_t)(equals - line->text);

	while (len > 0 && isspace((unsigned char)line->text[len - 1]))
		len--;
	for (size_t i = 0; i < parameters->count; i++)
		if (strlen(parameters->item[i].name) == len &&
		    strncmp(parameters->item[i].name, line->text, len) == 0)
			return true;
	return false;
}

int edit_main(const char *text, const struct edit_parameter *parameter, size_t count,
	      struct buf *to, struct err *err)
{
	struct parameters parameters = {parameter, count};
	struct buf before = BUF_INIT(EDIT_MAX);
	int result = edit_undo(text, &before, err);

	if (result == 0) {
		copy(buf_text(&before), sets_parameter, &parameters, to);
		begin_block(to);
		for (size_t i = 0; i < count; i++)
			(void)buf_addf(to, "%s = %s\n", parameter[i].name, parameter[i].value);
		result = finish(buf_text(&before), to, err);
	}
	buf_clear(&before);
	return result;
}

/* Whether one of our services begins with the same two words, its name and type. */
static bool defines_service(const void *arg, const struct line *line)
{
	const char *services = arg;
	size_t name = strcspn(line->text, " \t\n");
	size_t gap = strspn(line->text + name, " \t");
	size_t type = strcspn(line->text + name + gap, " \t\n");
	struct line ours;

	while (next_line(&services, &ours))
		if (ours.len > name && ours.text[name] == ' ' &&
		    strncmp(ours.text, line->text, name) == 0 &&
		    strncmp(ours.text + name + 1, line->text + name + gap, type) == 0 &&
		    ours.text[name + 1 + type] == ' ')
			return true;
	return false;
}

int edit_master(const char *text, const char *services, struct buf *to, struct err *err)
{
	struct buf before = BUF_INIT(EDIT_MAX);
	int result = edit_undo(text, &before, err);

	if (result == 0) {
		copy(buf_text(&before), defines_service, services, to);
		begin_block(to);
		(void)buf_adds(to, services);
		result = finish(buf_text(&before), to, err);
	}
	buf_clear(&before);
	return result;
}
