/*
 * What quota.c (messages and counters), quota_reserve.c (what a recipient takes)
 * and quota_disk.c (the disk) share.
 *
 * lock guards the counters, the clock and the messages, and is never held over
 * a system call that may block. Records of the journal are written without it,
 * by many threads at once; a charge is among the writers from before its record
 * until the counters agree with it. So whoever holds the journal, which keeps
 * writers out, sees the same numbers in memory and on disk (but for counters
 * that owe). The ledger belongs to the thread that ticks.
 */
#ifndef RELAY365_QUOTA_QUOTA_PRIVATE_H
#define RELAY365_QUOTA_QUOTA_PRIVATE_H

#include "base/clock.h"
#include "quota/counters.h"
#include "quota/journal.h"
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
	bool grown; /* has what came on top (quota_facts' more) */
};

struct quota_message {
	struct quota *quota;
	struct quota_entry *entry;
	size_t count, cap;
	/* While there are entries: the facts of the recipient before, and what they meet. */
	struct quota_facts facts;
	uint64_t limits_set; /* quota's then */
	const struct quota_limit *met[QUOTA_LIMITS_MAX];
	int place[QUOTA_LIMITS_MAX]; /* of its entry; -1: none yet */
	size_t mets;
	struct limit_keys keys;
	int64_t touched_boot_ms;
	bool held; /* the entries are in their counters' reserved */
	struct quota_message *next, *prev;
};

/* A counter with an incident. */
struct quota_high {
	struct counter *counter;
	int64_t since_wall_ms;
	int told; /* the percent that quota_incidents() has told of; 0: none yet */
};

struct quota {
	pthread_mutex_t lock;
	struct counters counters;
	struct quota_limit *limit;
	struct limit_index index; /* of limit */
	uint64_t limits_set;	  /* how often */
	struct steady steady;
	bool simulated; /* no disk, and the time is simulated_ms */
	int64_t simulated_ms;
	int64_t boot_ms; /* the boot clock at the last quota_now() */
	char boot_id[40];
	struct quota_message *messages; /* those that hold something */
	struct quota_high *high;
	size_t highs;

	size_t writers;	     /* charges that write to the journal */
	bool held;	     /* somebody wants it alone, or has it */
	pthread_cond_t turn; /* told of changes of these two */

	struct journal *journal; /* NULL: shut */
	char *path;
	/* The last write failed, and that was reported. */
	atomic_bool journal_fails, ledger_fails;

	/* Only quota_tick()'s thread. */
	struct ledger *ledger;	/* NULL: lost, and not opened again yet */
	uint64_t folded;	/* the last journal that the ledger has */
	uint64_t writing;	/* the journal that is appended to */
	int64_t turned_boot_ms; /* since when */
	int64_t ahead_ms;	/* how far the wall clock was ahead of the steady one */
	int64_t marked_boot_ms, maintained_boot_ms;
	bool maintaining;
	size_t owed_slot; /* where to look on for counters that owe */
};

/* Both under lock. wall_r may be NULL. */
int64_t quota_now(struct quota *quota, int64_t *wall_r);
void quota_fill_row(const struct quota *quota, struct counter *counter, int64_t now_ms,
		    int64_t wall_ms, struct quota_row *row_r);

/* Under lock, right after quota_now(): the message's entries are reserved, or no more. */
void quota_hold(struct quota_message *message);
void quota_unhold(struct quota_message *message);

/* Under lock: a counter's use has grown; begins or raises its incident when it is that full. */
void quota_watch_counter(struct quota *quota, struct counter *counter, int64_t used);

/* Waits until nobody writes to the journal, and keeps others from it until it is let go. */
void quota_hold_journal(struct quota *quota);
void quota_let_journal_go(struct quota *quota);

/* As one of the writers: writes a record of these entries. */
int quota_write(struct quota *quota, const struct quota_entry *entries, size_t count,
		struct err *err);

/* Opens ledger and journal and reads them into the (empty) counters. */
int quota_disk_open(struct quota *quota, struct err *err);

#endif
