#include "quota/quota.h"

#include "base/log.h"
#include "base/xalloc.h"
#include "quota/fold.h"
#include "quota/quota_private.h"

#include <errno.h>

enum {
	USUAL = 8, /* entries that most messages have at most */
	CLOCK_STEP_MS = 10 * 1000,
	MARK_MS = 60 * 1000,
	MAINTAIN_MS = 10 * 60 * 1000,
	/* A journal that is longer is folded later: many of its messages fall into one row then.
	 */
	FOLD_SOON = 64 * 1024, /* bytes, some 200 messages */
	FOLD_LATE_MS = 5 * 1000,
	OWED_STEP = 128 /* counters written in one transaction */
};

/* Tells the first failure, and the end of a series of them. */
static void report(struct quota *quota, atomic_bool *failing, int rc, const struct err *err)
{
	bool failed = rc < 0;

	if (atomic_exchange(failing, failed) == failed)
		return;
	if (failed)
		log_say(EV_LEDGER, "%s", err->text);
	else
		log_say(EV_NOTE, "the ledger %s can be written again", quota->path);
}

int quota_write(struct quota *quota, const struct quota_entry *entries, size_t count,
		struct err *err)
{
	struct journal_entry usual[USUAL], *part = usual;
	struct err why = ERR_INIT;
	int rc;

	if (count == 0)
		return 0;
	if (quota->journal == NULL)
		return err_set(err, ERR_TEMP, "the ledger %s is closed", quota->path);
	if (count > ARRAY_LEN(usual))
		part = xcalloc(count, sizeof(*part));
	for (size_t i = 0; i < count; i++) {
		const struct counter *counter = entries[i].counter;

		part[i] = (struct journal_entry){counter->name, counter->name_len,
						 counter->window.window_ms, entries[i].at_ms,
						 entries[i].n};
	}
	rc = journal_append(quota->journal, part, count, &why);
	if (part != usual)
		free(part);
	report(quota, &quota->journal_fails, rc, &why);
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

static void tell_news(const struct quota *quota, const struct ledger_news *news,
		      const char *sequel)
{
	struct log_line line;
	char text[160];

	if (news->damaged_as[0] != '\0') {
		log_begin(&line, EV_LEDGER, NULL);
		(void)snprintf(text, sizeof(text),
			       "the ledger was damaged; it was moved aside, and %s", sequel);
		log_str(&line, "text", text);
		log_str(&line, "damage", news->damage);
		log_str(&line, "moved_to", news->damaged_as);
		log_end(&line);
	} else if (news->created) {
		log_say(EV_NOTE, "there was no ledger; %s is new and empty", quota->path);
	}
}

static void tell_clock(enum log_event event, const char *text, int64_t wall_ms, int64_t steady_ms)
{
	struct log_line line;

	log_begin(&line, event, NULL);
	log_str(&line, "text", text);
	log_int(&line, "ahead_s", (wall_ms - steady_ms) / 1000);
	log_time(&line, "wall", wall_ms);
	log_time(&line, "ledger", steady_ms);
	log_end(&line);
}

static bool is_jump(int64_t ms)
{
	return ms > STEADY_START_JUMP_MS || ms < -STEADY_START_JUMP_MS;
}

static void start_clock(struct quota *quota, const struct ledger_news *news)
{
	int64_t wall_ms = clock_wall_ms(), ahead;

	ahead = steady_start(&quota->steady, news->has_mark ? &news->mark : NULL, wall_ms,
			     clock_boot_ms(), quota->boot_id);
	quota->ahead_ms = wall_ms - quota->steady.at_ms;
	if (is_jump(ahead))
		tell_clock(EV_CLOCK,
			   "the wall clock says that another time has passed since the last run "
			   "than "
			   "can be; limits go on by what has certainly passed",
			   wall_ms, quota->steady.at_ms);
}

/* A step of the wall clock changes nothing, but somebody may wonder about times in the log. */
static void watch_clock(struct quota *quota)
{
	int64_t wall_ms, now_ms, step_ms;

	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, &wall_ms);
	(void)pthread_mutex_unlock(&quota->lock);
	step_ms = wall_ms - now_ms - quota->ahead_ms;
	if (step_ms < CLOCK_STEP_MS && step_ms > -CLOCK_STEP_MS)
		return;
	quota->ahead_ms = wall_ms - now_ms;
	tell_clock(is_jump(step_ms) ? EV_CLOCK : EV_NOTE,
		   "the wall clock was set; limits go on as if it had not been", wall_ms, now_ms);
}

