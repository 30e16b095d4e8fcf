/*
 * What was counted, on disk: a SQLite file in WAL mode, synchronous=NORMAL,
 * so that kill -9 takes nothing that was committed. A row is (counter, end of
 * the bucket) -> n. The milter writes a journal before it (journal.h); what
 * the ledger has of that, it notes itself.
 *
 * The file belongs to the process that has it open: another one, sqlite3(1)
 * included, is told "database is locked".
 *
 * A handle is used by one thread at a time, except ledger_checkpoint(), which
 * has a connection of its own and belongs to another thread; nobody may be in
 * it at ledger_close(). A damaged file is moved aside (FILE.damaged-TIME),
 * reported, and a new one begun. Only ledger.c includes sqlite3.h.
 */
#ifndef RELAY365_QUOTA_LEDGER_H
#define RELAY365_QUOTA_LEDGER_H

#include "base/clock.h"
#include "base/err.h"

#include <stdbool.h>

#define LEDGER_SCHEMA 2
#define LEDGER_NAME_MAX 384 /* bytes of a counter's name: limit, "/" and key */

struct ledger;

/* What ledger_open() had to do. */
struct ledger_news {
	bool created;
	char damaged_as[512]; /* where a damaged file was moved to; "" when it was sound */
	char damage[256];     /* what was wrong with it */
	bool has_mark;
	struct steady_mark mark; /* the clock when it was last written */
	uint64_t folded;	 /* the last journal that is in it; 0: none */
};

/*
 * Opens or creates. Returns NULL with the reason when not even a new file can
 * be made, or when a newer program wrote it (ERR_CONFIG: it is left alone).
 */
struct ledger *ledger_open(const char *path, struct ledger_news *news_r, struct err *err);
void ledger_close(struct ledger **ledger);

/*
 * Calls each for every bucket that is stored: the counter's name, its window,
 * the bucket's last millisecond and what was counted in it. Counters come one
 * after another, buckets oldest first.
 */
int ledger_load(struct ledger *ledger,
		void (*each)(void *arg, const char *name, int64_t window_ms, int64_t at_ms,
			     int64_t n),
		void *arg, struct err *err);

/*
 * A transaction: begin, add, forget and set_folded..., commit. When a call fails
 * the transaction is rolled back and nothing of it counts. add() counts n in the
 * bucket of at_ms, whose width follows from the window; forget() drops all that
 * a counter has; set_folded() notes the last journal that is in the ledger.
 */
int ledger_begin(struct ledger *ledger, struct err *err);
int ledger_add(struct ledger *ledger, const char *name, int64_t window_ms, int64_t at_ms,
	       int64_t n, struct err *err);
int ledger_forget(struct ledger *ledger, const char *name, struct err *err);
int ledger_set_folded(struct ledger *ledger, uint64_t journal, struct err *err);
int ledger_commit(struct ledger *ledger, struct err *err);
void ledger_rollback(struct ledger *ledger);

/* Stores the clock. Outside of a transaction. */
int ledger_mark(struct ledger *ledger, const struct steady_mark *now, struct err *err);

/*
 * Forgets buckets that ended before their window began, and counters without
 * any; a part of the file at each call, so that others wait for it only shortly.
 * Returns 1 when there is more to look at, 0 when it was the last part, or -1.
 */
int ledger_maintain(struct ledger *ledger, int64_t now_ms, struct err *err);

/* Moves the WAL into the file, bounding what power loss can take. From its own thread. */
int ledger_checkpoint(struct ledger *ledger, struct err *err);

/*
 * Writes a copy of the ledger at path, as it was last committed, to a new file,
 * while it is in use. From any thread of the process that has it open.
 */
int ledger_backup(const char *path, const char *to, struct err *err);

/* Whether a call has found the file damaged or replaced: close and open again. */
bool ledger_is_lost(struct ledger *ledger);

#endif
