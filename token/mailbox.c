#include "token/mailbox.h"

#include "token/mailbox_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"

#include <sys/random.h>

/* Grants are this much further apart than the limit asks, since the network moves them. */
enum { PACE_MARGIN_PERCENT = 3 };

/* When to ask again after a refusal that only an admin ends. */
enum { LOCKED_RETRY_MS = 3600 * 1000 };

enum lease_state { LEASE_WANTS_TOKEN, LEASE_WAITS, LEASE_OPEN, LEASE_REFUSED };

struct lease {
	struct mailbox *mailbox;
	enum lease_state state;
	bool chosen; /* was first in the queue and had a slot, but maybe no token any more */
	const struct identity *asked; /* for its token */
	pid_t pid;
	int recipients;
	bool priority;
	bool shared;	   /* as in the book */
	struct slot *slot; /* while open, unless its end was told by name */
	int64_t until_boot_ms;
	struct identity_waiter waiter;
	void (*decided)(void *arg, const struct lease_answer *answer);
	void *arg;
	struct lease *next, *prev; /* while it waits */
};

/* ---- the queue ---- */

/*
 * Behind which one a lease goes: at the end of its own; one that was chosen,
 * before all that were not.
 */
static struct lease *place_of(const struct lease *lease)
{
	struct lease *before = lease->mailbox->last;

	while (before != NULL && !before->chosen &&
	       (lease->chosen || (lease->priority && !before->priority)))
		before = before->prev;
	return before;
}

static void enqueue(struct lease *lease)
{
	struct mailbox *mailbox = lease->mailbox;

	lease->state = LEASE_WAITS;
	lease->prev = place_of(lease);
	lease->next = lease->prev == NULL ? mailbox->first : lease->prev->next;
	if (lease->prev != NULL)
		lease->prev->next = lease;
	else
		mailbox->first = lease;
	if (lease->next != NULL)
		lease->next->prev = lease;
	else
		mailbox->last = lease;
	mailbox->waiting++;
}

static void dequeue(struct lease *lease)
{
	struct mailbox *mailbox = lease->mailbox;

	if (lease->prev != NULL)
		lease->prev->next = lease->next;
	else
		mailbox->first = lease->next;
	if (lease->next != NULL)
		lease->next->prev = lease->prev;
	else
		mailbox->last = lease->prev;
	lease->next = lease->prev = NULL;
	mailbox->waiting--;
}

/* ---- decisions ---- */

static void log_lease(const struct mailbox *mailbox, const char *result, const char *reason)
{
	struct log_line line;

	log_begin(&line, EV_LEASE, NULL);
	log_str(&line, "mailbox", mailbox->name);
	log_str(&line, "result", result);
	log_int(&line, "open", mailbox->open);
	log_int(&line, "waiting", mailbox->waiting);
	log_str(&line, "reason", reason);
	log_end(&line);
}

static void refuse(struct lease *lease, const char *reason, int64_t retry_after_ms)
{
	struct mailbox *mailbox = lease->mailbox;
	const struct lease_answer answer = {NULL, NULL, reason, retry_after_ms};

	lease->state = LEASE_REFUSED;
	mailbox->refused++;
	(void)snprintf(mailbox->problem, sizeof(mailbox->problem), "%s", reason);
	log_lease(mailbox, "later", reason);
	lease->decided(lease->arg, &answer);
}

/* Milliseconds from one grant to the next; 0: the pace is left to others. */
static int64_t spacing(const struct conf_mailbox *conf)
{
	int64_t ms = conf->messages_per_minute == 0 ? 0 : 60000 / conf->messages_per_minute;

	return ms + ms * PACE_MARGIN_PERCENT / 100;
}

/* A name that no lease of this or another tokend has. */
static void name_lease(char name[LEASE_NAME_SIZE])
{
	uint64_t number;

	name[0] = '\0'; /* none is fine: who has none can't tell of it by name */
	if (getrandom(&number, sizeof(number), 0) == (ssize_t)sizeof(number))
		(void)snprintf(name, LEASE_NAME_SIZE, "%016llx", (unsigned long long)number);
}

