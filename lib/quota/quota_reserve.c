#include "quota/quota.h"

#include "base/xalloc.h"
#include "quota/quota_private.h"

enum { NO_PLACE = -1 };

/* place: of the counter's entry, or NO_PLACE. */
static void take(struct quota_message *message, struct counter *counter, int place, int64_t n,
		 int64_t cap, bool waits)
{
	struct quota_entry *entry = place == NO_PLACE ? NULL : &message->entry[place];

	if (entry == NULL) {
		if (message->count == message->cap) {
			message->cap = message->cap == 0 ? 4 : message->cap * 2;
			message->entry = xreallocarray(message->entry, message->cap,
						       sizeof(*message->entry));
		}
		entry = &message->entry[message->count++];
		*entry = (struct quota_entry){.counter = counter};
		counter->refs++;
	}
	entry->n += n;
	entry->cap = cap;
	entry->waits = entry->waits || waits;
	counter->reserved += n;
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
}

/*
 * When there is room, seen from the counter: what others have reserved is
 * taken to be used one window after the other, in the order of arrival.
 */
static void forecast(struct policy_use *use, struct counter *counter, int64_t cap, int64_t now_ms)
{
	int64_t ahead = counter->reserved, whole, part;

	use->room_at_ms = -1;
	use->room = 0;
	if (use->need > cap || cap <= 0)
		return;
	whole = ahead > cap - use->need ? (ahead + use->need - 1) / cap : 0;
	part = ahead + use->need - whole * cap;
	if (part < use->need)
		part = use->need;
	use->room_at_ms = window_room_at(&counter->window, now_ms, cap, part);
	use->room =
		cap - window_used_later(&counter->window, use->room_at_ms) - (part - use->need);
	use->room_at_ms += whole * (counter->window.window_ms + counter->window.width_ms);
}

struct met {
	struct policy_use use[QUOTA_LIMITS_MAX];
	struct counter *counter[QUOTA_LIMITS_MAX];
	int place[QUOTA_LIMITS_MAX]; /* of its entry, or NO_PLACE */
	size_t count;
};

/* The counter of a limit and key: mostly the one that the recipient before met as well. */
static struct counter *counter_for(struct quota_message *message, const struct quota_limit *limit,
				   const char *key, int *place_r)
{
	struct counter *counter;

	for (size_t i = 0; i < message->count; i++) {
		counter = message->entry[i].counter;
		if (counter->limit == limit && strcmp(counter->key, key) == 0) {
			*place_r = (int)i;
			return counter;
		}
	}
	counter = counters_get(&message->quota->counters, limit->name, key, limit->window_ms,
			       QUOTA_COUNTERS_MAX);
	*place_r = NO_PLACE;
	if (counter == NULL)
		return NULL;
	counter->limit = limit;
	/* New limits since the recipient before? The counter may be the same. */
	for (size_t i = 0; i < message->count; i++)
		if (message->entry[i].counter == counter)
			*place_r = (int)i;
	return counter;
}

/* Adds one limit to what the message meets. Returns -1 when its counter can't be made. */
static int meet(struct quota_message *message, const struct quota_limit *limit, const char *key,
		const struct quota_facts *facts, int64_t need, int64_t now_ms, struct met *met)
{
	struct policy_use *use = &met->use[met->count];
	struct counter *counter;
	const struct quota_entry *mine;
	int place;

	use->limit = limit;
	use->key = key;
	use->need = need;
	counter = counter_for(message, limit, key, &place);
	if (counter == NULL)
		return -1;
	mine = place == NO_PLACE ? NULL : &message->entry[place];
	if (mine != NULL && !facts->more &&
	    (limit->count == QUOTA_MESSAGES || limit->count == QUOTA_BYTES))
		return 0; /* the first recipient took it for the whole message */
	use->mine = mine == NULL ? 0 : mine->n;
	use->used = window_used(&counter->window, now_ms) + counter->reserved;
	use->incident = counter->incident;
	if (policy_exceeds(use, facts))
		forecast(use, counter, policy_cap(limit, facts->priority), now_ms);
	met->place[met->count] = place;
	met->counter[met->count++] = counter;
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
	find_limits(message, facts);
	for (size_t i = 0; i < message->mets; i++) {
		const struct quota_limit *limit = message->met[i];
		const char *key = message->keys.key[limit->per];
		int64_t n = policy_need(limit, facts, need);

		if (n <= 0)
			continue;
		if (meet(message, limit, key, facts, n, now_ms, met) < 0) {
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
	policy_decide(met.use, met.count, facts, now_ms, verdict_r);
	if (verdict_r->exceeded)
		verdict_r->room_at_wall_ms = wall_of(quota, verdict_r->room_at_ms);
	if (verdict_r->refused)
		goto out;
	for (size_t i = 0; i < met.count; i++) {
		const struct quota_limit *limit = met.use[i].limit;
		bool waits = limit->action == QUOTA_WAIT && !limit->shadow &&
			     policy_exceeds(&met.use[i], facts);

		take(message, met.counter[i], met.place[i], met.use[i].need,
		     policy_cap(limit, facts->priority), waits);
	}
out:
	if (message->count == 0)
		quota_unhold(message);
	(void)pthread_mutex_unlock(&quota->lock);
}