static int fold(struct quota *quota, uint64_t number, struct err *err)
{
	if (fold_journal(quota->ledger, quota->journal, number, err) < 0)
		return -1;
	quota->folded = number;
	return 0;
}

/* Folds what a crash has left, the older file first. */
static int fold_left(struct quota *quota, struct err *err)
{
	uint64_t number[2] = {journal_number(quota->journal, 0),
			      journal_number(quota->journal, 1)};
	int older = number[1] < number[0];

	for (int i = 0; i < 2; i++) {
		uint64_t n = number[older ^ i];

		if (journal_is_damaged(quota->journal, i))
			log_say(EV_LEDGER,
				"%s.recent-%d is damaged: mail that was accepted in the last "
				"seconds before the end is not counted",
				quota->path, i);

		if (n > quota->folded && fold(quota, n, err) < 0)
			return -1;
	}
	return 0;
}

/* The number that comes after all that were used. */
static uint64_t next_number(const struct quota *quota)
{
	return (quota->writing > quota->folded ? quota->writing : quota->folded) + 1;
}

/* Begins the next file of the journal; the one before can be folded then. */
static int turn_over(struct quota *quota, struct err *err)
{
	if (journal_prepare(quota->journal, next_number(quota), quota->journal_fails, err) < 0)
		return -1;
	quota_hold_journal(quota);
	quota->writing = journal_switch(quota->journal);
	quota_let_journal_go(quota);
	quota->turned_boot_ms = clock_boot_ms();
	return 0;
}

/* Whether the journal that is written to is to be folded now. */
static bool is_due(const struct quota *quota)
{
	if (quota->journal_fails)
		return true;
	return !journal_is_empty(quota->journal) &&
	       (journal_size(quota->journal) <= FOLD_SOON ||
		clock_boot_ms() - quota->turned_boot_ms >= FOLD_LATE_MS);
}

/* Folds the file that is not written any more, if the ledger does not have it. */
static int fold_done(struct quota *quota, struct err *err)
{
	if (quota->folded + 1 >= quota->writing)
		return 0;
	return fold(quota, quota->writing - 1, err);
}

static int store_mark(struct quota *quota, struct err *err)
{
	struct steady_mark mark;

	(void)pthread_mutex_lock(&quota->lock);
	mark.at_ms = quota_now(quota, &mark.wall_ms);
	mark.boot_ms = clock_boot_ms();
	(void)pthread_mutex_unlock(&quota->lock);
	memcpy(mark.boot_id, quota->boot_id, sizeof(mark.boot_id));
	return ledger_mark(quota->ledger, &mark, err);
}

