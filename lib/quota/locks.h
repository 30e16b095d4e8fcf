/*
 * Locks: mailboxes that get no sending slot, and sources whose mail is refused,
 * until somebody unlocks them or their time is over. In memory for decisions;
 * a thread writes each change to a file, so that a restart forgets nothing. A
 * file that is damaged is read as far as it can be and moved aside, with a
 * loud line in the log. All functions may be called from any thread.
 *
 * A key is "mailbox:ADDRESS" or "source:NAME", in lower case. Times are the
 * wall clock's: a lock ends when an admin's clock says so.
 */
#ifndef RELAY365_QUOTA_LOCKS_H
#define RELAY365_QUOTA_LOCKS_H

#include "base/err.h"
#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

#define LOCKS_MAX 1000	    /* at once; one more is refused */
#define LOCK_KEY_MAX 328    /* bytes: "mailbox:" and an address */
#define LOCK_REASON_MAX 200 /* bytes: it is told in an SMTP reply */
#define LOCK_WRITE_MS 2000  /* that a slow disk may hold up who locks */

#define LOCK_MAILBOX "mailbox:"
#define LOCK_SOURCE "source:"

struct lock {
	char key[LOCK_KEY_MAX + 1];
	char reason[LOCK_REASON_MAX + 1];
	char by[16]; /* "admin", "microsoft" or "runaway" */
	int64_t since_wall_ms;
	int64_t until_wall_ms; /* 0: until it is unlocked */
};

struct locks;

/* Reads FILE, which may be missing, and starts the writer. The folder must be there. */
struct locks *locks_open(const char *path, struct err *err);

/* Waits for the writer and frees; NULL is fine. */
void locks_close(struct locks **locks);

/*
 * Locks, or changes a lock. It is in force at once. Returns 0 when it is
 * written down, or -1: there are LOCKS_MAX already (ERR_PERM), or it could not
 * be written within wait_ms (ERR_TEMP): it is in force all the same, and
 * written as soon as that works. wait_ms 0: returns 0 without waiting.
 */
int locks_add(struct locks *locks, const struct lock *lock, int wait_ms, struct err *err);

/* Takes a lock away. Returns 1, 0 when there is none, or -1 as above. */
int locks_remove(struct locks *locks, const char *key, int wait_ms, struct err *err);

/*
 * Whether NAME (in any case) is locked; kind is LOCK_MAILBOX or LOCK_SOURCE.
 * lock_r may be NULL. Costs next to nothing as long as there is no lock at all.
 */
bool locks_find(struct locks *locks, const char *kind, const char *name, struct lock *lock_r);

/* Each lock in force, oldest first. Called under a lock: be quick. */
void locks_each(struct locks *locks, void (*each)(void *arg, const struct lock *lock), void *arg);

/* Why the file can't be written ("" when all is well); for status. */
void locks_problem(struct locks *locks, char *text_r, size_t cap);

/*
 * The key that an admin means: "mailbox:" or "source:" with a name, or a name
 * alone that only one of them has. A mailbox may be given by name or address.
 * Behind "source:" may stand what is no source of the configuration: a login,
 * or a client's address.
 */
int locks_key(const struct conf *conf, const char *text, char key_r[LOCK_KEY_MAX + 1],
	      struct err *err);

#endif
