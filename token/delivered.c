#include "token/delivered.h"

#include "quota/ledger.h"
#include "quota/window.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/xalloc.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

enum { MARK_S = 10, MAINTAIN_S = 60 };

struct delivered_mailbox {
	struct delivered *delivered;
	char *address;
	struct window window; /* the loop's */
	int64_t queued;	      /* counted but not yet handed to the writer; under the lock */
	int64_t queued_at_ms;
	bool forgotten;	   /* what the ledger has counts no more; under the lock */
	int64_t writing;   /* of a batch; under the lock */
	int64_t announced; /* about to be counted; under the lock */
	struct memo_page *memo;
	struct delivered_mailbox *next;
};

struct delivered {
	struct memo *memo;
	struct ledger *ledger; /* the writer's, once it runs */
	struct steady clock;   /* the loop's */
	char boot_id[40];
	struct delivered_mailbox *mailboxes;
	pthread_t writer;

	pthread_mutex_t lock; /* for what follows, and for queued above */
	pthread_cond_t work;
	struct steady_mark mark; /* the clock as the loop last read it */
	bool dirty;
	bool stop;
	char problem[ERR_TEXT_MAX];
};

static int64_t now_ms(struct delivered *delivered)
{
	return steady_now(&delivered->clock, clock_boot_ms());
}

/* What is lost with this process but for the memo. Under the lock. */
static void note(struct delivered_mailbox *mailbox)
{
	mailbox->memo->unwritten = mailbox->queued + mailbox->writing + mailbox->announced;
}

/* ---- the writer ---- */

/* One mailbox's share of a batch. */
struct batch {
	struct delivered_mailbox *mailbox;
	int64_t n;
	int64_t at_ms;
	bool forget; /* what there is, first */
};

/* Takes what is queued, under the lock. Returns how many; *batch_r is the caller's to free. */
static size_t take(struct delivered *delivered, struct batch **batch_r)
{
	size_t n = 0, cap = 0;

	*batch_r = NULL;
	for (struct delivered_mailbox *m = delivered->mailboxes; m != NULL; m = m->next) {
		if (m->queued == 0 && !m->forgotten)
			continue;
		if (n == cap) {
			cap = cap == 0 ? 16 : cap * 2;
			*batch_r = xreallocarray(*batch_r, cap, sizeof(**batch_r));
		}
		(*batch_r)[n++] = (struct batch){m, m->queued, m->queued_at_ms, m->forgotten};
		m->writing = m->queued;
		m->queued = 0;
		m->forgotten = false;
	}
	delivered->dirty = false;
	return n;
}

static int store(struct delivered *delivered, const struct batch *batch, size_t n,
		 struct err *err)
{
	if (n == 0)
		return 0;
	if (ledger_begin(delivered->ledger, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const char *address = batch[i].mailbox->address;

		if (batch[i].forget && ledger_forget(delivered->ledger, address, err) < 0)
			return -1;
		if (batch[i].n > 0 && ledger_add(delivered->ledger, address, DELIVERED_WINDOW_MS,
						 batch[i].at_ms, batch[i].n, err) < 0)
			return -1;
	}
	return ledger_commit(delivered->ledger, err);
}

/* What could not be stored goes back into the queue, to be tried with the next. Under the lock.
 */
static void put_back(struct delivered *delivered, const struct batch *batch, size_t n,
		     const struct err *err)
{
	if (delivered->problem[0] == '\0')
		log_say(EV_LEDGER,
			"deliveries can't be written down, they are kept in memory: %s",
			err->text);
	(void)snprintf(delivered->problem, sizeof(delivered->problem), "%s", err->text);
	for (size_t i = 0; i < n; i++) {
		/* What was counted before a reset is not to be counted any more. */
		if (!batch[i].mailbox->forgotten)
			batch[i].mailbox->queued += batch[i].n;
		batch[i].mailbox->forgotten = batch[i].mailbox->forgotten || batch[i].forget;
		if (batch[i].mailbox->queued_at_ms < batch[i].at_ms)
			batch[i].mailbox->queued_at_ms = batch[i].at_ms;
	}
	delivered->dirty = n > 0;
}

static void write_round(struct delivered *delivered)
{
	struct err err = ERR_INIT;
	struct batch *batch;
	size_t n = take(delivered, &batch);
	int result;

	(void)pthread_mutex_unlock(&delivered->lock);
	result = store(delivered, batch, n, &err);
	(void)pthread_mutex_lock(&delivered->lock);
	if (result < 0) {
		put_back(delivered, batch, n, &err);
	} else if (delivered->problem[0] != '\0' && n > 0) {
		log_say(EV_LEDGER, "deliveries are written down again");
		delivered->problem[0] = '\0';
	}
	for (size_t i = 0; i < n; i++) {
		batch[i].mailbox->writing = 0;
		note(batch[i].mailbox);
	}
	free(batch);
}

/* Each second a checkpoint; the clock's mark and a part of the old buckets less often. */
static void tidy(struct delivered *delivered, unsigned int *seconds)
{
	struct steady_mark mark = delivered->mark;
	struct err err = ERR_INIT;

	(void)pthread_mutex_unlock(&delivered->lock);
	if (*seconds % MARK_S == 0)
		(void)ledger_mark(delivered->ledger, &mark, &err);
	if (*seconds % MAINTAIN_S == 0)
		(void)ledger_maintain(delivered->ledger, mark.at_ms, &err);
	(void)ledger_checkpoint(delivered->ledger, &err);
	(*seconds)++;
	(void)pthread_mutex_lock(&delivered->lock);
}

static void *writer(void *arg)
{
	struct delivered *delivered = arg;
	unsigned int seconds = 0;

	(void)pthread_mutex_lock(&delivered->lock);
	while (!delivered->stop || delivered->dirty) {
		struct timespec until;
		bool failing = delivered->problem[0] != '\0';
		bool stopping = delivered->stop;
		int waited = 0;

		(void)clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec++;
		/* After a failure the next try waits its second, whatever comes in. */
		while ((!delivered->dirty || failing) && !delivered->stop && waited == 0)
			waited = pthread_cond_timedwait(&delivered->work, &delivered->lock,
							&until);
		if (delivered->dirty)
			write_round(delivered);
		if (waited == ETIMEDOUT)
			tidy(delivered, &seconds);
		if (stopping && delivered->problem[0] != '\0')
			break; /* the disk refuses: end without */
	}
	(void)pthread_mutex_unlock(&delivered->lock);
	return NULL;
}

/* ---- the loop's side ---- */

static struct delivered_mailbox *find(struct delivered *delivered, const char *address)
{
	struct delivered_mailbox *m = delivered->mailboxes;

