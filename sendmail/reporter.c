#include "base/compat.h"

#include "sendmail/reporter.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "proto/kv.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	AT_ONCE_MS = 1000,     /* a tokend that is there answers in a few */
	PATIENCE_MS = 60000,   /* longer than a restart, and than it may hang under systemd */
	NAP_MS = 100,	       /* from one attempt to the next */
	JOBS_MAX = 256,	       /* each may hold a descriptor */
	JOBS_FOR_REFUSALS = 64 /* the rest is for what matters */
};

#define NEVER INT64_MAX

/* A report that was not told at once. */
struct job {
	enum report_kind kind;
	char *path, *request, *loss;
	size_t len;
	int lease_fd;
	int64_t until_ms;
	struct job *next;
};

struct reporter {
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	struct job *first, **end; /* the first is being told */
	size_t jobs;

	_Atomic int64_t stop_ms; /* when everything is given up; NEVER: this goes on */
};

/* ---- one attempt ---- */

enum told { TOLD, TOLD_NOT, TOLD_IN_VAIN };

struct attempt {
	struct reporter *reporter;
	enum report_kind kind;
	const char *path, *request;
	size_t len;
	int64_t until_ms;
};

static bool is_stopping(struct reporter *reporter)
{
	return atomic_load(&reporter->stop_ms) != NEVER;
}

/* Also looks now and then whether the daemon ends meanwhile. */
static bool wait_for(const struct attempt *attempt, int fd, short events)
{
	struct pollfd wish = {.fd = fd, .events = events};
	int64_t now_ms = clock_boot_ms();

	if (now_ms >= attempt->until_ms || now_ms >= atomic_load(&attempt->reporter->stop_ms) ||
	    (attempt->kind != REPORT_DELIVERY && is_stopping(attempt->reporter)))
		return false;
	(void)poll(&wish, 1, NAP_MS);
	return true;
}

static enum told not_told(const struct attempt *attempt, int error, struct err *err)
{
	err_set(err, ERR_TEMP, "relay365-tokend at %s did not answer: %s", attempt->path,
		err_no(error));
	return TOLD_NOT;
}

static enum told judge(const struct attempt *attempt, const struct kv_message *answer,
		       struct err *err)
{
	const struct kv_pair *reason = kv_find(answer, "reason");

	if (kv_is(answer, "status", "ok"))
		return TOLD;
	err_set(err, ERR_TEMP, "relay365-tokend at %s does not take it: %.*s", attempt->path,
		reason == NULL ? 0 : (int)reason->value_len, reason == NULL ? "" : reason->value);
	return TOLD_IN_VAIN;
}

static enum told say(const struct attempt *attempt, int fd, struct err *err)
{
	char answer[KV_MESSAGE_MAX];
	size_t done = 0, got = 0;

	while (done < attempt->len) {
		ssize_t n = send(fd, attempt->request + done, attempt->len - done, MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t)n;
		else if (errno != EAGAIN && errno != EINTR)
			return not_told(attempt, errno, err);
		else if (!wait_for(attempt, fd, POLLOUT))
			return not_told(attempt, ETIMEDOUT, err);
	}
	while (got < sizeof(answer)) {
		ssize_t n = recv(fd, answer + got, sizeof(answer) - got, 0);
		struct kv_message message;
		size_t used;

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return not_told(attempt, n == 0 ? ECONNRESET : errno, err);
		if (n < 0) {
			if (!wait_for(attempt, fd, POLLIN))
				return not_told(attempt, ETIMEDOUT, err);
			continue;
		}
		got += (size_t)n;
		switch (kv_parse(answer, got, &message, &used)) {
		case KV_OK:
			return judge(attempt, &message, err);
		case KV_MORE:
			break;
		case KV_BAD:
			return not_told(attempt, EPROTO, err);
		}
	}
	return not_told(attempt, EPROTO, err);
}

static enum told try_once(const struct attempt *attempt, struct err *err)
{
	int fd = sock_connect(attempt->path, err);
	enum told told;

	if (fd < 0)
		return TOLD_NOT;
	told = say(attempt, fd, err);
	(void)close(fd);
	return told;
}

/* ---- what was not told at once ---- */

static void free_job(struct job *job)
{
	if (job->lease_fd >= 0)
		(void)close(job->lease_fd);
	free(job->path);
	free(job->request);
	free(job->loss);
	free(job);
}

/* Who denies the end of a lease has none; and tokend sees for itself when this process ends. */
static void tell_log(struct reporter *reporter, enum report_kind kind, enum told told,
		     const char *loss, const struct err *err)
{
	if (told == TOLD ||
	    (kind == REPORT_END && (told == TOLD_IN_VAIN || is_stopping(reporter))))
		return;
	log_say(EV_WARNING, "%s: %s", loss, err->text);
}

