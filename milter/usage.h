/*
 * How much each source sends, by the hour: for naming who fills a limit, and
 * for telling that a source runs away, which is sending far more in an hour
 * than is usual for it. In memory; what is usual is kept in a file as well, so
 * that a restart does not forget it. A help for people and no limit: nothing
 * depends on its being exact. Any thread.
 *
 * Usual is the busiest hour of late: an hour that is busier counts at once, and
 * what is remembered fades by a 256th an hour, to half in a week. So a batch
 * that comes each night, or each week, is usual. A source is judged when it has
 * been known for a day.
 */
#ifndef RELAY365_MILTER_USAGE_H
#define RELAY365_MILTER_USAGE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define USAGE_SOURCES_MAX 50000	 /* remembered at once; more are not watched */
#define USAGE_NAME_MAX 320	 /* bytes of a source's name */
#define USAGE_RUNAWAY_MIN 100	 /* recipients in an hour; less is never running away */
#define USAGE_KNOWN_H 24	 /* hours after which a source is judged */
#define USAGE_FORGET_H (24 * 30) /* hours without mail after which it is forgotten */

struct usage;

/* path: the file, read now if it is there; what can't be read is left out, with a log line. */
struct usage *usage_open(const char *path);
void usage_free(struct usage **usage);

/* Writes the file if an hour has passed since, or now. A slow disk may hold it up. */
void usage_save(struct usage *usage, bool now);

/* How a source does in the present hour. */
struct usage_hour {
	int64_t recipients;
	int64_t usual;
	unsigned int incident; /* it runs away: the incident's number; else 0 */
	bool begins;	       /* just now */
};

/*
 * Counts recipients of a message that is about to be accepted. factor: how many
 * times the usual hour a source may send; 0: nobody runs away. A source that
 * does goes on to until a whole hour is within that.
 */
void usage_add(struct usage *usage, const char *source, const char *mailbox, int64_t n,
	       int64_t factor, struct usage_hour *hour_r);

/* A source and what it sent in the last 24 hours or the present one. */
struct usage_row {
	char source[USAGE_NAME_MAX + 1];
	int64_t recipients;
	int64_t usual;
	unsigned int incident;
	int64_t since_wall_ms; /* of the incident */
};

/* The sources that sent most in 24 hours through a mailbox (NULL: all), most first. */
size_t usage_top(struct usage *usage, const char *mailbox, struct usage_row *row_r, size_t max);

/* Those that run away, with their present hour. */
size_t usage_runaways(struct usage *usage, struct usage_row *row_r, size_t max);

/*
 * Call it every few seconds: when an hour is over, goes on to the next and tells
 * of those that run away no more, at most max of them. Returns how many.
 */
size_t usage_roll(struct usage *usage, int64_t factor, struct usage_row *ended_r, size_t max);

#endif