	while (m != NULL && strcmp(m->address, address) != 0)
		m = m->next;
	return m;
}

struct delivered_mailbox *delivered_mailbox(struct delivered *delivered, const char *address)
{
	struct delivered_mailbox *m = find(delivered, address);

	if (m != NULL)
		return m;
	m = xcalloc(1, sizeof(*m));
	m->delivered = delivered;
	m->address = xstrdup(address);
	m->memo = memo_of(delivered->memo, address);
	window_init(&m->window, DELIVERED_WINDOW_MS);
	(void)pthread_mutex_lock(&delivered->lock);
	m->next = delivered->mailboxes;
	delivered->mailboxes = m;
	(void)pthread_mutex_unlock(&delivered->lock);
	return m;
}

int64_t delivered_used(struct delivered_mailbox *mailbox)
{
	return window_used(&mailbox->window, now_ms(mailbox->delivered));
}

int64_t delivered_room_in_ms(struct delivered_mailbox *mailbox, int64_t max, int64_t need)
{
	int64_t now = now_ms(mailbox->delivered);
	int64_t at = window_room_at(&mailbox->window, now, max, need);

	return at < 0 ? -1 : at - now;
}

/* Under the lock. */
static void set_mark(struct delivered *delivered)
{
	delivered->mark.at_ms = now_ms(delivered);
	delivered->mark.boot_ms = clock_boot_ms();
	delivered->mark.wall_ms = clock_wall_ms();
}

void delivered_tick(struct delivered *delivered)
{
	(void)pthread_mutex_lock(&delivered->lock);
	set_mark(delivered);
	(void)pthread_mutex_unlock(&delivered->lock);
}

void delivered_announce(struct delivered_mailbox *mailbox, int64_t n)
{
	struct delivered *delivered = mailbox->delivered;

	(void)pthread_mutex_lock(&delivered->lock);
	mailbox->announced += n;
	if (mailbox->queued + mailbox->writing == 0)
		mailbox->memo->unwritten_at_ms = now_ms(delivered);
	note(mailbox);
	(void)pthread_mutex_unlock(&delivered->lock);
}

void delivered_add(struct delivered_mailbox *mailbox, int64_t n)
{
	struct delivered *delivered = mailbox->delivered;
	int64_t now = now_ms(delivered);

	window_add(&mailbox->window, now, n);
	(void)pthread_mutex_lock(&delivered->lock);
	mailbox->queued += n;
	mailbox->queued_at_ms = now;
	mailbox->memo->unwritten_at_ms = now;
	note(mailbox);
	set_mark(delivered);
	delivered->dirty = true;
	(void)pthread_cond_signal(&delivered->work);
	(void)pthread_mutex_unlock(&delivered->lock);
}

void delivered_reset(struct delivered_mailbox *mailbox)
{
	struct delivered *delivered = mailbox->delivered;

	window_clear(&mailbox->window);
	(void)pthread_mutex_lock(&delivered->lock);
	mailbox->queued = 0;
	mailbox->writing = 0;
	note(mailbox);
	mailbox->forgotten = true;
	delivered->dirty = true;
	(void)pthread_cond_signal(&delivered->work);
	(void)pthread_mutex_unlock(&delivered->lock);
}

void delivered_problem(struct delivered *delivered, char *text_r, size_t cap)
{
	(void)pthread_mutex_lock(&delivered->lock);
	(void)snprintf(text_r, cap, "%s", delivered->problem);
	(void)pthread_mutex_unlock(&delivered->lock);
}

/* ---- life ---- */

static void on_loaded(void *arg, const char *name, int64_t window_ms, int64_t at_ms, int64_t n)
{
	struct delivered_mailbox *m = delivered_mailbox(arg, name);

	(void)window_ms;
	window_add(&m->window, at_ms, n);
}

static void on_unwritten(void *arg, const struct memo_page *page)
{
	struct delivered *delivered = arg;
	struct delivered_mailbox *m = delivered_mailbox(delivered, page->address);

	window_add(&m->window, page->unwritten_at_ms, page->unwritten);
	m->queued = page->unwritten;
	m->queued_at_ms = page->unwritten_at_ms;
	delivered->dirty = true;
}

static void start_clock(struct delivered *delivered, const struct ledger_news *news)
{
	int64_t ahead;

	clock_boot_id(delivered->boot_id);
	ahead = steady_start(&delivered->clock, news->has_mark ? &news->mark : NULL,
			     clock_wall_ms(), clock_boot_ms(), delivered->boot_id);
	if (ahead > STEADY_START_JUMP_MS || ahead < -STEADY_START_JUMP_MS)
		log_say(EV_CLOCK,
			"the wall clock is %lld s %s what has passed since the last run; limits "
			"go on by "
			"the time that has certainly passed",
			(long long)(ahead < 0 ? -ahead : ahead) / 1000,
			ahead < 0 ? "behind" : "ahead of");
	set_mark(delivered);
	memcpy(delivered->mark.boot_id, delivered->boot_id, sizeof(delivered->boot_id));
}

static void free_all(struct delivered *delivered)
{
	while (delivered->mailboxes != NULL) {
		struct delivered_mailbox *m = delivered->mailboxes;

		delivered->mailboxes = m->next;
		window_clear(&m->window);
		free(m->address);
		free(m);
	}
	ledger_close(&delivered->ledger);
	(void)pthread_mutex_destroy(&delivered->lock);
	(void)pthread_cond_destroy(&delivered->work);
	free(delivered);
}

struct delivered *delivered_open(const char *folder, struct memo *memo, struct err *err)
{
	struct delivered *delivered = xcalloc(1, sizeof(*delivered));
	char *path = xasprintf("%s/delivered.db", folder);
	struct ledger_news news = {0};
	pthread_condattr_t attr;

