/*
 * The delivered ledger: how many recipients Microsoft has accepted for each
 * mailbox, in memory for decisions and on disk for the next start. The loop
 * never waits for the disk: a thread of its own writes what is queued. What is
 * queued stands in the memo as well, so that kill -9 takes nothing of it; at
 * worst what was just written is counted twice.
 */
#ifndef RELAY365_TOKEN_DELIVERED_H
#define RELAY365_TOKEN_DELIVERED_H

#include "token/memo.h"

#include <stdint.h>

#define DELIVERED_WINDOW_MS \
	(24LL * 3600 * 1000) /* Microsoft's recipient rate: 24 hours, sliding */

struct delivered;	  /* the ledger */
struct delivered_mailbox; /* one mailbox's count */

/*
 * Opens FOLDER/delivered.db, reads it, counts what an earlier process noted in
 * memo and had no time to write down, and starts the writer. memo is used until
 * delivered_close().
 */
struct delivered *delivered_open(const char *folder, struct memo *memo, struct err *err);

/* Writes what is queued, then closes. */
void delivered_close(struct delivered **delivered);

/* The count of a mailbox's address; made when it is new; lives as long as the ledger. */
struct delivered_mailbox *delivered_mailbox(struct delivered *delivered, const char *address);

/* Recipients in the last 24 hours. */
int64_t delivered_used(struct delivered_mailbox *mailbox);

/*
 * Says that so many may be added any moment: if we are killed from now on, the
 * next process counts them. Taken back with -n, when they were added or won't be.
 */
void delivered_announce(struct delivered_mailbox *mailbox, int64_t n);

void delivered_add(struct delivered_mailbox *mailbox, int64_t n);

/* Sets the count to zero, here and on disk. */
void delivered_reset(struct delivered_mailbox *mailbox);

/* Milliseconds until use + need is at most max; 0: now; -1: never. */
int64_t delivered_room_in_ms(struct delivered_mailbox *mailbox, int64_t max, int64_t need);

/* Now and then, from the loop: what the clock says, for the next start. */
void delivered_tick(struct delivered *delivered);

/* What the writer could not store so far ("" when all is well); for status. */
void delivered_problem(struct delivered *delivered, char *text_r, size_t cap);

#endif
