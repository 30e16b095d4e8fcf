/*
 * What was accepted since the ledger was last brought up to date: one record a
 * message, in a file that is only appended to. A record is on its way to the
 * disk with one write before the message is answered, so kill -9 takes nothing
 * of it, at a tenth of what a transaction of the ledger costs; a record that
 * was torn, or a gap that was left by one, is told by its checksum.
 *
 * There are two files, PATH.recent-0 and PATH.recent-1, written in turn. Each
 * has a number, one more than the one before, and is written again from the
 * start only when the ledger has all of it (fold.h). A crash at any moment
 * leaves at most two files that the ledger lacks; their numbers tell which.
 *
 * journal_append() by any number of threads at once, but none while
 * journal_switch() runs or the journal is removed or freed; all else belongs
 * to one thread.
 */
#ifndef RELAY365_QUOTA_JOURNAL_H
#define RELAY365_QUOTA_JOURNAL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal;

/* So much more of a counter; its name is not NUL-terminated. */
struct journal_entry {
	const char *name;
	size_t name_len;
	int64_t window_ms;
	int64_t at_ms;
	int64_t n;
};

#define JOURNAL_ENTRIES_MAX 1024 /* of one record */

/* Neither opens nor makes a file: without journal_prepare() and a switch, appends fail. */
struct journal *journal_new(const char *path);
void journal_free(struct journal **journal);

/* Removes both files: the ledger has all of them, and nothing is to come. */
void journal_remove(struct journal *journal);

/* The number of the file that slot 0 or 1 holds; 0: none, or none that was begun. */
uint64_t journal_number(struct journal *journal, int slot);

/* Whether the slot has a file that was begun and can't be read any more. */
bool journal_is_damaged(struct journal *journal, int slot);

/*
 * Makes the file whose turn it is anew, with this number in its head. With probe it
 * must also have room for more than the last one took: else a disk that is just full would
 * seem to be well again each time.
 */
int journal_prepare(struct journal *journal, uint64_t number, bool probe, struct err *err);

/* Appends go to the prepared file from now on. Returns its number. Does not touch the disk. */
uint64_t journal_switch(struct journal *journal);

/* Whether anything was appended since the switch. */
bool journal_is_empty(const struct journal *journal);

/* Its length in bytes. */
int64_t journal_size(const struct journal *journal);

/* A record of these entries. When it fails nothing of it counts. */
int journal_append(struct journal *journal, const struct journal_entry *entries, size_t count,
		   struct err *err);

/*
 * Reads the file with this number and gives the entries of all records that
 * are whole, in blocks; names live as long as the call of each. A call of each that does not
 * return 0 ends it with that value. A file that is not there has no entries.
 */
int journal_read(struct journal *journal, uint64_t number,
		 int (*each)(void *arg, const struct journal_entry *entries, size_t count,
			     struct err *err),
		 void *arg, struct err *err);

#endif
