#include "base/log.h"

#include "base/clock.h"
#include "base/plain.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <syslog.h>
#include <unistd.h>

static struct {
	const char *program;
	enum log_target target;
	bool json;
	bool debug;
} log_conf = {"relay365", LOG_TO_STDERR, false, false};

static const struct {
	const char *name;
	enum log_level level;
	const char *meaning;
} events[EV_COUNT] = {
#define EVENT(id, name, level, meaning) {name, LOGL_##level, meaning},
#include "base/events.def"
#undef EVENT
};

static const int priorities[] = {LOG_ALERT, LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

/* Room kept for what log_end() adds: the closing brace and a line end. */
enum { TAIL = 4 };
/* The least of a long value that is worth a field, and the most of a queue id. */
enum { VALUE_LEAST = 16, QUEUE_ID_MAX = 64 };

void log_open(const char *program, enum log_target target, bool json, bool debug)
{
	log_conf.program = program;
	log_conf.target = target;
	log_conf.json = json;
	log_conf.debug = debug;
	if (target == LOG_TO_SYSLOG)
		openlog(program, LOG_PID | LOG_NDELAY, LOG_MAIL);
}

static bool wanted(const struct log_line *line)
{
	return log_conf.debug || events[line->event].level != LOGL_DEBUG;
}

static void put(struct log_line *line, const char *text, size_t len)
{
	size_t most = sizeof(line->text) - TAIL - line->len;

	if (len > most)
		len = most;
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void puts_(struct log_line *line, const char *text)
{
	put(line, text, strlen(text));
}

static size_t room(const struct log_line *line)
{
	return sizeof(line->text) - TAIL - line->len;
}

/* What is not printable becomes "?"; quotes and backslashes are escaped. */
static void put_quoted(struct log_line *line, const char *value, size_t len)
{
	put(line, "\"", 1);
	for (size_t i = 0; i < len && room(line) > 8;) {
		size_t n = plain_length(value + i, len - i);

		if (value[i] == '"' || value[i] == '\\')
			put(line, "\\", 1);
		put(line, n == 0 ? "?" : value + i, n == 0 ? 1 : n);
		i += n == 0 ? 1 : n;
	}
	put(line, "\"", 1);
}

/* Not a control character, and no blank. */
static bool is_visible(char c)
{
	return (unsigned char)(c - 33) < 127 - 33;
}

static bool needs_quotes(const char *value, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!is_visible(value[i]) || value[i] == '"' || value[i] == '\\')
			return true;
	return len == 0;
}

/* Whether a field with a value of len bytes, quotes not counted, can be added whole. */
static bool fits(const struct log_line *line, const char *name, size_t len)
{
	return strlen(name) + len + 6 <= room(line);
}

/* Only for what fits(). */
static void key(struct log_line *line, const char *name)
{
	char *at = line->text + line->len;

	*at++ = log_conf.json ? ',' : ' ';
	if (log_conf.json)
		*at++ = '"';
	while (*name != '\0')
		*at++ = *name++;
	if (log_conf.json)
		*at++ = '"';
	*at++ = log_conf.json ? ':' : '=';
	line->len = (size_t)(at - line->text);
}

static void put_queue_id(struct log_line *line, const char *id)
{
	size_t len = strnlen(id, QUEUE_ID_MAX);
	char text[QUEUE_ID_MAX];

	for (size_t i = 0; i < len; i++)
		text[i] = is_visible(id[i]) ? id[i] : '?';
	put(line, text, len);
	puts_(line, ": ");
}

void log_begin(struct log_line *line, enum log_event event, const char *queue_id)
{
	char now[CLOCK_TEXT_MAX];

	line->event = event;
	line->len = 0;
	if (!wanted(line))
		return;
	if (log_conf.json) {
		puts_(line, "{\"time\":\"");
		puts_(line, clock_rfc3339(clock_wall_ms(), now));
		puts_(line, "\"");
		log_str(line, "queue_id", queue_id);
		log_str(line, "event", events[event].name);
		return;
	}
	if (log_conf.target == LOG_TO_STDERR) {
		puts_(line, clock_rfc3339(clock_wall_ms(), now));
		puts_(line, " ");
		puts_(line, log_conf.program);
		puts_(line, ": ");
	}
	if (queue_id != NULL)
		put_queue_id(line, queue_id);
	puts_(line, events[event].name);
}

void log_mem(struct log_line *line, const char *name, const char *value, size_t len)
{
	if (value == NULL || !wanted(line))
		return;
	if (len > LOG_VALUE_MAX)
		len = LOG_VALUE_MAX;
	/* Half a field would be a lie, and no JSON: one that has no room is left out. */
	if (!fits(line, name, len < VALUE_LEAST ? len : VALUE_LEAST))
		return;
	key(line, name);
	if (log_conf.json || needs_quotes(value, len) || room(line) < len)
		put_quoted(line, value, len);
	else
		put(line, value, len);
}

void log_str(struct log_line *line, const char *name, const char *value)
{
	if (value != NULL)
		log_mem(line, name, value, strlen(value));
}

/* The digits of a number, from where is returned up to end. */
static char *digits(int64_t value, char *end)
{
	uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

	do
		*--end = (char)('0' + left % 10);
	while ((left /= 10) > 0);
	if (value < 0)
		*--end = '-';
	return end;
}

void log_int(struct log_line *line, const char *name, int64_t value)
{
	char text[24], *end = text + sizeof(text), *from = digits(value, end);

	if (!wanted(line) || !fits(line, name, (size_t)(end - from)))
		return;
	key(line, name);
	put(line, from, (size_t)(end - from));
}

void log_ratio(struct log_line *line, const char *name, int64_t value, int64_t of)
{
	char text[48], *end = text + sizeof(text), *from = digits(of, end);

	*--from = '/';
	from = digits(value, from);
	log_mem(line, name, from, (size_t)(end - from));
}

void log_time(struct log_line *line, const char *name, int64_t wall_ms)
{
	char text[CLOCK_TEXT_MAX];

	log_str(line, name, clock_rfc3339(wall_ms, text));
}

/* Makes the line whole. False: nobody wants it. */
static bool close_line(struct log_line *line)
{
	if (!wanted(line))
		return false;
	if (log_conf.json)
		line->text[line->len++] = '}';
	line->text[line->len++] = '\n';
	return true;
}

static void write_line(int priority, const char *text, size_t len)
{
	if (log_conf.target == LOG_TO_SYSLOG)
		syslog(priority, "%.*s", (int)(len - 1), text);
	else /* one write, so that lines of threads and processes don't mix */
		(void)!write(STDERR_FILENO, text, len);
}

/* Lines of level INFO. */
static void write_lines(const char *text, size_t len)
{
	while (len > 0 && log_conf.target == LOG_TO_SYSLOG) {
		size_t n = (size_t)((const char *)memchr(text, '\n', len) - text) + 1;

		write_line(LOG_INFO, text, n);
		text += n;
		len -= n;
	}
	while (len > 0) {
		ssize_t n = write(STDERR_FILENO, text, len);

		if (n <= 0 && errno != EINTR)
			return;
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
}

/* ---- lines that wait ---- */

enum { WAITING_MAX = 64 * 1024 }; /* bytes */

static struct {
	pthread_mutex_t lock;	/* of all below but text that is being written */
	pthread_mutex_t output; /* keeps lines in order; taken before lock */
	pthread_cond_t come;	/* the first line, or stop */
	char text[2][WAITING_MAX];
	int filling; /* which text; the other is being written */
	size_t len;  /* of it */
	bool running, stop;
	pthread_t thread;
} waiting = {.lock = PTHREAD_MUTEX_INITIALIZER,
	     .output = PTHREAD_MUTEX_INITIALIZER,
	     .come = PTHREAD_COND_INITIALIZER};

/* Under output. */
static void write_waiting(void)
{
	const char *text;
	size_t len;

	(void)pthread_mutex_lock(&waiting.lock);
	text = waiting.text[waiting.filling];
	len = waiting.len;
	waiting.filling = !waiting.filling;
	waiting.len = 0;
	(void)pthread_mutex_unlock(&waiting.lock);
	write_lines(text, len);
}

static void *run_writer(void *unused)
{
	static const struct timespec late = {.tv_nsec = LOG_LATE_MS * 1000000};
	bool stop;

	(void)unused;
	do {
		(void)pthread_mutex_lock(&waiting.lock);
		while (waiting.len == 0 && !waiting.stop)
			(void)pthread_cond_wait(&waiting.come, &waiting.lock);
		stop = waiting.stop;
		(void)pthread_mutex_unlock(&waiting.lock);
		if (!stop)
			(void)nanosleep(&late, NULL);
		(void)pthread_mutex_lock(&waiting.output);
		write_waiting();
		(void)pthread_mutex_unlock(&waiting.output);
	} while (!stop);
	return NULL;
}

void log_start_writer(void)
{
	(void)pthread_mutex_lock(&waiting.lock);
	waiting.stop = false;
	waiting.running = pthread_create(&waiting.thread, NULL, run_writer, NULL) == 0;
	(void)pthread_mutex_unlock(&waiting.lock);
}

void log_stop_writer(void)
{
	(void)pthread_mutex_lock(&waiting.lock);
	if (!waiting.running) {
		(void)pthread_mutex_unlock(&waiting.lock);
		return;
	}
	waiting.running = false;
	waiting.stop = true;
	(void)pthread_cond_signal(&waiting.come);
	(void)pthread_mutex_unlock(&waiting.lock);
	(void)pthread_join(waiting.thread, NULL);
}

/* Whether the line waits now. */
static bool let_wait(const struct log_line *line)
{
	bool room;

	(void)pthread_mutex_lock(&waiting.lock);
	room = waiting.running && line->len <= WAITING_MAX - waiting.len;
	if (room) {
		memcpy(waiting.text[waiting.filling] + waiting.len, line->text, line->len);
		if (waiting.len == 0)
			(void)pthread_cond_signal(&waiting.come);
		waiting.len += line->len;
	}
	(void)pthread_mutex_unlock(&waiting.lock);
	return room;
}

static void write_now(const struct log_line *line)
{
	(void)pthread_mutex_lock(&waiting.output);
	write_waiting();
	write_line(priorities[events[line->event].level], line->text, line->len);
	(void)pthread_mutex_unlock(&waiting.output);
}

void log_end(struct log_line *line)
{
	if (close_line(line))
		write_now(line);
}

void log_end_later(struct log_line *line)
{
	if (close_line(line) && !let_wait(line))
		write_now(line);
}

void log_say(enum log_event event, const char *fmt, ...)
{
	char text[LOG_VALUE_MAX + 1];
	struct log_line line;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_begin(&line, event, NULL);
	log_str(&line, "text", text);
	log_end(&line);
}

const char *log_event_name(enum log_event event)
{
	return events[event].name;
}

const char *log_event_meaning(enum log_event event)
{
	return events[event].meaning;
}

enum log_level log_event_level(enum log_event event)
{
	return events[event].level;
}
