#include "milter/live.h"

#include "base/xalloc.h"
#include "quota/limits.h"

#include <pthread.h>
#include <stdatomic.h>

struct live_conf {
	struct conf *conf;
	atomic_uint refs;
};

struct live {
	pthread_mutex_t lock;	/* of now */
	pthread_mutex_t reload; /* one reload at a time */
	struct live_conf *now;
	struct quota *quota;
	struct locks *locks;
};

static struct live_conf *wrap(struct conf *conf)
{
	struct live_conf *w = xcalloc(1, sizeof(*w));

	w->conf = conf;
	atomic_init(&w->refs, 1);
	return w;
}

struct live *live_new(struct conf *conf, struct quota *quota, struct locks *locks)
{
	struct live *live = xcalloc(1, sizeof(*live));

	(void)pthread_mutex_init(&live->lock, NULL);
	(void)pthread_mutex_init(&live->reload, NULL);
	live->now = wrap(conf);
	live->quota = quota;
	live->locks = locks;
	return live;
}

void live_free(struct live **live)
{
	if (*live == NULL)
		return;
	live_put(&(*live)->now);
	(void)pthread_mutex_destroy(&(*live)->lock);
	(void)pthread_mutex_destroy(&(*live)->reload);
	free(*live);
	*live = NULL;
}

struct locks *live_locks(const struct live *live)
{
	return live->locks;
}

struct live_conf *live_get(struct live *live)
{
	struct live_conf *conf;

	(void)pthread_mutex_lock(&live->lock);
	conf = live->now;
	atomic_fetch_add(&conf->refs, 1);
	(void)pthread_mutex_unlock(&live->lock);
	return conf;
}

void live_put(struct live_conf **conf)
{
	struct live_conf *c = *conf;

	*conf = NULL;
	if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	conf_free(&c->conf);
	free(c);
}

const struct conf *live_conf(const struct live_conf *conf)
{
	return conf->conf;
}

int live_reload(struct live *live, struct err *err)
{
	struct quota_limit *limits;
	struct live_conf *old;
	struct conf *conf;
	size_t count;

	(void)pthread_mutex_lock(&live->reload);
	conf = conf_load(live->now->conf->path, err);
	if (conf != NULL) {
		limits = limits_from_conf(conf, &count);
		quota_set_limits(live->quota, limits, count);
		free(limits);
		(void)pthread_mutex_lock(&live->lock);
		old = live->now;
		live->now = wrap(conf);
		(void)pthread_mutex_unlock(&live->lock);
		live_put(&old);
	}
	(void)pthread_mutex_unlock(&live->reload);
	return conf == NULL ? -1 : 0;
}
