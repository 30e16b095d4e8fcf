/*
 * Open leases, written down in shared memory (a file in the run folder, which
 * is not on a disk) so that they outlive this process: an smtp(8) that holds a
 * lease goes on sending when tokend is killed, and the next tokend must leave
 * room for it.
 */
#ifndef RELAY365_TOKEN_LEASE_BOOK_H
#define RELAY365_TOKEN_LEASE_BOOK_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

#define LEASE_BOOK_PAGES \
	4096 /* leases that can be open at once in all; more are not written down */

#define LEASE_NAME_SIZE 17 /* bytes of a lease's name: hexadecimal digits and the NUL */

struct lease_book;

/* Maps FILE, making it when it is missing or of another format. */
struct lease_book *lease_book_open(const char *path, struct err *err);
void lease_book_close(struct lease_book **book);

/* What is written down of a lease. */
struct lease_entry {
	const char *address; /* of the mailbox */
	pid_t pid;	     /* who holds it */
	int recipients;	     /* that it may deliver */
	bool shared; /* the process holds several; one that asks anew has not ended this */
	bool told;   /* that its message was delivered is counted */
	char name[LEASE_NAME_SIZE]; /* what the process calls it, also when it tells another
				       tokend */
};

/* Calls each for what an earlier process left open by a peer that still lives; forgets the rest.
 */
void lease_book_each_left(struct lease_book *book,
			  void (*each)(void *arg, const struct lease_entry *entry, int page),
			  void *arg);

/* Writes a lease down. Returns its page, or -1 when the book is full. */
int lease_book_add(struct lease_book *book, const struct lease_entry *entry);

/* Writes down that its message is counted; -1 is fine. */
void lease_book_tell(struct lease_book *book, int page);

/* From now on nothing is struck out: who holds a lease goes on sending when we end. */
void lease_book_freeze(struct lease_book *book);

/* Strikes it out; -1 is fine. */
void lease_book_strike(struct lease_book *book, int page);

#endif
