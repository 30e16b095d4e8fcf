#include "token/vault.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/xalloc.h"
#include "proto/kv.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* One write; queued, then written, then told of. */
struct job {
	char name[VAULT_NAME_MAX + 1];
	struct secret text;
	void (*done)(void *arg, const char *problem);
	const void *arg;
	struct err err;
	bool failed;
	struct job *next;
};

struct vault {
	struct loop *loop;
	char *folder;
	struct loop_fd watch; /* of the eventfd that says: jobs are written */
	pthread_t writer;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under lock */
	struct job *queued, *writing, *written;
	bool closing;
};

static char *path_of(const struct vault *vault, const char *name)
{
	return xasprintf("%s/%s", vault->folder, name);
}

/* ---- format: a message of key=value lines ---- */

static int put_number(char *text, size_t cap, size_t *at, const char *key, int64_t n)
{
	char number[24];

	(void)snprintf(number, sizeof(number), "%lld", (long long)(n < 0 ? 0 : n));
	return kv_put(text, cap, at, key, number, strlen(number));
}

static int put_tokens(char *text, size_t cap, size_t *at, const struct vault_entry *entry,
		      bool access)
{
	*at = 0;
	if (kv_put(text, cap, at, "relay365", KV_VERSION, 1) < 0 ||
	    kv_put(text, cap, at, "owner", entry->owner, strlen(entry->owner)) < 0)
		return -1;
	if (secret_is_set(&entry->refresh) &&
	    (put_number(text, cap, at, "refreshed", entry->refreshed_s) < 0 ||
	     kv_put(text, cap, at, "refresh", entry->refresh.data, entry->refresh.len) < 0))
		return -1;
	if (access && secret_is_set(&entry->access) &&
	    (put_number(text, cap, at, "expires", entry->expires_s) < 0 ||
	     kv_put(text, cap, at, "access", entry->access.data, entry->access.len) < 0))
		return -1;
	return kv_end(text, cap, at);
}

static int format(const struct vault_entry *entry, struct secret *text_r)
{
	char text[KV_MESSAGE_MAX];
	size_t at;
	int result = put_tokens(text, sizeof(text), &at, entry, true);

	/* Two tokens of the largest size: the one that can be fetched again stays out. */
	if (result < 0)
		result = put_tokens(text, sizeof(text), &at, entry, false);
	if (result == 0)
		result = secret_set(text_r, text, at);
	explicit_bzero(text, sizeof(text));
	return result;
}

static int take(const struct kv_message *message, const char *key, const char *time_key,
		struct secret *token, int64_t *time_r)
{
	const struct kv_pair *pair = kv_find(message, key);
	long long n;

	if (pair == NULL)
		return 0;
	if (kv_number(message, time_key, &n) < 0 || pair->value_len == 0)
		return -1;
	*time_r = n;
	return secret_set(token, pair->value, pair->value_len);
}

int vault_read(struct vault *vault, const char *name, struct vault_entry *entry, struct err *err)
{
	char *path = path_of(vault, name);
	struct secret text = SECRET_INIT;
	struct kv_message message;
	size_t used;
	int result = 0;

	if (access(path, F_OK) < 0 && errno == ENOENT)
		goto out;
	result = -1;
	if (file_read_secret(path, &text, err) < 0)
		goto out;
	if (text.len == 0 || kv_parse(text.data, text.len, &message, &used) != KV_OK ||
	    !kv_is(&message, "relay365", KV_VERSION)) {
		err_set(err, ERR_PERM, "%s is damaged, and its tokens are lost", path);
		goto out;
	}
	result = kv_is(&message, "owner", entry->owner);
	if (result == 1 &&
	    (take(&message, "refresh", "refreshed", &entry->refresh, &entry->refreshed_s) < 0 ||
	     take(&message, "access", "expires", &entry->access, &entry->expires_s) < 0))
		result = err_set(err, ERR_PERM, "%s is damaged, and its tokens are lost", path);
out:
	secret_clear(&text);
	free(path);
	return result;
}

/* ---- the writer ---- */

static void write_one(struct vault *vault, struct job *job)
{
	char *path = path_of(vault, job->name);

	job->failed = file_make_folder(vault->folder, &job->err) < 0 ||
		      file_replace(path, job->text.data, job->text.len, 0600, &job->err) < 0;
	secret_clear(&job->text);
	free(path);
}

static void append(struct job **list, struct job *job)
{
	while (*list != NULL)
		list = &(*list)->next;
	job->next = NULL;
	*list = job;
}

