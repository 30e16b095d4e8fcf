/*
 * What must outlive this process and can't wait for a disk: of each mailbox
 * the recipients that were counted and are not yet in the ledger, and how long
 * it is left alone after a quota reply. In shared memory (a file in the run
 * folder, which is not on a disk): writing it is writing memory, and kill -9
 * leaves it to the next tokend. What the machine forgets when it goes down, its
 * end included, is not in it.
 */
#ifndef RELAY365_TOKEN_MEMO_H
#define RELAY365_TOKEN_MEMO_H

#include "base/err.h"

#include <stdint.h>

#define MEMO_PAGES 4096 /* mailboxes; what is noted of more does not outlive the process */

struct memo;

/* One mailbox's. unwritten and its time are delivered.c's, the circuit is the mailbox's. */
struct memo_page {
	char address[332];
	uint32_t circuit_step;	       /* 0: closed */
	int64_t circuit_until_boot_ms; /* the next try */
	int64_t unwritten;	       /* recipients */
	int64_t unwritten_at_ms;       /* when the last was counted, by the ledger's clock */
};

/* Maps FILE, making it when it is missing, of another format or of an earlier boot. */
struct memo *memo_open(const char *path, struct err *err);
void memo_close(struct memo **memo);

/* The page of a mailbox's address, as it was left, or empty; lives as long as the memo. */
struct memo_page *memo_of(struct memo *memo, const char *address);

/* Calls each for the pages that an earlier process left with something unwritten. */
void memo_each_unwritten(struct memo *memo, void (*each)(void *arg, const struct memo_page *page),
			 void *arg);

#endif
