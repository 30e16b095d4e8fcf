#include "quota/quota.h"

#include "base/xalloc.h"
#include "quota/quota_private.h"

enum { SWEEP_SLOTS = 1024 }; /* looked at without letting others in */

int64_t quota_now(struct quota *quota, int64_t *wall_r)
{
	if (quota->simulated) {
		quota->boot_ms = quota->simulated_ms;
		if (wall_r != NULL)
			*wall_r = quota->simulated_ms;
		return quota->simulated_ms;
	}
	if (wall_r != NULL)
		*wall_r = clock_wall_ms();
	quota->boot_ms = clock_boot_ms();
	return steady_now(&quota->steady, quota->boot_ms);
}

static struct quota *quota_new(void)
{
	struct quota *quota = xcalloc(1, sizeof(*quota));

	(void)pthread_mutex_init(&quota->lock, NULL);
	(void)pthread_cond_init(&quota->turn, NULL);
	counters_init(&quota->counters);
	return quota;
}

struct quota *quota_simulate(const struct quota_limit *limits, size_t count)
{
	struct quota *quota = quota_new();

	quota->simulated = true;
	quota_set_limits(quota, limits, count);
	return quota;
}

void quota_set_time(struct quota *quota, int64_t wall_ms)
{
	quota->simulated_ms = wall_ms;
}

struct quota *quota_open(const char *ledger_path, const struct quota_limit *limits, size_t count,
			 struct err *err)
{
	struct quota *quota = quota_new();

	quota->path = xstrdup(ledger_path);
	clock_boot_id(quota->boot_id);
	if (quota_disk_open(quota, err) < 0) {
		quota_close(&quota);
		return NULL;
	}
	quota_set_limits(quota, limits, count);
	return quota;
}

void quota_close(struct quota **quota)
{
	struct quota *q = *quota;

	if (q == NULL)
		return;
	quota_shut(q);
	counters_clear(&q->counters);
	free(q->limit);
	free(q->high);
	free(q->path);
	(void)pthread_mutex_destroy(&q->lock);
	(void)pthread_cond_destroy(&q->turn);
	free(q);
	*quota = NULL;
}

void quota_set_limits(struct quota *quota, const struct quota_limit *limits, size_t count)
{
	struct quota_limit *copy = xcalloc(count, sizeof(*copy)), *old;
	char key[QUOTA_KEY_MAX + 1];
	struct window window;

	for (size_t i = 0; i < count; i++) {
		copy[i] = limits[i];
		counters_fold(limits[i].key, key);
		memcpy(copy[i].key, key, sizeof(key));
		window_init(&window, limits[i].window_ms);
		copy[i].window_ms = window.window_ms; /* within its bounds */
	}
	/* Not while a charge is between the disk and the counters: windows may change. */
	quota_hold_journal(quota);
	(void)pthread_mutex_lock(&quota->lock);
	old = quota->limit;
	quota->limit = copy;
	quota->limits = count;
	counters_link(&quota->counters, copy, count);
	(void)pthread_mutex_unlock(&quota->lock);
	quota_let_journal_go(quota);
	free(old);
}

struct quota_message *quota_message_new(struct quota *quota)
{
	struct quota_message *message = xmalloc(sizeof(*message));

	/* All but the keys' text. */
	message->quota = quota;
	memset(message->keys.of, 0, sizeof(message->keys.of));
	message->entry = NULL;
	message->count = message->cap = 0;
	message->held = false;
	message->next = message->prev = NULL;
	return message;
}

/* Right after quota_now(). */
static void hold(struct quota_message *message)
{
	struct quota *quota = message->quota;

	message->touched_boot_ms = quota->boot_ms;
	if (message->held)
		return;
	message->held = true;
	for (size_t i = 0; i < message->count; i++)
		message->entry[i].counter->reserved += message->entry[i].n;
	message->prev = NULL;
	message->next = quota->messages;
	if (message->next != NULL)
		message->next->prev = message;
	quota->messages = message;
}

static void unhold(struct quota_message *message)
{
	if (!message->held)
		return;
	message->held = false;
	for (size_t i = 0; i < message->count; i++)
		message->entry[i].counter->reserved -= message->entry[i].n;
	if (message->next != NULL)
		message->next->prev = message->prev;
	if (message->prev != NULL)
		message->prev->next = message->next;
	else
		message->quota->messages = message->next;
	message->next = message->prev = NULL;
}

static void forget_entries(struct quota_message *message)
{
	for (size_t i = 0; i < message->count; i++)
		message->entry[i].counter->refs--;
	message->count = 0;
}

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