static void *run_writer(void *arg)
{
	struct vault *vault = arg;

	(void)pthread_mutex_lock(&vault->lock);
	for (;;) {
		const uint64_t one = 1;
		struct job *job = vault->queued;

		if (job == NULL && vault->closing)
			break;
		if (job == NULL) {
			(void)pthread_cond_wait(&vault->wake, &vault->lock);
			continue;
		}
		vault->queued = job->next;
		vault->writing = job;
		(void)pthread_mutex_unlock(&vault->lock);
		write_one(vault, job);
		(void)pthread_mutex_lock(&vault->lock);
		vault->writing = NULL;
		append(&vault->written, job);
		(void)!write(vault->watch.fd, &one, sizeof(one));
	}
	(void)pthread_mutex_unlock(&vault->lock);
	return NULL;
}

static void on_written(struct loop_fd *watch, unsigned int events)
{
	struct vault *vault = watch->owner;
	struct job *job;
	uint64_t n;

	(void)events;
	(void)!read(watch->fd, &n, sizeof(n));
	(void)pthread_mutex_lock(&vault->lock);
	while ((job = vault->written) != NULL) {
		vault->written = job->next;
		(void)pthread_mutex_unlock(&vault->lock);
		if (job->done != NULL)
			job->done((void *)(uintptr_t)job->arg,
				  job->failed ? job->err.text : NULL);
		free(job);
		(void)pthread_mutex_lock(&vault->lock);
	}
	(void)pthread_mutex_unlock(&vault->lock);
}

void vault_write(struct vault *vault, const char *name, const struct vault_entry *entry,
		 void (*done)(void *arg, const char *problem), void *arg)
{
	struct job *job = xcalloc(1, sizeof(*job));

	(void)snprintf(job->name, sizeof(job->name), "%s", name);
	job->done = done;
	job->arg = arg;
	if (format(entry, &job->text) < 0) {
		err_set(&job->err, ERR_PERM, "the tokens are too large to be kept");
		job->failed = true;
	}
	(void)pthread_mutex_lock(&vault->lock);
	for (struct job **at = &vault->queued; *at != NULL; at = &(*at)->next) {
		struct job *old = *at;

		if (strcmp(old->name, name) != 0)
			continue;
		/* The newer one says all that it said; it is told of as this one is. */
		*at = old->next;
		secret_clear(&old->text);
		if (old->done != NULL && done == NULL) {
			job->done = old->done;
			job->arg = old->arg;
		}
		free(old);
		break;
	}
	if (job->failed) {
		const uint64_t one = 1;

		append(&vault->written, job);
		(void)!write(vault->watch.fd, &one, sizeof(one));
	} else {
		append(&vault->queued, job);
		(void)pthread_cond_signal(&vault->wake);
	}
	(void)pthread_mutex_unlock(&vault->lock);
}

static void forget(struct job *job, const void *arg)
{
	for (; job != NULL; job = job->next)
		if (job->arg == arg)
			job->done = NULL;
}

void vault_forget(struct vault *vault, const void *arg)
{
	(void)pthread_mutex_lock(&vault->lock);
	forget(vault->queued, arg);
	forget(vault->written, arg);
	if (vault->writing != NULL && vault->writing->arg == arg)
		vault->writing->done = NULL;
	(void)pthread_mutex_unlock(&vault->lock);
}

/* ---- life ---- */

struct vault *vault_open(struct loop *loop, const char *folder, struct err *err)
{
	struct vault *vault;

	vault = xcalloc(1, sizeof(*vault));
	vault->loop = loop;
	vault->folder = xstrdup(folder);
	vault->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vault->watch.want = LOOP_READ;
	vault->watch.ready = on_written;
	vault->watch.owner = vault;
	(void)pthread_mutex_init(&vault->lock, NULL);
	(void)pthread_cond_init(&vault->wake, NULL);
	if (vault->watch.fd < 0 || loop_add(loop, &vault->watch) < 0 ||
	    pthread_create(&vault->writer, NULL, run_writer, vault) != 0) {
		err_set(err, ERR_TEMP, "cannot start the thread that writes %s", folder);
		loop_del(&vault->watch);
		(void)close(vault->watch.fd);
		free(vault->folder);
		free(vault);
		return NULL;
	}
	return vault;
}

void vault_close(struct vault **vault)
{
	struct vault *v = *vault;

	if (v == NULL)
		return;
	(void)pthread_mutex_lock(&v->lock);
	v->closing = true;
	(void)pthread_cond_signal(&v->wake);
	(void)pthread_mutex_unlock(&v->lock);
	(void)pthread_join(v->writer, NULL);
	while (v->written != NULL) {
		struct job *job = v->written;

		v->written = job->next;
		free(job);
	}
	loop_del(&v->watch);
	(void)close(v->watch.fd);
	(void)pthread_mutex_destroy(&v->lock);
	(void)pthread_cond_destroy(&v->wake);
	free(v->folder);
	free(v);
	*vault = NULL;
}
