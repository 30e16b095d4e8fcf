/*
 * The vault: refresh tokens, which nothing can replace but a user, and the last
 * access tokens, so that a restart during an outage still sends. One file for
 * each identity under state_dir/tokens/, mode 0600, replaced so that a crash
 * leaves the old or the new content.
 *
 * The loop never waits for the disk: a thread of its own writes.
 */
#ifndef RELAY365_TOKEN_VAULT_H
#define RELAY365_TOKEN_VAULT_H

#include "base/err.h"
#include "base/loop.h"
#include "base/secret.h"

#include <stdint.h>

#define VAULT_NAME_MAX 48 /* bytes: "mailbox-" and a name of the configuration */

struct vault;

struct vault_entry {
	/* What the tokens belong to; those of something else are not taken. */
	const char *owner;
	struct secret refresh; /* not set: none */
	int64_t refreshed_s;   /* when the refresh token was got, since 1970 */
	struct secret access;  /* not set: none */
	int64_t expires_s;
};

/* Starts the writer, which makes the folder when it is missing. */
struct vault *vault_open(struct loop *loop, const char *folder, struct err *err);

/* Writes what is queued, then ends. Nobody is called back any more. */
void vault_close(struct vault **vault);

/*
 * Reads name's entry; at start only, since it waits for the disk. Returns 1
 * when there is one for entry->owner, 0 when not, -1 when its file can't be
 * read or may be read by others. What is read is the caller's to clear.
 */
int vault_read(struct vault *vault, const char *name, struct vault_entry *entry, struct err *err);

/*
 * Queues entry to be written, in place of one for name that is still queued;
 * copies it. done() comes once from the loop, with NULL or what went wrong;
 * it may be NULL.
 */
void vault_write(struct vault *vault, const char *name, const struct vault_entry *entry,
		 void (*done)(void *arg, const char *problem), void *arg);

/* done() will not be called with this arg any more; what is queued is written. */
void vault_forget(struct vault *vault, const void *arg);

#endif
