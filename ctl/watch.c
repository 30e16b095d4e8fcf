/* relay365 status --watch: the same again every two seconds, on a terminal of any width. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/clock.h"
#include "ctl/waiting.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { EVERY_MS = 2000, COLUMNS_DEFAULT = 80, COLUMNS_MIN = 40, INDENT = 6 };

static size_t columns(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
		return COLUMNS_DEFAULT;
	return size.ws_col < COLUMNS_MIN ? COLUMNS_MIN : size.ws_col;
}

/* Adds a line, broken at spaces where it is too wide; what follows is indented. */
static void add_wrapped(struct buf *to, const char *line, size_t len, size_t width)
{
	size_t room = width;
	bool first = true;

	while (len > room) {
		size_t n = room;

		while (n > 1 && line[n] != ' ')
			n--;
		if (n <= INDENT)
			n = room; /* a word longer than the line */
		(void)buf_addf(to, "%s%.*s\n", first ? "" : "      ", (int)n, line);
		line += n;
		len -= n;
		while (len > 0 && line[0] == ' ') {
			line++;
			len--;
		}
		room = width - INDENT;
		first = false;
	}
	(void)buf_addf(to, "%s%.*s\n", first ? "" : "      ", (int)len, line);
}

static void add_queue(const struct conf *conf, struct buf *text)
{
	const struct conf_list *folders = &conf->queue_directories;
	struct waiting waiting;
	char time[CLOCK_TEXT_MAX];

	(void)buf_addf(text, "relay365 at %s\n", clock_rfc3339(clock_wall_ms(), time));
	if (waiting_count((const char *const *)folders->item, folders->count, &waiting) < 0)
		return;
	(void)buf_addf(text, "queue: %lld message%s for %lld recipients, %lld on hold",
		       waiting.messages, waiting.messages == 1 ? "" : "s", waiting.recipients,
		       waiting.held);
	if (waiting.first_expires_s > 0)
		(void)buf_addf(text, ", the first expires %s",
			       clock_rfc3339(waiting.first_expires_s * 1000, time));
	if (waiting.unread > 0)
		(void)buf_addf(text, "; %zu of %zu queues can't be read", waiting.unread,
			       folders->count);
	(void)buf_adds(text, "\n");
}

static void add_alarms(struct buf *text, const cJSON *status)
{
	static const char *const daemons[] = {"tokend", "milter"};
	const cJSON *alarm;
	bool any = false;

	for (size_t i = 0; i < ARRAY_LEN(daemons); i++)
		cJSON_ArrayForEach (
			alarm,
			cJSON_GetObjectItemCaseSensitive(
				cJSON_GetObjectItemCaseSensitive(status, daemons[i]), "alarms")) {
			(void)buf_addf(text, "%s  %s %s\n", any ? "" : "\nAlarms\n",
				       ctl_text(alarm, "since"), ctl_text(alarm, "what"));
			any = true;
		}
}

/* One picture, cleared before when it goes to a terminal. */
static int show(const struct conf *conf, const cJSON *status)
{
	struct buf text = BUF_INIT(1 << 20), out = BUF_INIT(2 << 20);
	size_t width = columns();
	int result;

	add_queue(conf, &text);
	ctl_status_text(status, &text);
	add_alarms(&text, status);
	for (const char *line = buf_text(&text); line[0] != '\0';) {
		size_t len = strcspn(line, "\n");

		add_wrapped(&out, line, len, width);
		line += len + (line[len] == '\n');
	}
	if (isatty(STDOUT_FILENO) == 1)
		(void)fputs("\033[H\033[2J", stdout); /* home, clear: ECMA-48 */
	(void)fputs(buf_text(&out), stdout);
	result = fflush(stdout);
	buf_clear(&text);
	buf_clear(&out);
	return result == 0 ? 0 : -1;
}

int status_watch(const struct ctl *ctl)
{
	for (;;) {
		cJSON *status = status_read(ctl->conf);
		int result;

		ctl_plain(status);
		result = show(ctl->conf, status);
		cJSON_Delete(status);
		if (result < 0)
			return CTL_PROBLEM;
		(void)poll(NULL, 0, EVERY_MS);
	}
}
