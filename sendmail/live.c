#include "base/compat.h"

#include "sendmail/live.h"

#include "base/xalloc.h"

#include <pthread.h>

struct live {
	pthread_mutex_t lock; /* of now, and of every refs */
	struct live_conf *now;
};

static void drop(struct live_conf *conf)
{
	for (size_t i = 0; i < conf->conf->tenants; i++)
		tls_trust_free(&conf->trust[i]);
	free(conf->trust);
	conf_free(&conf->conf);
	free(conf);
}

static struct live_conf *wrap(struct conf *conf, struct err *err)
{
	struct live_conf *w = xcalloc(1, sizeof(*w));

	w->conf = conf;
	w->refs = 1;
	w->trust = xcalloc(conf->tenants, sizeof(*w->trust));
	for (size_t i = 0; i < conf->tenants; i++) {
		w->trust[i] = tls_trust_new(conf->tenant[i].ca_file, err);
		if (w->trust[i] == NULL) {
			err_add(err, "%s:%u: tenant \"%s\"", conf->path, conf->tenant[i].line,
				conf->tenant[i].name);
			drop(w);
			return NULL;
		}
	}
	return w;
}

struct live *live_new(struct conf *conf, struct err *err)
{
	struct live_conf *first = wrap(conf, err);
	struct live *live;

	if (first == NULL)
		return NULL;
	live = xcalloc(1, sizeof(*live));
	(void)pthread_mutex_init(&live->lock, NULL);
	live->now = first;
	return live;
}

void live_free(struct live **live)
{
	if (*live == NULL)
		return;
	live_put(*live, &(*live)->now);
	(void)pthread_mutex_destroy(&(*live)->lock);
	free(*live);
	*live = NULL;
}

struct live_conf *live_get(struct live *live)
{
	struct live_conf *conf;

	(void)pthread_mutex_lock(&live->lock);
	conf = live->now;
	conf->refs++;
	(void)pthread_mutex_unlock(&live->lock);
	return conf;
}

void live_put(struct live *live, struct live_conf **conf)
{
	struct live_conf *c = *conf;
	bool last;

	if (c == NULL)
		return;
	*conf = NULL;
	(void)pthread_mutex_lock(&live->lock);
	last = --c->refs == 0;
	(void)pthread_mutex_unlock(&live->lock);
	if (last)
		drop(c);
}

struct tls_trust *live_trust(const struct live_conf *conf, const struct conf_tenant *tenant)
{
	return conf->trust[tenant - conf->conf->tenant];
}

int live_reload(struct live *live, struct err *err)
{
	struct conf *conf = conf_load(live->now->conf->path, err);
	struct live_conf *new = conf == NULL ? NULL : wrap(conf, err), *old;

	if (new == NULL)
		return -1;
	(void)pthread_mutex_lock(&live->lock);
	old = live->now;
	live->now = new;
	(void)pthread_mutex_unlock(&live->lock);
	live_put(live, &old);
	return 0;
}