static void finish(struct reporter *reporter, const struct job *job)
{
	const struct attempt attempt = {reporter,     job->kind, job->path,
					job->request, job->len,	 job->until_ms};
	struct err err = ERR_INIT;
	enum told told;

	while ((told = try_once(&attempt, &err)) == TOLD_NOT && wait_for(&attempt, -1, 0))
		;
	tell_log(reporter, job->kind, told, job->loss, &err);
}

static void *run(void *arg)
{
	struct reporter *reporter = arg;

	(void)pthread_mutex_lock(&reporter->lock);
	while (reporter->first != NULL || !is_stopping(reporter)) {
		struct job *job = reporter->first;

		if (job == NULL) {
			(void)pthread_cond_wait(&reporter->changed, &reporter->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&reporter->lock);
		finish(reporter, job);
		(void)pthread_mutex_lock(&reporter->lock);
		reporter->first = job->next;
		if (reporter->first == NULL)
			reporter->end = &reporter->first;
		reporter->jobs--;
		free_job(job);
	}
	(void)pthread_mutex_unlock(&reporter->lock);
	return NULL;
}

static bool has_jobs(struct reporter *reporter)
{
	bool has;

	(void)pthread_mutex_lock(&reporter->lock);
	has = reporter->jobs > 0;
	(void)pthread_mutex_unlock(&reporter->lock);
	return has;
}

/* Says false, and then takes nothing, when there is too much already. */
static bool keep(struct reporter *reporter, const struct report *report)
{
	size_t most = report->kind == REPORT_REFUSAL ? JOBS_FOR_REFUSALS : JOBS_MAX;
	struct job *job;
	bool kept;

	(void)pthread_mutex_lock(&reporter->lock);
	kept = reporter->jobs < most;
	if (kept) {
		job = xcalloc(1, sizeof(*job));
		job->kind = report->kind;
		job->path = xstrdup(report->path);
		job->request = xmalloc(report->len);
		memcpy(job->request, report->request, report->len);
		job->loss = xstrdup(report->loss);
		job->len = report->len;
		job->lease_fd = report->lease_fd;
		job->until_ms = clock_boot_ms() + PATIENCE_MS;
		*reporter->end = job;
		reporter->end = &job->next;
		reporter->jobs++;
		(void)pthread_cond_signal(&reporter->changed);
	}
	(void)pthread_mutex_unlock(&reporter->lock);
	return kept;
}

void reporter_tell(struct reporter *reporter, const struct report *report)
{
	const struct attempt attempt = {reporter,     report->kind,
					report->path, report->request,
					report->len,  clock_boot_ms() + AT_ONCE_MS};
	struct err err = ERR_INIT;
	enum told told = TOLD_NOT;

	/* Behind what waits: tokend is away, and a lease ends after its message was told of. */
	if (has_jobs(reporter))
		err_set(&err, ERR_TEMP, "relay365-tokend does not answer");
	else
		told = try_once(&attempt, &err);
	if (told == TOLD_NOT && keep(reporter, report))
		return;
	tell_log(reporter, report->kind, told, report->loss, &err);
	if (report->lease_fd >= 0)
		(void)close(report->lease_fd);
}

/* ---- start and end ---- */

struct reporter *reporter_start(struct err *err)
{
	struct reporter *reporter = xcalloc(1, sizeof(*reporter));
	int rc;

	(void)pthread_mutex_init(&reporter->lock, NULL);
	(void)pthread_cond_init(&reporter->changed, NULL);
	reporter->end = &reporter->first;
	atomic_init(&reporter->stop_ms, NEVER);
	rc = pthread_create(&reporter->thread, NULL, run, reporter);
	if (rc == 0)
		return reporter;
	err_set(err, ERR_TEMP, "cannot start a thread: %s", err_no(rc));
	free(reporter);
	return NULL;
}

void reporter_stop(struct reporter *reporter, int64_t until_boot_ms)
{
	(void)pthread_mutex_lock(&reporter->lock);
	atomic_store(&reporter->stop_ms, until_boot_ms);
	(void)pthread_cond_signal(&reporter->changed);
	(void)pthread_mutex_unlock(&reporter->lock);
	(void)pthread_join(reporter->thread, NULL);
}

void reporter_free(struct reporter **reporter)
{
	if (*reporter == NULL)
		return;
	(void)pthread_cond_destroy(&(*reporter)->changed);
	(void)pthread_mutex_destroy(&(*reporter)->lock);
	free(*reporter);
	*reporter = NULL;
}
