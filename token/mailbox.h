/*
 * A mailbox as tokend sees it: who may send with it now. A lease is a sending
 * slot with a token, granted when
 *
 *   - delivered + what the open leases and this one may deliver <= the limit,
 *   - fewer than `connections` leases are open,
 *   - the pace of `messages_per_minute`, if there is one, allows it (evenly spaced), and
 *   - its identity has a token,
 *
 * first come, first served, but those with priority before the others, who also
 * leave the reserve to them. What passes in seconds (pace, connections) makes
 * the asker wait; what lasts (locked, full, no token, quota reply of
 * Microsoft's) is said at once. Leases end when their connection does.
 */
#ifndef RELAY365_TOKEN_MAILBOX_H
#define RELAY365_TOKEN_MAILBOX_H

#include "token/delivered.h"
#include "token/identity.h"
#include "token/lease_book.h"

#include "base/loop.h"
#include "conf/conf.h"
#include "quota/locks.h"

/* The SASL plugin gives up after 30 s; the answer must be there before. */
#define LEASE_WAIT_MS 25000

/* Longer than an SMTP transaction with a large message takes; Microsoft ends sessions at 20 min.
 */
#define LEASE_LEFT_MS (20 * 60 * 1000)

struct mailbox;
struct lease;

/* How a lease was decided; strings live until the callback returns. */
struct lease_answer {
	const struct identity_token *token; /* NULL: not granted */
	const char *name;		    /* of the lease, with a token */
	const char *reason;
	int64_t retry_after_ms;
};

/* What all mailboxes use, and must outlive them. */
struct mailbox_parts {
	struct loop *loop;
	struct memo *memo;
	struct delivered *delivered;
	struct lease_book *book;
	struct locks *locks;
};

/* Runtime state of conf's mailbox; conf and identity as in identity_new(). */
struct mailbox *mailbox_new(const struct mailbox_parts *parts, const struct conf_mailbox *conf,
			    struct identity *identity);
void mailbox_free(struct mailbox **mailbox);

/* After a reload; conf NULL: the mailbox is gone, its leases run out, no new ones. */
void mailbox_configure(struct mailbox *mailbox, const struct conf_mailbox *conf,
		       struct identity *identity);

const char *mailbox_name(const struct mailbox *mailbox);
const char *mailbox_address(const struct mailbox *mailbox);
bool mailbox_is_gone(const struct mailbox *mailbox);

void mailbox_locked(struct mailbox *mailbox);

/* What Microsoft refused before is tried again. Returns whether a pause after a quota reply ends.
 */
bool mailbox_unlocked(struct mailbox *mailbox);

/*
 * Asks for a lease for the process pid. recipients: how many it will deliver;
 * 0: not known, as many as a transaction may carry. priority: it comes before
 * those without, and may use what is kept for it. decided() comes once, maybe
 * from inside this call. The lease exists until lease_end(), whether granted,
 * waiting or refused.
 */
struct lease *lease_begin(struct mailbox *mailbox, pid_t pid, int recipients, bool priority,
			  void (*decided)(void *arg, const struct lease_answer *answer),
			  void *arg);
void lease_end(struct lease **lease);

/*
 * A lease that an earlier tokend granted to a process that still lives: it
 * counts as open until that process tells of its end or that its message is
 * delivered, asks again (if it holds one only), ends, or LEASE_LEFT_MS pass.
 */
void mailbox_add_left(struct mailbox *mailbox, const struct lease_entry *entry, int page);

/*
 * One that this process holds is about to end, as it has delivered a message,
 * to so many recipients. For who tells no name.
 */
void mailbox_left_ends(struct mailbox *mailbox, pid_t pid, int recipients);

/* Ends an open lease, of this or an earlier tokend, by its name; one that is no more is fine. */
void mailbox_end_lease(struct mailbox *mailbox, const char *name);

/*
 * Notes that the message of the lease with this name is delivered, if status says
 * so, and tells whether it was noted before: it counts once however often it is
 * told while the lease lasts.
 */
enum lease_told { LEASE_UNKNOWN, LEASE_TOLD, LEASE_TOLD_BEFORE };
enum lease_told mailbox_tell(struct mailbox *mailbox, const char *name, const char *status);

/* A token without a slot: for `relay365 token` and other programs that take one. */
void mailbox_get_token(struct mailbox *mailbox, struct identity_waiter *waiter);

/*
 * The delivery status of so many recipients, as the MTA is about to record it.
 * Returns true and a better text (same format: "4.7.0 ...") when this one hides
 * its cause. Does not count what is delivered: see mailbox_count().
 */
bool mailbox_status(struct mailbox *mailbox, const char *status, int recipients, char *better_r,
		    size_t cap);

/*
 * Around the answer to the MTA: the recipients count when their status says
 * that Microsoft took them, and when the answer could be given. Without one
 * smtp(8) asks again, and must not be counted twice. Killed in between, they count.
 */
void mailbox_announce(struct mailbox *mailbox, const char *status, int recipients);
void mailbox_count(struct mailbox *mailbox, const char *status, int recipients, bool answered);

/* Sets what was delivered to zero; returns what it was. */
int64_t mailbox_reset(struct mailbox *mailbox);

/* For status; see relay365-control(7). */
cJSON *mailbox_status_json(struct mailbox *mailbox);

/* Now and then: tells when the day is nearly full, and when it has room again. */
void mailbox_watch_use(struct mailbox *mailbox);

#endif
