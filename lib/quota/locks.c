#include "quota/locks.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "proto/kv.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { FILE_MAX = LOCKS_MAX * 1024, RETRY_MS = 1000 };

struct locks {
	char *path;
	pthread_t writer;
	atomic_size_t count;

	pthread_mutex_t lock;	/* of all below; count is changed under it too */
	pthread_cond_t work;	/* for the writer */
	pthread_cond_t written; /* for who waits for it */
	struct lock item[LOCKS_MAX];
	uint64_t changes;
	uint64_t tried;	 /* changes that the writer has tried to store */
	uint64_t stored; /* changes that are on the disk */
	bool stop;
	char problem[ERR_TEXT_MAX];
};

/* ---- the file: a message of key=value lines for each lock ---- */

static int64_t number(const struct kv_message *message, const char *key)
{
	long long n;

	return kv_number(message, key, &n) < 0 ? 0 : n;
}

static int read_lock(const struct kv_message *message, struct lock *lock)
{
	if (kv_copy(message, "key", lock->key, sizeof(lock->key)) <= 0 ||
	    kv_copy(message, "reason", lock->reason, sizeof(lock->reason)) < 0 ||
	    kv_copy(message, "by", lock->by, sizeof(lock->by)) < 0)
		return -1;
	lock->since_wall_ms = number(message, "since") * 1000;
	lock->until_wall_ms = number(message, "until") * 1000;
	return 0;
}

static void put_text(struct buf *file, const char *key, const char *value)
{
	(void)buf_addf(file, "%s=%s\n", key, value);
}

static void put_time(struct buf *file, const char *key, int64_t wall_ms)
{
	(void)buf_addf(file, "%s=%lld\n", key, (long long)(wall_ms + 999) / 1000);
}

static void put_lock(struct buf *file, const struct lock *lock)
{
	put_text(file, "key", lock->key);
	put_text(file, "reason", lock->reason);
	put_text(file, "by", lock->by);
	put_time(file, "since", lock->since_wall_ms);
	if (lock->until_wall_ms > 0)
		put_time(file, "until", lock->until_wall_ms);
	(void)buf_adds(file, "\n");
}

/* Returns -1 when not all of it is understood. */
static int read_file(struct locks *locks, const struct buf *file)
{
	const char *at = file->data;
	size_t left = file->len, n = 0, used;
	struct kv_message message;

	while (left > 0) {
		if (n == LOCKS_MAX || kv_parse(at, left, &message, &used) != KV_OK ||
		    read_lock(&message, &locks->item[n]) < 0)
			break;
		n++;
		at += used;
		left -= used;
	}
	atomic_store(&locks->count, n);
	return left == 0 ? 0 : -1;
}

static int load(struct locks *locks, struct err *err)
{
	struct buf file = BUF_INIT(FILE_MAX);
	int result = 0;

	if (access(locks->path, F_OK) < 0 && errno == ENOENT)
		return 0;
	if (file_read(locks->path, &file, err) < 0) {
		result = -1;
	} else if (read_file(locks, &file) < 0) {
		char *aside = xasprintf("%s.damaged", locks->path);

		log_say(EV_LEDGER,
			"%s is damaged: %zu locks were read from it, others may be lost; it is "
			"%s now",
			locks->path, atomic_load(&locks->count), aside);
		(void)rename(locks->path, aside);
		locks->changes++; /* what was read is written anew */
		free(aside);
	}
	buf_clear(&file);
	return result;
}

/* ---- the writer ---- */

/* Under the lock, which it gives up while it writes. */
static void store(struct locks *locks)
{
	uint64_t changes = locks->changes;
	struct buf file = BUF_INIT(FILE_MAX);
	struct err err = ERR_INIT;
	size_t n = atomic_load(&locks->count);
	int result;

	for (size_t i = 0; i < n; i++)
		put_lock(&file, &locks->item[i]);
	(void)pthread_mutex_unlock(&locks->lock);
	result = file_replace(locks->path, buf_text(&file), file.len, 0600, &err);
	buf_clear(&file);
	(void)pthread_mutex_lock(&locks->lock);
	locks->tried = changes;
	if (result == 0)
		locks->stored = changes;
	if (result < 0 && locks->problem[0] == '\0')
		log_say(EV_LEDGER, "locks can't be written down, they are kept in memory: %s",
			err.text);
	(void)snprintf(locks->problem, sizeof(locks->problem), "%s", err.text);
	(void)pthread_cond_broadcast(&locks->written);
}

static void take_out(struct locks *locks, size_t at)
{
	size_t left = atomic_load(&locks->count) - at - 1;

	memmove(&locks->item[at], &locks->item[at + 1], left * sizeof(locks->item[0]));
	(void)atomic_fetch_sub(&locks->count, 1);
	locks->changes++;
}

