/* Which keys use most of each limit, from one look at all counters. */
#ifndef RELAY365_MILTER_FULLEST_H
#define RELAY365_MILTER_FULLEST_H

#include "quota/quota.h"

#define FULLEST_MAX 100 /* keys of a limit */

struct fullest_key {
	char *name;
	int64_t used, reserved;
	int64_t room_at_wall_ms; /* for one more; 0: now */
};

struct fullest_limit {
	struct fullest_key *key; /* the fullest first */
	size_t count, cap;
	size_t in_use; /* keys with any use, those that are not listed too */
};

/* One for each of these limits, which are those that were set last. To be freed below. */
struct fullest_limit *fullest_find(struct quota *quota, const struct quota_limit *limits,
				   size_t count);
void fullest_free(struct fullest_limit **found, size_t count);

#endif