static const char *key_for(struct quota_keys *keys, const struct quota_limit *limit,
			   const struct quota_facts *facts)
{
	const char *key = policy_key(limit, facts);

	if (key == NULL)
		return NULL;
	if (keys->of[limit->per] != key) {
		counters_fold(key, keys->text[limit->per]);
		keys->of[limit->per] = key;
	}
	return keys->text[limit->per];
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
	if (quota->counters.count + quota->limits > QUOTA_COUNTERS_MAX)
		counters_evict(&quota->counters, now_ms);
	met->count = 0;
	if (message->count == 0)
		memset(message->keys.of, 0, sizeof(message->keys.of));
	for (size_t i = 0; i < quota->limits && met->count < QUOTA_LIMITS_MAX; i++) {
		const struct quota_limit *limit = &quota->limit[i];
		int64_t n = policy_need(limit, facts, need);
		const char *key = n <= 0 ? NULL : key_for(&message->keys, limit, facts);

		if (key == NULL || (limit->key[0] != '\0' && strcmp(limit->key, key) != 0) ||
		    policy_excepts(limit, key))
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
	hold(message);
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
		unhold(message);
	(void)pthread_mutex_unlock(&quota->lock);
}

/* When each entry counts: now, or, for what waits, when the last of its limits has room. */
static void set_times(struct quota_message *message, int64_t now_ms)
{
	int64_t latest = now_ms;

	for (size_t i = 0; i < message->count; i++) {
		struct quota_entry *e = &message->entry[i];
		int64_t at_ms;

		if (!e->waits)
			continue;
		at_ms = window_room_at(&e->counter->window, now_ms, e->cap,
				       e->n < e->cap ? e->n : e->cap);
		if (at_ms > latest)
			latest = at_ms;
	}
	for (size_t i = 0; i < message->count; i++)
		message->entry[i].at_ms = message->entry[i].waits ? latest : now_ms;
}

/* Under lock: what was reserved is use now. */
static void count_entries(struct quota_message *message, bool stored, struct quota_use *fullest)
{
	struct quota *quota = message->quota;
	int64_t now_ms = quota_now(quota, NULL);

	unhold(message);
	for (size_t i = 0; i < message->count; i++) {
		struct quota_entry *e = &message->entry[i];
		const struct quota_limit *limit = e->counter->limit;
		int64_t used;

		/* Accepted is it when the answer goes out, however long the disk took. */
		window_add(&e->counter->window, e->at_ms < now_ms ? now_ms : e->at_ms, e->n);
		if (!stored)
			counters_owe(&quota->counters, e->counter, true);
		used = window_used(&e->counter->window, now_ms);
		if (limit == NULL || limit->max <= 0)
			continue;
		quota_watch_counter(quota, e->counter, used);
		if (fullest->limit[0] == '\0' ||
		    (double)used / (double)limit->max >
			    (double)fullest->used / (double)fullest->max) {
			memcpy(fullest->limit, limit->name, sizeof(fullest->limit));
			fullest->used = used;
			fullest->max = limit->max;
			fullest->incident = e->counter->incident;
		}
	}
	forget_entries(message);
}

void quota_hold_journal(struct quota *quota)
{
	(void)pthread_mutex_lock(&quota->lock);
	while (quota->held)
		(void)pthread_cond_wait(&quota->turn, &quota->lock);
	quota->held = true;
	while (quota->writers > 0)
		(void)pthread_cond_wait(&quota->turn, &quota->lock);
	(void)pthread_mutex_unlock(&quota->lock);
}

void quota_let_journal_go(struct quota *quota)
{
	(void)pthread_mutex_lock(&quota->lock);
	quota->held = false;
	(void)pthread_cond_broadcast(&quota->turn);
	(void)pthread_mutex_unlock(&quota->lock);
}

int quota_charge(struct quota_message *message, bool unstored_too, struct quota_use *use_r,
		 struct err *err)
{
	struct quota *quota = message->quota;
	struct quota_use fullest = {.limit = ""};
	int rc;

	(void)pthread_mutex_lock(&quota->lock);
	while (quota->held)
		(void)pthread_cond_wait(&quota->turn, &quota->lock);
	quota->writers++;
	set_times(message, quota_now(quota, NULL));
	(void)pthread_mutex_unlock(&quota->lock);

	rc = quota->simulated ? 0 : quota_write(quota, message->entry, message->count, err);

	(void)pthread_mutex_lock(&quota->lock);
	if (rc == 0 || unstored_too)
		count_entries(message, rc == 0, &fullest);
	if (--quota->writers == 0 && quota->held)
		(void)pthread_cond_broadcast(&quota->turn);
	(void)pthread_mutex_unlock(&quota->lock);
	if (use_r != NULL)
		*use_r = fullest;
	return rc < 0 && unstored_too ? 1 : rc;
}

void quota_release(struct quota_message *message)
{
	if (message->count == 0)
		return;
	(void)pthread_mutex_lock(&message->quota->lock);
	unhold(message);
	forget_entries(message);
	(void)pthread_mutex_unlock(&message->quota->lock);
}

void quota_message_free(struct quota_message **message)
{
	if (*message == NULL)
		return;
	quota_release(*message);
	free((*message)->entry);
	free(*message);
	*message = NULL;
}

size_t quota_sweep(struct quota *quota, int64_t older_than_ms)
{
	int64_t oldest = clock_boot_ms() - older_than_ms;
	struct quota_message *next;
	size_t n = 0, i = 0;

	(void)pthread_mutex_lock(&quota->lock);
	for (struct quota_message *m = quota->messages; m != NULL; m = next) {
		next = m->next;
		if (m->touched_boot_ms > oldest)
			continue;
		unhold(m);
		n++;
	}
	while (i < quota->counters.slots) {
		int64_t now_ms = quota_now(quota, NULL);

		for (size_t end = i + SWEEP_SLOTS; i < end && i < quota->counters.slots; i++)
			counters_prune(&quota->counters, i, now_ms);
		(void)pthread_mutex_unlock(&quota->lock);
		(void)pthread_mutex_lock(&quota->lock);
	}
	(void)pthread_mutex_unlock(&quota->lock);
	return n;
}

void quota_fill_row(struct counter *counter, int64_t now_ms, int64_t wall_ms,
		    struct quota_row *row_r)
{
	int64_t room_at = now_ms;

	row_r->limit = counter->limit;
	row_r->key = counter->key;
	row_r->used = window_used(&counter->window, now_ms);
	row_r->reserved = counter->reserved;
	if (counter->limit != NULL)
		room_at = window_room_at(&counter->window, now_ms, counter->limit->max, 1);
	row_r->room_at_wall_ms = room_at <= now_ms ? 0 : wall_ms + room_at - now_ms;
}

void quota_each(struct quota *quota, void (*each)(void *arg, const struct quota_row *row),
		void *arg)
{
	int64_t now_ms, wall_ms;
	struct quota_row row;

	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, &wall_ms);
	for (size_t i = 0; i < quota->counters.slots; i++) {
		for (struct counter *c = quota->counters.slot[i]; c != NULL; c = c->next) {
			if (c->limit == NULL)
				continue;
			quota_fill_row(c, now_ms, wall_ms, &row);
			each(arg, &row);
		}
	}
	(void)pthread_mutex_unlock(&quota->lock);
}