static bool is_over(const struct lock *lock, int64_t wall_ms)
{
	return lock->until_wall_ms > 0 && lock->until_wall_ms <= wall_ms;
}

static void end_those_over(struct locks *locks)
{
	int64_t wall_ms = clock_wall_ms();
	struct log_line line;

	for (size_t i = 0; i < atomic_load(&locks->count);) {
		if (!is_over(&locks->item[i], wall_ms)) {
			i++;
			continue;
		}
		log_begin(&line, EV_UNLOCK, NULL);
		log_str(&line, "key", locks->item[i].key);
		log_str(&line, "by", "time");
		log_end(&line);
		take_out(locks, i);
	}
}

static struct timespec later(int ms)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (ms % 1000) * 1000000L;
	if (t.tv_nsec >= 1000000000L) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000L;
	}
	return t;
}

static void *writer(void *arg)
{
	struct locks *locks = arg;

	(void)pthread_mutex_lock(&locks->lock);
	while (!locks->stop || locks->stored != locks->changes) {
		struct timespec until = later(RETRY_MS);

		end_those_over(locks);
		if (locks->stored != locks->changes)
			store(locks);
		if (locks->stop && locks->problem[0] != '\0')
			break; /* the disk refuses: end without */
		if (locks->stop || locks->tried != locks->changes)
			continue;
		if (atomic_load(&locks->count) == 0 && locks->stored == locks->changes)
			(void)pthread_cond_wait(&locks->work, &locks->lock);
		else
			(void)pthread_cond_timedwait(&locks->work, &locks->lock, &until);
	}
	(void)pthread_mutex_unlock(&locks->lock);
	return NULL;
}

/* Under the lock: lets the writer work, and waits for it. */
static int wait_for_writer(struct locks *locks, int wait_ms, struct err *err)
{
	struct timespec until = later(wait_ms);
	uint64_t changes = locks->changes;
	int waited = 0;

	(void)pthread_cond_signal(&locks->work);
	if (wait_ms <= 0)
		return 0;
	while (locks->tried < changes && waited == 0)
		waited = pthread_cond_timedwait(&locks->written, &locks->lock, &until);
	if (locks->stored >= changes)
		return 0;
	return err_set(err, ERR_TEMP,
		       "this is in force, but a restart would forget it, as it can't be written "
		       "down: %s",
		       locks->problem[0] != '\0' ? locks->problem : "the disk does not answer");
}

/* ---- locks ---- */

static size_t find(const struct locks *locks, const char *key)
{
	size_t i = 0;

	while (i < atomic_load(&locks->count) && strcmp(locks->item[i].key, key) != 0)
		i++;
	return i;
}

int locks_add(struct locks *locks, const struct lock *lock, int wait_ms, struct err *err)
{
	size_t at;
	int result;

	(void)pthread_mutex_lock(&locks->lock);
	at = find(locks, lock->key);
	if (at == LOCKS_MAX) {
		result = err_set(err, ERR_PERM, "there are %d locks already", LOCKS_MAX);
	} else {
		locks->item[at] = *lock;
		if (at == atomic_load(&locks->count))
			(void)atomic_fetch_add(&locks->count, 1);
		locks->changes++;
		result = wait_for_writer(locks, wait_ms, err);
	}
	(void)pthread_mutex_unlock(&locks->lock);
	return result;
}

int locks_remove(struct locks *locks, const char *key, int wait_ms, struct err *err)
{
	size_t at;
	int result = 0;

	(void)pthread_mutex_lock(&locks->lock);
	at = find(locks, key);
	if (at < atomic_load(&locks->count)) {
		take_out(locks, at);
		result = wait_for_writer(locks, wait_ms, err) < 0 ? -1 : 1;
	}
	(void)pthread_mutex_unlock(&locks->lock);
	return result;
}

static void fold(char *text)
{
	for (; *text != '\0'; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text - 'A' + 'a');
}

bool locks_find(struct locks *locks, const char *kind, const char *name, struct lock *lock_r)
{
	char key[LOCK_KEY_MAX + 1];
	bool found;
	size_t at;

	if (atomic_load(&locks->count) == 0 || name == NULL || name[0] == '\0')
		return false;
	(void)snprintf(key, sizeof(key), "%s%s", kind, name);
	fold(key);
	(void)pthread_mutex_lock(&locks->lock);
	at = find(locks, key);
	found = at < atomic_load(&locks->count) && !is_over(&locks->item[at], clock_wall_ms());
	if (found && lock_r != NULL)
		*lock_r = locks->item[at];
	(void)pthread_mutex_unlock(&locks->lock);
	return found;
}

