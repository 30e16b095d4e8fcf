/*
 * Limits and their use: who may send how much, reserved when a recipient is
 * named, charged when the message is accepted, released when it is not.
 *
 * A limit has a key (per), a measure (count), a maximum, a window and an
 * action. A message meets every limit whose key it has; all counters of a
 * message are checked and then added to under one lock, so that two messages
 * can't both take the last room. policy.h holds the pure decision; this
 * module holds the counters. All functions may be called from any thread,
 * but a struct quota_message by one thread at a time.
 */
#ifndef RELAY365_QUOTA_QUOTA_H
#define RELAY365_QUOTA_QUOTA_H

#include "base/err.h"
#include "quota/policy.h"

#define QUOTA_COUNTERS_MAX \
	500000 /* counters in memory; a new one beyond is refused as "try later" */

struct quota;
struct quota_message; /* what one message has reserved */

/*
 * Opens the ledger and reads it. limits are copied. A new ledger, damage and
 * jumps of the clock are reported through the log (EV_LEDGER, EV_CLOCK).
 */
struct quota *quota_open(const char *ledger_path, const struct quota_limit *limits, size_t count,
			 struct err *err);
/*
 * The same without a disk, and with a clock that only quota_set_time() moves:
 * to replay what has happened. Everything decides and counts as ever.
 */
struct quota *quota_simulate(const struct quota_limit *limits, size_t count);

/* The wall clock of a simulation. Times must not go back. */
void quota_set_time(struct quota *quota, int64_t wall_ms);

/* quota_shut(), and frees. No message may be left. */
void quota_close(struct quota **quota);

/*
 * Stores the clock and what is owed, and closes the ledger: charges fail from
 * now on. quota_tick() must not run any more, all else may.
 */
void quota_shut(struct quota *quota);

/* New limits (after a reload). Counters of limits that stay keep their use. */
void quota_set_limits(struct quota *quota, const struct quota_limit *limits, size_t count);

struct quota_message *quota_message_new(struct quota *quota);

/*
 * Reserves for one recipient under all limits that these facts meet, or under
 * none of them: when verdict_r says refused nothing was reserved; otherwise the
 * need is. While the message holds anything the strings of facts, but for the
 * recipient, stay where and what they are.
 */
void quota_reserve(struct quota_message *message, const struct quota_facts *facts,
		   const struct quota_need *need, struct quota_verdict *verdict_r);

/* The use of the limit that is fullest, for the log. */
struct quota_use {
	char limit[QUOTA_NAME_MAX + 1]; /* "": the message meets no limit */
	int64_t used;
	int64_t max;
	unsigned int incident; /* of this limit and key; 0: none */
};

/*
 * Turns what is reserved into use and stores it before it returns. What a
 * limit lets wait counts at the time when it is expected to be sent, all else
 * now. When it can't be stored: with unstored_too it counts in memory all the
 * same and is written as soon as the ledger can be (returns 1); without, the
 * reservations are kept: release them or charge again (returns -1). err says
 * why in both cases. use_r may be NULL.
 */
int quota_charge(struct quota_message *message, bool unstored_too, struct quota_use *use_r,
		 struct err *err);

/* Gives back what is reserved; idempotent. The message can be used anew. */
void quota_release(struct quota_message *message);

/* Releases and frees. */
void quota_message_free(struct quota_message **message);

/*
 * Gives back the reservations of messages that were not touched for so long:
 * sessions that libmilter has forgotten. Such a message can still be charged.
 * Also forgets counters that count nothing. Returns how many messages.
 */
size_t quota_sweep(struct quota *quota, int64_t older_than_ms);

/*
 * All that has to do with the disk and no message: writes what is owed, opens
 * a ledger anew that was damaged or removed, checkpoints, and now and then
 * stores the clock and prunes. Call it once a second, from one thread that may
 * be held up by a slow disk.
 */
void quota_tick(struct quota *quota);

/*
 * Incidents: a limit is nearly full for one key. One begins with 80 % of the
 * maximum, grows at 95 % and ends below 70 %, so that a use that goes up and
 * down around a mark is told once. Verdicts and quota_use carry its number.
 */
#define QUOTA_FULL_PERCENT 80
#define QUOTA_FULLER_PERCENT 95
#define QUOTA_REARM_PERCENT 70
#define QUOTA_INCIDENTS_MAX 1000 /* at once; what comes on top is not told */

enum quota_incident_state {
	QUOTA_INCIDENT_LASTS,
	QUOTA_INCIDENT_BEGINS,
	QUOTA_INCIDENT_GROWS,
	QUOTA_INCIDENT_ENDS
};

struct quota_incident {
	enum quota_incident_state state;
	unsigned int number; /* 1 to 65535, random: people tell them apart by it */
	int percent;	     /* QUOTA_FULL_PERCENT or QUOTA_FULLER_PERCENT, the highest reached */
	char limit[QUOTA_NAME_MAX + 1];
	char key[QUOTA_KEY_MAX + 1];
	enum quota_per per;
	enum quota_count count;
	int64_t used, max, window_ms;
	bool shadow;
	int64_t since_wall_ms;
	int64_t full_at_wall_ms; /* forecast.h's guess; 0: not soon */
};

/*
 * The incidents, to be freed. news_only: those that have begun, grown or ended
 * since the last such call, for the one who tells the admin; without, all that
 * last, for status, and nothing changes.
 */
size_t quota_incidents(struct quota *quota, bool news_only, struct quota_incident **list_r);

/*
 * After a start: begins the incidents of what was counted before. Those of one
 * source or sender are no news then: there may be many, and nobody sends.
 */
void quota_watch_all(struct quota *quota);

/*
 * Copies the ledger, as quota_tick() has last left it (seconds ago), to its path with
 * ".backup" behind, in place of an older copy. Any thread that may wait for the disk.
 * Returns the path, the caller's to free, or NULL.
 */
char *quota_backup(const struct quota *quota, struct err *err);

/* Whether what was accepted can't be written down at present. */
bool quota_is_failing(struct quota *quota);

/* For status: each counter of each limit. Called under the lock: be quick. */
struct quota_row {
	const struct quota_limit *limit;
	size_t place; /* of the limit among those that were set */
	const char *key;
	int64_t used, reserved;
	int64_t room_at_wall_ms; /* for one more; 0: now */
};
void quota_each(struct quota *quota, void (*each)(void *arg, const struct quota_row *row),
		void *arg);

/*
 * Sets the counters of a key (in any case) to zero, of one limit or (NULL) of
 * all, of limits with this per or (-1) of all. What is reserved stays. The
 * ledger has it at the next quota_tick(): a crash before that only brings the
 * use back. each is told what every counter had; NULL: nobody is. Returns how
 * many had anything.
 */
size_t quota_reset(struct quota *quota, const char *limit_name, int per, const char *key,
		   void (*each)(void *arg, const struct quota_row *row), void *arg);

/* One counter, as quota_each() would tell it; zeros when nothing is counted. */
void quota_look(struct quota *quota, const char *limit_name, const char *key,
		struct quota_row *row_r);

#endif