	delivered->memo = memo;
	(void)pthread_mutex_init(&delivered->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* the wall clock may step */
	(void)pthread_cond_init(&delivered->work, &attr);
	(void)pthread_condattr_destroy(&attr);
	if (file_make_folder(folder, err) == 0)
		delivered->ledger = ledger_open(path, &news, err);
	if (delivered->ledger == NULL)
		goto fail;
	if (news.damaged_as[0] != '\0')
		log_say(EV_LEDGER,
			"%s was damaged and is now %s; what was delivered before is not counted "
			"any more",
			path, news.damaged_as);
	start_clock(delivered, &news);
	if (ledger_load(delivered->ledger, on_loaded, delivered, err) < 0)
		goto fail;
	memo_each_unwritten(memo, on_unwritten, delivered);
	if (pthread_create(&delivered->writer, NULL, writer, delivered) != 0) {
		err_set(err, ERR_TEMP, "cannot start the thread that writes %s", path);
		goto fail;
	}
	free(path);
	return delivered;
fail:
	free(path);
	free_all(delivered);
	return NULL;
}

void delivered_close(struct delivered **delivered)
{
	struct delivered *d = *delivered;

	if (d == NULL)
		return;
	(void)pthread_mutex_lock(&d->lock);
	set_mark(d);
	d->stop = true;
	(void)pthread_cond_signal(&d->work);
	(void)pthread_mutex_unlock(&d->lock);
	(void)pthread_join(d->writer, NULL);
	(void)ledger_mark(d->ledger, &d->mark, NULL);
	free_all(d);
	*delivered = NULL;
}
