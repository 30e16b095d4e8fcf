#include "quota/quota.h"

#include "base/xalloc.h"
#include "quota/quota_private.h"

enum { NO_PLACE = -1 };

/* What one limit that the message meets wants of it: use[i] is of met[which[i]]. */
struct met {
	struct policy_use use[QUOTA_LIMITS_MAX];
	struct counter *counter[QUOTA_LIMITS_MAX];
	size_t which[QUOTA_LIMITS_MAX];
	size_t count;
	bool exceeded; /* any of them */
	bool more;     /* quota_facts' */
};

static struct quota_entry *new_entry(struct quota_message *message, struct counter *counter)
{
	struct quota_entry *entry;

	if (message->count == message->cap) {
		message->cap = message->cap == 0 ? 8 : message->cap * 2;
		message->entry =
			xreallocarray(message->entry, message->cap, sizeof(*message->entry));
	}
	entry = &message->entry[message->count++];
	*entry = (struct quota_entry){.counter = counter};
	counter->refs++;
	return entry;
}

static void take(struct quota_message *message, const struct met *met, size_t i)
{
	const struct policy_use *use = &met->use[i];
	int *place = &message->place[met->which[i]];
	struct quota_entry *entry;

	if (*place == NO_PLACE) {
		*place = (int)message->count;
		entry = new_entry(message, met->counter[i]);
	} else {
		entry = &message->entry[*place];
	}
	entry->n += use->need;
	entry->grown = entry->grown || met->more;
	entry->cap = use->cap;
	if (use->limit->action == QUOTA_WAIT && !use->limit->shadow)
		entry->waits = entry->waits || policy_exceeds(use);
	met->counter[i]->reserved += use->need;
}

static bool same_keys(const struct quota_facts *a, const struct quota_facts *b)
{
	return a->mailbox == b->mailbox && a->tenant == b->tenant && a->source == b->source &&
	       a->sender == b->sender && a->sender_domain == b->sender_domain;
}

/* Which limits the facts meet: mostly those that the recipient before met. */
static void find_limits(struct quota_message *message, const struct quota_facts *facts)
{
	const struct quota *quota = message->quota;

	if (message->count > 0 && message->limits_set == quota->limits_set &&
	    same_keys(&message->facts, facts))
		return;
	message->facts = *facts;
	message->limits_set = quota->limits_set;
	message->mets = limit_index_meet(&quota->index, facts, &message->keys, message->met);
	for (size_t i = 0; i < message->mets; i++)
		message->place[i] = NO_PLACE;
}

/*
 * When there is room, seen from the counter: what is reserved beyond the
 * maximum is taken to be sent one window after the other, in the order of
 * arrival, if it waits; what only warns or is held waits for nobody.
 */
static void forecast(struct policy_use *use, struct counter *counter, int64_t now_ms)
{
	bool waits = use->limit->action == QUOTA_WAIT && !use->limit->shadow;
	int64_t ahead = counter->reserved, cap = use->cap, whole, part;

	use->room_at_ms = -1;
	use->room = 0;
	if (use->need > cap || cap <= 0)
		return;
	if (!waits && ahead > cap - use->need)
		ahead = cap - use->need;
	whole = ahead > cap - use->need ? (ahead + use->need - 1) / cap : 0;
	part = ahead + use->need - whole * cap;
	if (part < use->need)
		part = use->need;
	use->room_at_ms = window_room_at(&counter->window, now_ms, cap, part);
	use->room =
		cap - window_used_later(&counter->window, use->room_at_ms) - (part - use->need);
	use->room_at_ms += whole * (counter->window.window_ms + counter->window.width_ms);
}

/*
 * The counter of the limit met[which]. Where its entry stands is found once, and again when
 * the recipients' mailbox or the limits have changed: the entry may be there all the same.
 */
static struct counter *counter_of(struct quota_message *message, size_t which)
{
	const struct quota_limit *limit = message->met[which];
	struct counter *counter;

	if (message->place[which] != NO_PLACE)
		return message->entry[message->place[which]].counter;
	counter =
		counters_get(&message->quota->counters, limit->name,
			     message->keys.key[limit->per], limit->window_ms, QUOTA_COUNTERS_MAX);
	if (counter == NULL)
		return NULL;
	counter->limit = limit;
	for (size_t i = 0; i < message->count; i++)
		if (message->entry[i].counter == counter)
			message->place[which] = (int)i;
	return counter;
}

