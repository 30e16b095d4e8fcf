/*
 * A rolling window, exact to one bucket: time is cut into buckets of
 * window/1440 (24 h: a minute each), and whatever was counted stays counted
 * until its whole bucket is older than the window. So what fits may be held
 * back one bucket too long, and no window of that length, wherever it starts,
 * ever holds more than was allowed. Only buckets with something in them are
 * stored. Pure: no clock, no lock, no I/O.
 *
 * What is counted may lie in the future: mail that is accepted to wait counts
 * at the time when it is expected to be sent. It counts from now on and until
 * the window has passed over that time, so several windows' worth of waiting
 * mail line up one window behind the other.
 */
#ifndef RELAY365_QUOTA_WINDOW_H
#define RELAY365_QUOTA_WINDOW_H

#include "base/compat.h"

#include <stdint.h>

#define WINDOW_BUCKETS 1440
#define WINDOW_MIN_MS 1000
#define WINDOW_MAX_MS (31LL * 24 * 3600 * 1000)

struct window_bucket {
	int64_t index; /* start time / width */
	int64_t n;
};

struct window {
	int64_t window_ms;
	int64_t width_ms;
	struct window_bucket *ring; /* oldest first, starting at first, cap a power of two */
	size_t first, count, cap;
	int64_t sum; /* of all buckets in the ring */
};

/* window_ms is brought into WINDOW_MIN_MS ... WINDOW_MAX_MS. */
void window_init(struct window *window, int64_t window_ms);
void window_clear(struct window *window);

/* What counts at this time. Times must not go back between calls (a steady clock). */
int64_t window_used(struct window *window, int64_t now_ms);

/*
 * Counts n at a time that may be older than the newest bucket (a ledger being
 * read) or in the future (mail that waits). n may be 0.
 */
void window_add(struct window *window, int64_t at_ms, int64_t n);

/*
 * The earliest time, now or later, at which use + need is at most max if
 * nothing is added meanwhile; -1 when need is over max: it can never fit.
 */
int64_t window_room_at(struct window *window, int64_t now_ms, int64_t max, int64_t need);

/* What of the present content still counts at a time that is yet to come. */
int64_t window_used_later(const struct window *window, int64_t at_ms);

/* The bucket that a time belongs to. */
int64_t window_index(const struct window *window, int64_t at_ms);

/* A bucket by its place (0 is the oldest): the time of its last millisecond, and its content. */
int64_t window_bucket(const struct window *window, size_t place, int64_t *n_r);

#endif