static bool is_to_reset(const struct counter *counter, const char *limit_name, int per,
			const char *folded)
{
	const struct quota_limit *limit = counter->limit;

	return limit != NULL && strcmp(counter->key, folded) == 0 &&
	       (limit_name == NULL || strcmp(limit->name, limit_name) == 0) &&
	       (per < 0 || (int)limit->per == per);
}

size_t quota_reset(struct quota *quota, const char *limit_name, int per, const char *key,
		   void (*each)(void *arg, const struct quota_row *row), void *arg)
{
	char folded[QUOTA_KEY_MAX + 1];
	int64_t now_ms, wall_ms;
	struct quota_row row;
	size_t n = 0;

	counters_fold(key, folded);
	/* Not while a charge is between the disk and the counters: it would owe less than it has.
	 */
	quota_hold_journal(quota);
	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, &wall_ms);
	for (size_t i = 0; i < quota->counters.slots; i++) {
		for (struct counter *c = quota->counters.slot[i]; c != NULL; c = c->next) {
			if (!is_to_reset(c, limit_name, per, folded) ||
			    window_used(&c->window, now_ms) == 0)
				continue;
			quota_fill_row(c, now_ms, wall_ms, &row);
			if (each != NULL)
				each(arg, &row);
			window_clear(&c->window);
			counters_owe(&quota->counters, c, true);
			n++;
		}
	}
	(void)pthread_mutex_unlock(&quota->lock);
	quota_let_journal_go(quota);
	return n;
}

void quota_look(struct quota *quota, const char *limit_name, const char *key,
		struct quota_row *row_r)
{
	char folded[QUOTA_KEY_MAX + 1];
	struct counter *counter;
	int64_t now_ms, wall_ms;

	memset(row_r, 0, sizeof(*row_r));
	counters_fold(key, folded);
	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, &wall_ms);
	counter = counters_find(&quota->counters, limit_name, folded);
	if (counter != NULL)
		quota_fill_row(counter, now_ms, wall_ms, row_r);
	(void)pthread_mutex_unlock(&quota->lock);
	row_r->limit = NULL; /* both may go any time */
	row_r->key = NULL;
}
