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
	limit_index_clear(&q->index);
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
	struct limit_index index, old_index;
	char key[QUOTA_KEY_MAX + 1];
	struct window window;

	for (size_t i = 0; i < count; i++) {
		copy[i] = limits[i];
		counters_fold(limits[i].key, key);
		memcpy(copy[i].key, key, sizeof(key));
		window_init(&window, limits[i].window_ms);
		copy[i].window_ms = window.window_ms; /* within its bounds */
	}
	limit_index_make(&index, copy, count);
	/* Not while a charge is between the disk and the counters: windows may change. */
	quota_hold_journal(quota);
	(void)pthread_mutex_lock(&quota->lock);
	old = quota->limit;
	old_index = quota->index;
	quota->limit = copy;
	quota->index = index;
	quota->limits_set++;
	counters_link(&quota->counters, &index);
	(void)pthread_mutex_unlock(&quota->lock);
	quota_let_journal_go(quota);
	limit_index_clear(&old_index);
	free(old);
}

struct quota_message *quota_message_new(struct quota *quota)
{
	struct quota_message *message = xmalloc(sizeof(*message));

	/* The rest is set with the first entry. */
	message->quota = quota;
	message->entry = NULL;
	message->count = message->cap = 0;
	message->held = false;
	message->next = message->prev = NULL;
	return message;
}

void quota_hold(struct quota_message *message)
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

void quota_unhold(struct quota_message *message)
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

	quota_unhold(message);
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
	quota_unhold(message);
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
		quota_unhold(m);
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

void quota_fill_row(const struct quota *quota, struct counter *counter, int64_t now_ms,
		    int64_t wall_ms, struct quota_row *row_r)
{
	int64_t room_at = now_ms;

	row_r->limit = counter->limit;
	row_r->place = counter->limit == NULL ? 0 : (size_t)(counter->limit - quota->limit);
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
			quota_fill_row(quota, c, now_ms, wall_ms, &row);
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
			quota_fill_row(quota, c, now_ms, wall_ms, &row);
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
		quota_fill_row(quota, counter, now_ms, wall_ms, row_r);
	(void)pthread_mutex_unlock(&quota->lock);
	row_r->limit = NULL; /* both may go any time */
	row_r->key = NULL;
}