void locks_each(struct locks *locks, void (*each)(void *arg, const struct lock *lock), void *arg)
{
	int64_t wall_ms = clock_wall_ms();

	(void)pthread_mutex_lock(&locks->lock);
	for (size_t i = 0; i < atomic_load(&locks->count); i++)
		if (!is_over(&locks->item[i], wall_ms))
			each(arg, &locks->item[i]);
	(void)pthread_mutex_unlock(&locks->lock);
}

void locks_problem(struct locks *locks, char *text_r, size_t cap)
{
	(void)pthread_mutex_lock(&locks->lock);
	(void)snprintf(text_r, cap, "%s", locks->problem);
	(void)pthread_mutex_unlock(&locks->lock);
}

/* ---- what an admin means ---- */

static const struct conf_mailbox *mailbox_of(const struct conf *conf, const char *text)
{
	const struct conf_mailbox *mailbox = conf_mailbox_by_name(conf, text, strlen(text));

	return mailbox != NULL ? mailbox : conf_mailbox_by_address(conf, text);
}

static bool is_source(const struct conf *conf, const char *text)
{
	for (size_t i = 0; i < conf->sources; i++)
		if (strcmp(conf->source[i].name, text) == 0)
			return true;
	return false;
}

static int make_key(const char *kind, const char *name, char key_r[LOCK_KEY_MAX + 1],
		    struct err *err)
{
	int n = snprintf(key_r, LOCK_KEY_MAX + 1, "%s%s", kind, name);

	if (n < 0 || n > LOCK_KEY_MAX || name[0] == '\0')
		return err_set(err, ERR_PERM, "a key has 1 to %d bytes", LOCK_KEY_MAX);
	for (const char *p = key_r; *p != '\0'; p++)
		if ((unsigned char)*p < 32)
			return err_set(err, ERR_PERM, "a key has no control characters");
	fold(key_r);
	return 0;
}

int locks_key(const struct conf *conf, const char *text, char key_r[LOCK_KEY_MAX + 1],
	      struct err *err)
{
	bool source = strncmp(text, LOCK_SOURCE, strlen(LOCK_SOURCE)) == 0;
	bool mailbox = strncmp(text, LOCK_MAILBOX, strlen(LOCK_MAILBOX)) == 0;
	const char *name = source    ? text + strlen(LOCK_SOURCE)
			   : mailbox ? text + strlen(LOCK_MAILBOX)
				     : text;
	const struct conf_mailbox *found = source ? NULL : mailbox_of(conf, name);
	char client[LOCK_KEY_MAX + 1];

	if (source) {
		conf_client_text(name, client, sizeof(client));
		return make_key(LOCK_SOURCE, client, key_r, err);
	}
	if (found != NULL && !mailbox && is_source(conf, name))
		return err_set(err, ERR_PERM,
			       "%s is a mailbox and a source; say mailbox:%s or source:%s", name,
			       name, name);
	if (found != NULL)
		return make_key(LOCK_MAILBOX, found->address, key_r, err);
	if (!mailbox && is_source(conf, name))
		return make_key(LOCK_SOURCE, name, key_r, err);
	return err_set(err, ERR_PERM,
		       "%s has no mailbox%s called \"%s\"; a login or a client's address is "
		       "written source:NAME",
		       conf->path, mailbox ? "" : " or source", name);
}

/* ---- life ---- */

struct locks *locks_open(const char *path, struct err *err)
{
	struct locks *locks = xcalloc(1, sizeof(*locks));
	pthread_condattr_t attr;
	int rc;

	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_mutex_init(&locks->lock, NULL);
	(void)pthread_cond_init(&locks->work, &attr);
	(void)pthread_cond_init(&locks->written, &attr);
	(void)pthread_condattr_destroy(&attr);
	locks->path = xstrdup(path);
	rc = load(locks, err);
	if (rc == 0 && pthread_create(&locks->writer, NULL, writer, locks) != 0)
		rc = err_set(err, ERR_TEMP, "cannot start the thread that writes %s", path);
	if (rc == 0)
		return locks;
	free(locks->path);
	free(locks);
	return NULL;
}

void locks_close(struct locks **locks)
{
	struct locks *l = *locks;

	if (l == NULL)
		return;
	(void)pthread_mutex_lock(&l->lock);
	l->stop = true;
	(void)pthread_cond_signal(&l->work);
	(void)pthread_mutex_unlock(&l->lock);
	(void)pthread_join(l->writer, NULL);
	(void)pthread_mutex_destroy(&l->lock);
	(void)pthread_cond_destroy(&l->work);
	(void)pthread_cond_destroy(&l->written);
	free(l->path);
	free(l);
	*locks = NULL;
}
