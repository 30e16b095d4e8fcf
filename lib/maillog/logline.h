/*
 * A line of a mail log taken apart: when, which program, which message, what.
 * Understands syslog's traditional time stamp ("Nov 26 10:38:14", no year, local
 * time), RFC 3339's and ISO 8601's ("2026-11-26T10:38:14.123+01:00", also with
 * "+0100"), as rsyslog, syslog-ng, journalctl, Postfix's own postlogd and the
 * daemons of relay365 on standard error write them. An event of relay365's that was
 * logged as JSON reads as the same event logged as text does. No allocation. Any thread.
 */
#ifndef RELAY365_MAILLOG_LOGLINE_H
#define RELAY365_MAILLOG_LOGLINE_H

#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

#define LOGLINE_MAX 16384 /* bytes of a line that anybody looks at */

/* A piece of the line, or of what is told of it below; not NUL-terminated. data is never NULL. */
struct logtext {
	const char *data;
	size_t len;
};

struct logline {
	int64_t at_ms;		/* wall clock, milliseconds since 1970 */
	struct logtext program; /* "postfix/smtpd", "sm-mta", "relay365-milter" */
	struct logtext pid;	/* empty if there is none */
	struct logtext id;	/* the MTA's queue id; empty if the line has none */
	struct logtext text;	/* what comes behind program and queue id */
	char own[LOG_LINE_MAX]; /* of an event in JSON: text, so the struct can't be copied */
};

/*
 * Takes a line without its line end apart. now_wall_ms tells the year of a time
 * stamp that has none: the latest that is not over a day in the future.
 * Returns false when it is no line of a log.
 */
bool logline_parse(const char *data, size_t len, int64_t now_wall_ms, struct logline *line_r);

/*
 * The value of "key=" in a list "a=1, b=2" as Postfix and Sendmail write it, or
 * in relay365's "a=1 b=2": up to the comma or blank, or what stands in <> or
 * quotes, without these. Returns false when it is not there.
 */
bool logline_value(const struct logline *line, const char *key, struct logtext *value_r);

/* The same, but all that stands behind "key=" to the line's end. */
bool logline_behind(const struct logline *line, const char *key, struct logtext *rest_r);

/* The next address of a list "<a>,<b>", which ends at a blank; takes it from *list. */
bool logline_next_address(struct logtext *list, struct logtext *address_r);

bool logtext_is(const struct logtext *text, const char *other);
bool logtext_begins(const struct logtext *text, const char *other);

/* Copies, cut at cap - 1 bytes, NUL-terminated. Returns to. */
char *logtext_copy(const struct logtext *text, char *to, size_t cap);

#endif
