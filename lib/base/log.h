/*
 * The log: one line per event, stable keys, the queue id first. Each kind of
 * event stands in events.def with its name, level and meaning; the same line
 * goes out as text or as JSON:
 *
 *	log_begin(&line, EV_ACCEPT, queue_id);
 *	log_str(&line, "mailbox", name);
 *	log_int(&line, "nrcpt", n);
 *	log_end(&line);
 *
 *	4XyZ: accept mailbox=relay nrcpt=12
 *	{"time":"2026-11-23T14:07:05Z","queue_id":"4XyZ","event":"accept",...}
 *
 * Values from outside are made printable and cut at LOG_VALUE_MAX. Secrets
 * have no way in: nothing here takes a struct secret. All functions may be
 * called from any thread once log_open() has returned.
 */
#ifndef RELAY365_BASE_LOG_H
#define RELAY365_BASE_LOG_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

#define LOG_LINE_MAX 2048 /* bytes; a field that does not fit is cut or left out */
#define LOG_VALUE_MAX 512
#define LOG_LATE_MS 20

enum log_event {
#define EVENT(id, name, level, meaning) EV_##id,
#include "base/events.def"
#undef EVENT
	EV_COUNT
};

enum log_level { LOGL_ALARM, LOGL_ERROR, LOGL_WARNING, LOGL_INFO, LOGL_DEBUG };

enum log_target { LOG_TO_STDERR, LOG_TO_SYSLOG };

struct log_line {
	enum log_event event;
	size_t len;
	char text[LOG_LINE_MAX];
};

/* program is kept (not copied). Until called, lines go to standard error as text. */
void log_open(const char *program, enum log_target target, bool json, bool debug);

/* Starts the thread that writes what waits, after log_open(). Without it nothing waits. */
void log_start_writer(void);

/* Writes what waits, and ends the thread. */
void log_stop_writer(void);

void log_begin(struct log_line *line, enum log_event event, const char *queue_id);
void log_str(struct log_line *line, const char *key, const char *value); /* NULL: no field */
void log_mem(struct log_line *line, const char *key, const char *value, size_t len);
void log_int(struct log_line *line, const char *key, int64_t value);
void log_ratio(struct log_line *line, const char *key, int64_t value,
	       int64_t of);						/* "8012/9500" */
void log_time(struct log_line *line, const char *key, int64_t wall_ms); /* RFC 3339 */
void log_end(struct log_line *line);

/*
 * The same for a line that each message causes: between log_start_writer() and
 * log_stop_writer() it may wait up to LOG_LATE_MS for others, so that nobody
 * waits for the log before a reply and many lines go out at once. Lines keep
 * their order: log_end() writes those that wait first. Only for events of
 * level INFO; a process that is killed takes those that wait with it.
 */
void log_end_later(struct log_line *line);

/* An event whose only field is a sentence: text="...". */
void log_say(enum log_event event, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Name and meaning as the manual page gives them. */
const char *log_event_name(enum log_event event);
const char *log_event_meaning(enum log_event event);
enum log_level log_event_level(enum log_event event);

#endif