/*
 * Whether the message has taken what the limit counts once for all its recipients, whichever
 * their mailboxes: with the first of them, and what came on top of it.
 */
static bool has_all(const struct quota_message *message, size_t which,
		    const struct quota_facts *facts)
{
	enum quota_count count = message->met[which]->count;
	int place = message->place[which];

	return place != NO_PLACE && (!facts->more || message->entry[place].grown) &&
	       (count == QUOTA_MESSAGES || count == QUOTA_BYTES);
}

/* Adds the limit met[which] to what is wanted. Returns -1 when its counter can't be made. */
static int meet(struct quota_message *message, size_t which, const struct quota_facts *facts,
		int64_t need, int64_t now_ms, struct met *met)
{
	const struct quota_limit *limit = message->met[which];
	struct policy_use *use = &met->use[met->count];
	struct counter *counter = counter_of(message, which);

	use->limit = limit;
	use->key = message->keys.key[limit->per];
	use->need = need;
	if (counter == NULL)
		return -1;
	if (has_all(message, which, facts))
		return 0;
	use->mine =
		message->place[which] == NO_PLACE ? 0 : message->entry[message->place[which]].n;
	use->used = window_used(&counter->window, now_ms) + counter->reserved;
	use->incident = counter->incident;
	use->cap = policy_cap(limit, facts->priority);
	if (policy_exceeds(use)) {
		forecast(use, counter, now_ms);
		met->exceeded = true;
	}
	met->counter[met->count] = counter;
	met->which[met->count++] = which;
	return 0;
}

static void crowd(const struct policy_use *use, struct quota_verdict *verdict)
{
	memset(verdict, 0, sizeof(*verdict));
	verdict->exceeded = verdict->refused = verdict->crowded = true;
	verdict->action = QUOTA_DEFER;
	(void)snprintf(verdict->limit, sizeof(verdict->limit), "%s", use->limit->name);
	(void)snprintf(verdict->key, sizeof(verdict->key), "%s", use->key);
	verdict->per = use->limit->per;
	verdict->count = use->limit->count;
	verdict->window_ms = use->limit->window_ms;
	verdict->max = verdict->cap = use->limit->max;
	verdict->need = use->need;
}

/* Under lock. Returns -1 when a counter can't be made, with the verdict set. */
static int meet_all(struct quota_message *message, const struct quota_facts *facts,
		    const struct quota_need *need, int64_t now_ms, struct met *met,
		    struct quota_verdict *verdict)
{
	struct quota *quota = message->quota;

	/* Before the first is found: what has no reservation yet might go. */
	if (quota->counters.count + QUOTA_LIMITS_MAX > QUOTA_COUNTERS_MAX)
		counters_evict(&quota->counters, now_ms);
	met->count = 0;
	met->exceeded = false;
	met->more = facts->more;
	find_limits(message, facts);
	for (size_t i = 0; i < message->mets; i++) {
		int64_t n;

		if (has_all(message, i, facts))
			continue; /* before all else: it is so for most limits and recipients */
		n = policy_need(message->met[i], facts, need);
		if (n <= 0)
			continue;
		if (meet(message, i, facts, n, now_ms, met) < 0) {
			crowd(&met->use[met->count], verdict);
			return -1;
		}
	}
	return 0;
}

/* The wall clock's time at a time that is yet to come; 0 for one that never comes. */
static int64_t wall_of(struct quota *quota, int64_t at_ms)
{
	int64_t wall_ms, now_ms = quota_now(quota, &wall_ms);

	return at_ms < 0 ? 0 : wall_ms + at_ms - now_ms;
}

void quota_reserve(struct quota_message *message, const struct quota_facts *facts,
		   const struct quota_need *need, struct quota_verdict *verdict_r)
{
	struct quota *quota = message->quota;
	int64_t now_ms;
	struct met met;

	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, NULL);
	quota_hold(message);
	if (meet_all(message, facts, need, now_ms, &met, verdict_r) < 0)
		goto out;
	verdict_r->exceeded = verdict_r->refused = false;
	if (met.exceeded) {
		policy_decide(met.use, met.count, facts, now_ms, verdict_r);
		verdict_r->room_at_wall_ms = wall_of(quota, verdict_r->room_at_ms);
	}
	for (size_t i = 0; i < met.count && !verdict_r->refused; i++)
		take(message, &met, i);
out:
	if (message->count == 0)
		quota_unhold(message);
	(void)pthread_mutex_unlock(&quota->lock);
}
