/*
 * The counters of quota.c: a hash table from (limit, key) to a window and its
 * reservations. Names are "limit/key", keys case-folded (ASCII only; other
 * bytes stay). No lock: quota.c holds its own around every call.
 */
#ifndef RELAY365_QUOTA_COUNTERS_H
#define RELAY365_QUOTA_COUNTERS_H

#include "quota/limit_index.h"
#include "quota/window.h"

struct counter {
	struct counter *next;
	uint64_t hash;
	const struct quota_limit *limit; /* NULL: no such limit at present; the use is kept */
	struct window window;
	int64_t reserved;
	unsigned int refs;     /* messages that point here: it must stay */
	bool owed;	       /* the ledger does not have all of it */
	uint16_t incident;     /* the number of the one that lasts; 0: none */
	unsigned char percent; /* the highest that it has told of: 80 or 95 */
	const char *key;       /* in name, behind the limit's name and "/" */
	size_t name_len;
	char name[];
};

struct counters {
	struct counter **slot;
	size_t slots; /* a power of two */
	size_t count;
	size_t owed;
	uint64_t seed[2]; /* unknown outside: senders choose keys */
	size_t hand;	  /* where to look for counters that can go */
};

void counters_init(struct counters *table);
void counters_clear(struct counters *table);

/* Lower case, and bounded: what is longer than QUOTA_KEY_MAX ends in a hash of the whole. */
void counters_fold(const char *key, char out[QUOTA_KEY_MAX + 1]);

/* By limit and folded key; NULL when there is none. */
struct counter *counters_find(const struct counters *table, const char *limit_name,
			      const char *key);

/* Finds or makes; NULL when max counters are there. The window of a new one is window_ms long. */
struct counter *counters_get(struct counters *table, const char *limit_name, const char *key,
			     int64_t window_ms, size_t max);

void counters_owe(struct counters *table, struct counter *counter, bool owed);

/* Connects every counter with its limit; a window whose length has changed is counted over. */
void counters_link(struct counters *table, const struct limit_index *index);

/*
 * Frees some counters that count nothing, if it finds any: looks at a part of
 * the table, the next one at the next call. One that has use in its window, or
 * a reservation, is never forgotten.
 */
void counters_evict(struct counters *table, int64_t now_ms);

/* Frees the counters of a slot that count nothing at this time. */
void counters_prune(struct counters *table, size_t slot, int64_t now_ms);

#endif