static void grant(struct lease *lease, const struct identity_token *token)
{
	struct mailbox *mailbox = lease->mailbox;
	struct lease_entry entry = {.address = mailbox->address,
				    .pid = lease->pid,
				    .recipients = lease->recipients,
				    .shared = lease->shared};
	const struct lease_answer answer = {token, entry.name, NULL, 0};

	name_lease(entry.name);
	lease->state = LEASE_OPEN;
	mailbox_open_slot(mailbox, &entry, &lease->slot);
	mailbox->granted++;
	mailbox->problem[0] = '\0';
	mailbox->next_grant_boot_ms = clock_boot_ms() + spacing(mailbox->conf);
	log_lease(mailbox, "ok", NULL);
	lease->decided(lease->arg, &answer);
}

int64_t mailbox_circuit_left_ms(const struct mailbox *mailbox)
{
	int64_t left = mailbox->memo->circuit_until_boot_ms - clock_boot_ms();

	return mailbox->memo->circuit_step == 0 || left < 0 ? 0 : left;
}

/* Whether it is locked; then reason and time are filled in. */
static bool is_locked(const struct mailbox *mailbox, char *reason, size_t cap,
		      int64_t *retry_ms_r)
{
	int64_t now_ms = clock_wall_ms();
	char at[CLOCK_TEXT_MAX];
	struct lock lock;

	if (!locks_find(mailbox->locks, LOCK_MAILBOX, mailbox->address, &lock))
		return false;
	*retry_ms_r = LOCKED_RETRY_MS;
	if (lock.until_wall_ms > 0 && lock.until_wall_ms - now_ms < *retry_ms_r)
		*retry_ms_r = lock.until_wall_ms - now_ms;
	if (lock.until_wall_ms > 0)
		(void)snprintf(reason, cap, "%s is locked until %s: %s", mailbox->address,
			       clock_for_people(lock.until_wall_ms, now_ms, at), lock.reason);
	else
		(void)snprintf(reason, cap,
			       "%s is locked until somebody runs relay365 unlock %s: %s",
			       mailbox->address, mailbox->name, lock.reason);
	return true;
}

/* What of the day's recipients a lease may use. */
static int64_t most_of(const struct conf_mailbox *conf, bool priority)
{
	/* Where nobody is known to have priority, nothing can be kept. */
	return priority || conf->priority_senders.count == 0 ? conf->recipients_per_day
							     : conf_ordinary_recipients(conf);
}

bool mailbox_is_shut(struct mailbox *mailbox, int64_t need, bool priority, char *reason,
		     size_t cap, int64_t *retry_ms_r)
{
	int64_t max, used, room_in;
	char at[CLOCK_TEXT_MAX];

	if (mailbox->conf == NULL) {
		*retry_ms_r = 300000;
		(void)snprintf(reason, cap, "%s is no longer in the configuration",
			       mailbox->address);
		return true;
	}
	if (is_locked(mailbox, reason, cap, retry_ms_r))
		return true;
	*retry_ms_r = mailbox_circuit_left_ms(mailbox);
	if (*retry_ms_r > 0) {
		(void)snprintf(
			reason, cap,
			"%s: Microsoft says its sending quota is exceeded; next try at %s",
			mailbox->address,
			clock_for_people(clock_wall_ms() + *retry_ms_r, clock_wall_ms(), at));
		return true;
	}
	max = most_of(mailbox->conf, priority);
	room_in = delivered_room_in_ms(mailbox->delivered, max, need);
	if (room_in == 0)
		return false;
	used = delivered_used(mailbox->delivered);
	*retry_ms_r = room_in < 0 ? LOCKED_RETRY_MS : room_in;
	if (room_in < 0) {
		(void)snprintf(
			reason, cap,
			"%s: a message to %lld recipients never fits into the %lld of 24 h",
			mailbox->address, (long long)need, (long long)max);
		return true;
	}
	(void)snprintf(reason, cap,
		       "%s: %lld of %lld recipients delivered in 24 h%s; room for %lld at %s",
		       mailbox->address, (long long)used,
		       (long long)mailbox->conf->recipients_per_day,
		       used < mailbox->conf->recipients_per_day &&
				       max < mailbox->conf->recipients_per_day
			       ? ", the rest is kept for priority mail"
			       : "",
		       (long long)need,
		       clock_for_people(clock_wall_ms() + room_in, clock_wall_ms(), at));
	return true;
}

