/*
 * Finds the limits that a message meets without looking at all of them: with
 * thousands of mailboxes, or of users with a maximum of their own, most limits
 * are for one key only. Pure, and read by any number of threads.
 */
#ifndef RELAY365_QUOTA_LIMIT_INDEX_H
#define RELAY365_QUOTA_LIMIT_INDEX_H

#include "quota/policy.h"

struct limit_index {
	const struct quota_limit *limit; /* the limits themselves; not owned */
	size_t count;
	const struct quota_limit **general; /* those for every key, in order */
	size_t generals;
	bool keyed[QUOTA_PER_COUNT]; /* whether any is for one key */
	size_t *slot, *next;	     /* place + 1 of the first, or next, with a key; 0: none */
	size_t slots;		     /* a power of two */
};

/* limits must outlive the index; those with a key have it folded. */
void limit_index_make(struct limit_index *index, const struct quota_limit *limits, size_t count);
void limit_index_clear(struct limit_index *index);

/* The first limit behind after (NULL: the first of all) for just this folded key; or NULL. */
const struct quota_limit *limit_index_next(const struct limit_index *index, const char *key,
					   const struct quota_limit *after);

/* What facts say of each key, folded; "" where they say nothing. */
struct limit_keys {
	char key[QUOTA_PER_COUNT][QUOTA_KEY_MAX + 1];
};

/*
 * The limits that a message with these facts meets, in order, whoever its
 * recipients are: at most QUOTA_LIMITS_MAX. Returns their number. keys_r gets
 * the keys that any limit asks for; the others stay unset.
 */
size_t limit_index_meet(const struct limit_index *index, const struct quota_facts *facts,
			struct limit_keys *keys_r,
			const struct quota_limit *met_r[QUOTA_LIMITS_MAX]);

#endif
