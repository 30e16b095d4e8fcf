/*
 * What quota.c (limits and reservations) and quota_disk.c (the ledger) share.
 *
 * Two locks, ledger_lock always taken first. lock guards the counters, the
 * clock and the messages, and is never held over a system call that may block.
 * ledger_lock guards the ledger, and is held from the start of a transaction
 * until the counters agree with it, so that whoever holds both sees the same
 * numbers in memory and on disk (but for counters that owe).
 */
#ifndef RELAY365_QUOTA_QUOTA_PRIVATE_H
#define RELAY365_QUOTA_QUOTA_PRIVATE_H

#include "base/clock.h"
#include "quota/counters.h"
#include "quota/ledger.h"
#include "quota/quota.h"

#include <pthread.h>
#include <stdatomic.h>

struct quota_entry {
	struct counter *counter;
	int64_t n;
	int64_t at_ms; /* set by a charge */
	int64_t cap;   /* of the limit, for this message */
	bool waits;
};

struct quota_message {
	struct quota *quota;
	struct quota_entry *entry;
	size_t count, cap;
	int64_t touched_boot_ms;
	bool held; /* the entries are in their counters' reserved */
	struct quota_message *next, *prev;
};

struct quota {
	pthread_mutex_t lock;
	struct counters counters;
	struct quota_limit *limit;
	size_t limits;
	struct steady steady;
	char boot_id[40];
	struct quota_message *messages; /* those that hold something */

	pthread_mutex_t ledger_lock;
	struct ledger *ledger; /* NULL: lost, and not opened again yet */
	char *path;
	atomic_bool failing; /* the last write failed, and was reported */

	/* Only quota_tick()'s thread. */
	int64_t marked_boot_ms, maintained_boot_ms;
	bool maintaining;
	size_t owed_slot; /* where to look on for counters that owe */
};

/* Both under lock. wall_r may be NULL. */
int64_t quota_now(struct quota *quota, int64_t *wall_r);
void quota_fill_row(struct counter *counter, int64_t now_ms, int64_t wall_ms,
		    struct quota_row *row_r);

/* Under ledger_lock: writes a transaction of these entries. */
int quota_write(struct quota *quota, const struct quota_entry *entries, size_t count,
		struct err *err);

/* Opens the ledger and reads it into the (empty) counters. */
int quota_disk_open(struct quota *quota, struct err *err);

#endif