/* Whether a slot is free now; if not, when to look again (0: when a lease ends). */
static bool has_slot(struct mailbox *mailbox, const struct lease *lease, int64_t *look_in_ms_r)
{
	const struct conf_mailbox *conf = mailbox->conf;
	int64_t used = delivered_used(mailbox->delivered);
	int64_t open = mailbox->open;

	*look_in_ms_r = 0;
	if (open >= conf->connections ||
	    used + mailbox->reserved + lease->recipients > most_of(conf, lease->priority))
		return false;
	/* With the circuit half open, one message shows whether Microsoft takes mail again. */
	if (mailbox->memo->circuit_step > 0 && open > 0)
		return false;
	*look_in_ms_r = mailbox->next_grant_boot_ms - clock_boot_ms();
	return *look_in_ms_r <= 0;
}

static void ask_for_token(struct lease *lease)
{
	lease->state = LEASE_WANTS_TOKEN;
	lease->asked = lease->mailbox->identity;
	identity_get(lease->mailbox->identity, &lease->waiter);
}

/* Tells the first in the queue, if it can be told something; false: it must wait on. */
static bool serve_first(struct mailbox *mailbox, int64_t *look_in_ms_r)
{
	struct lease *lease = mailbox->first;
	char reason[512];
	int64_t retry_ms;

	if (mailbox_is_shut(mailbox, lease->recipients, lease->priority, reason, sizeof(reason),
			    &retry_ms)) {
		dequeue(lease);
		refuse(lease, reason, retry_ms);
		return true;
	}
	if (clock_boot_ms() >= lease->until_boot_ms) {
		dequeue(lease);
		refuse(lease, "all sending slots of the mailbox are taken; this passes by itself",
		       5000);
		return true;
	}
	if (!has_slot(mailbox, lease, look_in_ms_r)) {
		int64_t left = lease->until_boot_ms - clock_boot_ms();

		if (*look_in_ms_r <= 0 || *look_in_ms_r > left)
			*look_in_ms_r = left;
		return false;
	}
	/* Ask again at the moment of granting: the token may have ended meanwhile. */
	dequeue(lease);
	lease->chosen = true;
	ask_for_token(lease);
	return true;
}

void mailbox_pump(struct mailbox *mailbox)
{
	int64_t look_in_ms = 0;

	if (mailbox->pumping)
		return; /* the call further up goes on */
	mailbox->pumping = true;
	while (mailbox->first != NULL && serve_first(mailbox, &look_in_ms))
		;
	mailbox->pumping = false;
	if (mailbox->first != NULL)
		loop_timer_in(mailbox->loop, &mailbox->timer, look_in_ms < 1 ? 1 : look_in_ms);
	else
		loop_timer_stop(mailbox->loop, &mailbox->timer);
}

static void on_timer(struct loop_timer *timer)
{
	mailbox_pump(timer->owner);
}

/* The token is there: take the slot, or queue for one. */
static void on_token(struct identity_waiter *waiter, const struct identity_token *token,
		     const char *reason, int64_t retry_after_ms)
{
	struct lease *lease = (struct lease *)((char *)waiter - offsetof(struct lease, waiter));
	struct mailbox *mailbox = lease->mailbox;
	char text[640];
	int64_t wait_ms;

	if (mailbox->identity != lease->asked) {
		/* A reload gave the mailbox another one, which is asked when its turn comes. */
		enqueue(lease);
		mailbox_pump(mailbox);
		return;
	}
	if (token == NULL) {
		(void)snprintf(text, sizeof(text), "no access token for %s: %s", mailbox->address,
			       reason);
		refuse(lease, text, retry_after_ms);
		return;
	}
	if (mailbox->conf != NULL && (lease->chosen || mailbox->first == NULL) &&
	    !mailbox_is_shut(mailbox, lease->recipients, lease->priority, text, sizeof(text),
			     &wait_ms) &&
	    has_slot(mailbox, lease, &wait_ms)) {
		grant(lease, token);
		return;
	}
	enqueue(lease);
	mailbox_pump(mailbox);
}

/* ---- leases ---- */

