#include "quota/quota.h"

#include "base/log.h"
#include "base/xalloc.h"
#include "quota/quota_private.h"

enum {
	MARK_MS = 60 * 1000,
	MAINTAIN_MS = 10 * 60 * 1000,
	OWED_STEP = 128 /* counters written in one transaction */
};

static void report(struct quota *quota, int rc, const struct err *err)
{
	if (rc < 0 && !quota->failing)
		log_say(EV_LEDGER, "%s", err->text);
	else if (rc == 0 && quota->failing)
		log_say(EV_NOTE, "the ledger %s can be written again", quota->path);
	quota->failing = rc < 0;
}

static int write_entries(struct quota *quota, const struct quota_entry *entries, size_t count,
			 struct err *err)
{
	if (quota->ledger == NULL)
		return err_set(err, ERR_TEMP, "the ledger %s can't be opened", quota->path);
	if (ledger_begin(quota->ledger, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (ledger_add(quota->ledger, entries[i].counter->name,
			       entries[i].counter->window.window_ms, entries[i].at_ms,
			       entries[i].n, err) < 0)
			return -1;
	return ledger_commit(quota->ledger, err);
}

int quota_write(struct quota *quota, const struct quota_entry *entries, size_t count,
		struct err *err)
{
	struct err why = ERR_INIT;
	int rc;

	if (count == 0)
		return 0;
	rc = write_entries(quota, entries, count, &why);
	report(quota, rc, &why);
	if (rc < 0)
		(void)err_set(err, why.class, "%s", why.text);
	return rc;
}

static void load_one(void *arg, const char *name, int64_t window_ms, int64_t at_ms, int64_t n)
{
	struct quota *quota = arg;
	const char *slash = strchr(name, '/');
	char limit[QUOTA_NAME_MAX + 1];
	struct counter *counter;

	if (slash == NULL || (size_t)(slash - name) >= sizeof(limit))
		return;
	memcpy(limit, name, (size_t)(slash - name));
	limit[slash - name] = '\0';
	counter = counters_get(&quota->counters, limit, slash + 1, window_ms, QUOTA_COUNTERS_MAX);
	if (counter != NULL)
		window_add(&counter->window, at_ms, n);
}

static void tell_news(const struct quota *quota, const struct ledger_news *news)
{
	struct log_line line;

	if (news->damaged_as[0] != '\0') {
		log_begin(&line, EV_LEDGER, NULL);
		log_str(&line, "text",
			"the ledger was damaged; it was moved aside and counting starts anew");
		log_str(&line, "damage", news->damage);
		log_str(&line, "moved_to", news->damaged_as);
		log_end(&line);
	} else if (news->created) {
		log_say(EV_NOTE, "there was no ledger; %s is new and empty", quota->path);
	}
}

static void start_clock(struct quota *quota, const struct ledger_news *news)
{
	int64_t wall_ms = clock_wall_ms(), ahead;
	struct log_line line;

	ahead = steady_start(&quota->steady, news->has_mark ? &news->mark : NULL, wall_ms,
			     clock_boot_ms(), quota->boot_id);
	if (ahead <= STEADY_START_JUMP_MS && ahead >= -STEADY_START_JUMP_MS)
		return;
	log_begin(&line, EV_CLOCK, NULL);
	log_str(&line, "text",
		"the wall clock is not where the ledger's clock is; limits go on by the latter, "
		"which follows slowly");
	log_int(&line, "ahead_s", ahead / 1000);
	log_time(&line, "wall", wall_ms);
	log_time(&line, "ledger", quota->steady.at_ms);
	log_end(&line);
}

int quota_disk_open(struct quota *quota, struct err *err)
{
	struct ledger_news news;

	quota->ledger = ledger_open(quota->path, &news, err);
	if (quota->ledger == NULL)
		return -1;
	tell_news(quota, &news);
	start_clock(quota, &news);
	return ledger_load(quota->ledger, load_one, quota, err);
}

/* Under lock: copies the windows of some counters that owe, which stay marked. */
struct owed {
	struct counter *counter[OWED_STEP];
	struct window copy[OWED_STEP];
	size_t count;
};

static void collect_owed(struct quota *quota, struct owed *owed)
{
	owed->count = 0;
	for (size_t i = 0; i < quota->counters.slots && owed->count < OWED_STEP; i++) {
		size_t slot = quota->owed_slot++ & (quota->counters.slots - 1);
		struct counter *c = quota->counters.slot[slot];

		for (; c != NULL && owed->count < OWED_STEP; c = c->next) {
			struct window *copy = &owed->copy[owed->count];

			if (!c->owed)
				continue;
			window_init(copy, c->window.window_ms);
			for (size_t k = 0; k < c->window.count; k++) {
				int64_t n, at_ms = window_bucket(&c->window, k, &n);

				window_add(copy, at_ms, n);
			}
			owed->counter[owed->count++] = c;
		}
	}
}

static int write_owed(struct quota *quota, const struct owed *owed, struct err *err)
{
	if (ledger_begin(quota->ledger, err) < 0)
		return -1;
	for (size_t i = 0; i < owed->count; i++) {
		const char *name = owed->counter[i]->name;
		const struct window *w = &owed->copy[i];

		if (ledger_forget(quota->ledger, name, err) < 0)
			return -1;
		for (size_t k = 0; k < w->count; k++) {
			int64_t n, at_ms = window_bucket(w, k, &n);

			if (ledger_add(quota->ledger, name, w->window_ms, at_ms, n, err) < 0)
				return -1;
		}
	}
	return ledger_commit(quota->ledger, err);
}

/* Under ledger_lock: writes some of what is owed. Returns 1 when there is more, 0, or -1. */
static int pay_some(struct quota *quota, struct err *err)
{
	struct owed *owed;
	int rc;

	(void)pthread_mutex_lock(&quota->lock);
	if (quota->counters.owed == 0) {
		(void)pthread_mutex_unlock(&quota->lock);
		return 0;
	}
	owed = xmalloc(sizeof(*owed));
	collect_owed(quota, owed);
	(void)pthread_mutex_unlock(&quota->lock);
	rc = write_owed(quota, owed, err);
	/* Nobody has freed these meanwhile: a counter that owes is kept. */
	(void)pthread_mutex_lock(&quota->lock);
	for (size_t i = 0; i < owed->count; i++) {
		if (rc == 0)
			counters_owe(&quota->counters, owed->counter[i], false);
		window_clear(&owed->copy[i]);
	}
	if (rc == 0 && quota->counters.owed > 0)
		rc = 1;
	(void)pthread_mutex_unlock(&quota->lock);
	free(owed);
	return rc;
}

/* Under ledger_lock: a ledger that was damaged or removed is opened anew, and owed everything. */
static int reopen(struct quota *quota, struct err *err)
{
	struct ledger_news news;

	if (quota->ledger != NULL && !ledger_is_lost(quota->ledger))
		return 0;
	ledger_close(&quota->ledger);
	quota->ledger = ledger_open(quota->path, &news, err);
	if (quota->ledger == NULL)
		return -1;
	tell_news(quota, &news);
	(void)pthread_mutex_lock(&quota->lock);
	for (size_t i = 0; i < quota->counters.slots; i++)
		for (struct counter *c = quota->counters.slot[i]; c != NULL; c = c->next)
			counters_owe(&quota->counters, c, true);
	(void)pthread_mutex_unlock(&quota->lock);
	return 0;
}

/* Under ledger_lock. */
static int store_mark(struct quota *quota, struct err *err)
{
	struct steady_mark mark;

	(void)pthread_mutex_lock(&quota->lock);
	mark.at_ms = quota_now(quota, NULL);
	mark.boot_ms = clock_boot_ms();
	(void)pthread_mutex_unlock(&quota->lock);
	memcpy(mark.boot_id, quota->boot_id, sizeof(mark.boot_id));
	return ledger_mark(quota->ledger, &mark, err);
}

/* One short piece of work under ledger_lock. Returns 1 when there is more, 0, or -1. */
static int tick_step(struct quota *quota, int64_t boot_ms, struct err *err)
{
	int64_t now_ms;
	int rc;

	if (reopen(quota, err) < 0)
		return -1;
	rc = pay_some(quota, err);
	if (rc != 0)
		return rc;
	/* After a failure this is also the try that tells whether the disk is well again. */
	if (quota->failing || quota->marked_boot_ms == 0 ||
	    boot_ms - quota->marked_boot_ms >= MARK_MS) {
		if (store_mark(quota, err) < 0)
			return -1;
		quota->marked_boot_ms = boot_ms;
	}
	if (!quota->maintaining && boot_ms - quota->maintained_boot_ms < MAINTAIN_MS)
		return 0;
	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, NULL);
	(void)pthread_mutex_unlock(&quota->lock);
	rc = ledger_maintain(quota->ledger, now_ms, err);
	quota->maintaining = rc == 1;
	quota->maintained_boot_ms = boot_ms;
	return rc;
}

bool quota_is_failing(struct quota *quota)
{
	return atomic_load(&quota->failing);
}

void quota_tick(struct quota *quota)
{
	int64_t boot_ms = clock_boot_ms();
	struct ledger *ledger;
	struct err err = ERR_INIT;
	int rc;

	do {
		(void)pthread_mutex_lock(&quota->ledger_lock);
		rc = tick_step(quota, boot_ms, &err);
		if (rc < 0 || quota->failing)
			report(quota, rc, &err);
		ledger = quota->ledger;
		(void)pthread_mutex_unlock(&quota->ledger_lock);
	} while (rc == 1);
	/* Only this thread closes the ledger, so it stays open here. */
	if (rc == 0 && ledger_checkpoint(ledger, &err) < 0) {
		(void)pthread_mutex_lock(&quota->ledger_lock);
		report(quota, -1, &err);
		(void)pthread_mutex_unlock(&quota->ledger_lock);
	}
}

void quota_shut(struct quota *quota)
{
	struct err err = ERR_INIT;
	int rc = 1;

	(void)pthread_mutex_lock(&quota->ledger_lock);
	if (quota->ledger != NULL) {
		while (rc == 1)
			rc = pay_some(quota, &err);
		if (rc == 0)
			rc = store_mark(quota, &err);
		report(quota, rc, &err);
		ledger_close(&quota->ledger);
	}
	(void)pthread_mutex_unlock(&quota->ledger_lock);
}