int quota_disk_open(struct quota *quota, struct err *err)
{
	struct ledger_news news;
	struct err why = ERR_INIT;

	quota->ledger = ledger_open(quota->path, &news, err);
	if (quota->ledger == NULL)
		return -1;
	tell_news(quota, &news, "counting starts anew");
	start_clock(quota, &news);
	quota->folded = news.folded;
	quota->journal = journal_new(quota->path);
	if (fold_left(quota, err) < 0 || ledger_load(quota->ledger, load_one, quota, err) < 0) {
		/* Without a ledger quota_shut() leaves the journal to the next start. */
		ledger_close(&quota->ledger);
		return -1;
	}
	/* With a full disk these fail, and go on failing until there is room. */
	report(quota, &quota->journal_fails, turn_over(quota, &why), &why);
	/* Before anything is counted: after a crash nobody else knows where this clock began. */
	if (store_mark(quota, &why) == 0)
		quota->marked_boot_ms = quota->boot_ms;
	return 0;
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

/* With the journal held and all of it folded. Returns 1 when there is more, 0, or -1. */
static int pay_some(struct quota *quota, struct err *err)
{
	struct owed *owed = xmalloc(sizeof(*owed));
	int rc;

	(void)pthread_mutex_lock(&quota->lock);
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

static bool owes(struct quota *quota)
{
	bool yes;

	(void)pthread_mutex_lock(&quota->lock);
	yes = quota->counters.owed > 0;
	(void)pthread_mutex_unlock(&quota->lock);
	return yes;
}

/* With the journal held: folds the little that came since the last fold, and pays. */
static int fold_and_pay(struct quota *quota, struct err *err)
{
	if (!journal_is_empty(quota->journal)) {
		if (journal_prepare(quota->journal, next_number(quota), quota->journal_fails,
				    err) < 0)
			return -1;
		quota->writing = journal_switch(quota->journal);
		if (fold_done(quota, err) < 0)
			return -1;
	}
	return pay_some(quota, err);
}

/*
 * Brings the ledger up to date: with the journal, and with counters whose use
 * the journal does not have. Those are written as they are in memory, so the
 * ledger must have all of the journal then, and nothing be appended meanwhile.
 * Returns 1 when there is more, 0, or -1.
 */
static int catch_up(struct quota *quota, struct err *err)
{
	int rc;

	if (fold_done(quota, err) < 0)
		return -1;
	if (is_due(quota)) {
		if (turn_over(quota, err) < 0)
			return -1;
		report(quota, &quota->journal_fails, 0, NULL);
		if (fold_done(quota, err) < 0)
			return -1;
	}
	if (!owes(quota))
		return 0;
	quota_hold_journal(quota);
	rc = fold_and_pay(quota, err);
	quota_let_journal_go(quota);
	return rc;
}

/* A ledger that was damaged or removed is opened anew, and owed everything. */
static int reopen(struct quota *quota, struct err *err)
{
	struct ledger_news news;

	if (quota->ledger != NULL && !ledger_is_lost(quota->ledger))
		return 0;
	ledger_close(&quota->ledger);
	quota->ledger = ledger_open(quota->path, &news, err);
	if (quota->ledger == NULL)
		return -1;
	tell_news(quota, &news, "a new one is written from memory");
	quota->folded = news.folded;
	(void)pthread_mutex_lock(&quota->lock);
	for (size_t i = 0; i < quota->counters.slots; i++)
		for (struct counter *c = quota->counters.slot[i]; c != NULL; c = c->next)
			counters_owe(&quota->counters, c, true);
	(void)pthread_mutex_unlock(&quota->lock);
	return 0;
}

/* One piece of work. Returns 1 when there is more, 0, or -1. */
static int tick_step(struct quota *quota, int64_t boot_ms, struct err *err)
{
	int64_t now_ms;
	int rc;

	watch_clock(quota);
	if (reopen(quota, err) < 0)
		return -1;
	rc = catch_up(quota, err);
	if (rc != 0)
		return rc;
	/* After a failure this is also the try that tells whether the disk is well again. */
	if (quota->ledger_fails || quota->marked_boot_ms == 0 ||
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

char *quota_backup(const struct quota *quota, struct err *err)
{
	char *fresh = xasprintf("%s.backup.new", quota->path);
	char *path = xasprintf("%s.backup", quota->path);
	int rc = ledger_backup(quota->path, fresh, err);

	if (rc == 0 && rename(fresh, path) < 0)
		rc = err_set(err, ERR_TEMP, "cannot rename %s: %s", fresh, err_no(errno));
	free(fresh);
	if (rc == 0)
		return path;
	free(path);
	return NULL;
}

bool quota_is_failing(struct quota *quota)
{
	return quota->journal_fails || quota->ledger_fails;
}

void quota_tick(struct quota *quota)
{
	int64_t boot_ms = clock_boot_ms();
	struct err err = ERR_INIT;
	int rc;

	do
		rc = tick_step(quota, boot_ms, &err);
	while (rc == 1);
	if (rc == 0)
		rc = ledger_checkpoint(quota->ledger, &err);
	if (!quota->journal_fails || rc == 0)
		report(quota, &quota->ledger_fails, rc, &err);
}

static int write_rest(struct quota *quota, struct err *err)
{
	int rc = fold_done(quota, err);

	if (rc == 0 && quota->writing > quota->folded)
		rc = fold(quota, quota->writing, err);
	for (bool more = rc == 0 && owes(quota); more; more = rc == 1)
		rc = pay_some(quota, err);
	return rc == 0 ? store_mark(quota, err) : rc;
}

void quota_shut(struct quota *quota)
{
	struct err err = ERR_INIT;
	int rc = -1;

	quota_hold_journal(quota);
	if (quota->ledger != NULL) {
		rc = write_rest(quota, &err);
		report(quota, &quota->ledger_fails, rc, &err);
	}
	ledger_close(&quota->ledger);
	if (rc == 0)
		journal_remove(quota->journal);
	journal_free(&quota->journal);
	quota_let_journal_go(quota);
}