struct lease *lease_begin(struct mailbox *mailbox, pid_t pid, int recipients, bool priority,
			  void (*decided)(void *arg, const struct lease_answer *answer),
			  void *arg)
{
	struct lease *lease = xcalloc(1, sizeof(*lease));
	char reason[512];
	int64_t retry_ms;

	lease->mailbox = mailbox;
	lease->pid = pid;
	lease->priority = priority;
	lease->shared = recipients > 0;
	lease->recipients = recipients;
	if (recipients == 0 && mailbox->conf != NULL)
		lease->recipients = (int)conf_transaction_recipients(mailbox->conf);
	lease->decided = decided;
	lease->arg = arg;
	lease->until_boot_ms = clock_boot_ms() + LEASE_WAIT_MS;
	lease->waiter.done = on_token;
	mailbox_end_left(mailbox, pid);
	if (mailbox_is_shut(mailbox, lease->recipients, lease->priority, reason, sizeof(reason),
			    &retry_ms))
		refuse(lease, reason, retry_ms);
	else
		ask_for_token(lease);
	return lease;
}

void lease_end(struct lease **lease)
{
	struct lease *l = *lease;
	struct mailbox *mailbox;

	if (l == NULL)
		return;
	mailbox = l->mailbox;
	if (l->state == LEASE_WANTS_TOKEN)
		identity_cancel(&l->waiter);
	else if (l->state == LEASE_WAITS)
		dequeue(l);
	else if (l->slot != NULL)
		mailbox_close_slot(mailbox, l->slot);
	free(l);
	*lease = NULL;
	mailbox_pump(mailbox);
}

void mailbox_get_token(struct mailbox *mailbox, struct identity_waiter *waiter)
{
	if (mailbox->conf == NULL)
		waiter->done(waiter, NULL, "the mailbox is no longer in the configuration",
			     300000);
	else
		identity_get(mailbox->identity, waiter);
}

/* ---- life ---- */

struct mailbox *mailbox_new(const struct mailbox_parts *parts, const struct conf_mailbox *conf,
			    struct identity *identity)
{
	struct mailbox *mailbox = xcalloc(1, sizeof(*mailbox));

	mailbox->loop = parts->loop;
	mailbox->timer.due = on_timer;
	mailbox->timer.owner = mailbox;
	mailbox->left_timer.due = mailbox_look_at_left;
	mailbox->left_timer.owner = mailbox;
	mailbox->book = parts->book;
	mailbox->locks = parts->locks;
	(void)snprintf(mailbox->name, sizeof(mailbox->name), "%s", conf->name);
	mailbox->memo = memo_of(parts->memo, conf->address);
	mailbox->delivered = delivered_mailbox(parts->delivered, conf->address);
	mailbox->conf = conf;
	mailbox->identity = identity;
	mailbox->address = xstrdup(conf->address);
	return mailbox;
}

void mailbox_free(struct mailbox **mailbox)
{
	if (*mailbox == NULL)
		return;
	loop_timer_stop((*mailbox)->loop, &(*mailbox)->timer);
	mailbox_forget_slots(*mailbox);
	free((*mailbox)->address);
	free(*mailbox);
	*mailbox = NULL;
}

void mailbox_configure(struct mailbox *mailbox, const struct conf_mailbox *conf,
		       struct identity *identity)
{
	mailbox->conf = conf;
	mailbox->identity = identity;
	/* What is told of its day has its name, and goes with it. */
	if (conf == NULL || strcmp(conf->name, mailbox->name) != 0)
		mailbox->use_percent = 0;
	if (conf != NULL)
		(void)snprintf(mailbox->name, sizeof(mailbox->name), "%s", conf->name);
	mailbox->trouble[0] = '\0';
	mailbox_pump(mailbox);
}

int64_t mailbox_reset(struct mailbox *mailbox)
{
	int64_t used = delivered_used(mailbox->delivered);

	delivered_reset(mailbox->delivered);
	mailbox_pump(mailbox);
	return used;
}

void mailbox_locked(struct mailbox *mailbox)
{
	mailbox_pump(mailbox);
}

bool mailbox_unlocked(struct mailbox *mailbox)
{
	bool paused = mailbox->memo->circuit_step > 0;

	mailbox->memo->circuit_step = 0;
	mailbox->trouble[0] = '\0';
	mailbox_pump(mailbox);
	return paused;
}

const char *mailbox_name(const struct mailbox *mailbox)
{
	return mailbox->name;
}

const char *mailbox_address(const struct mailbox *mailbox)
{
	return mailbox->address;
}

bool mailbox_is_gone(const struct mailbox *mailbox)
{
	return mailbox->conf == NULL;
}
