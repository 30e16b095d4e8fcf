/*
 * The configuration in force, with the authorities that each tenant's server
 * is checked against. A session keeps the one it began with. Any thread.
 */
#ifndef RELAY365_SENDMAIL_LIVE_H
#define RELAY365_SENDMAIL_LIVE_H

#include "conf/conf.h"
#include "tls/tls.h"

struct live;

/* One configuration; counted. */
struct live_conf {
	struct conf *conf;

	/* private */
	struct tls_trust **trust; /* of each tenant */
	unsigned int refs;
};

/* Takes conf over, on failure too. NULL: an authority's file can't be read. */
struct live *live_new(struct conf *conf, struct err *err);
void live_free(struct live **live);

struct live_conf *live_get(struct live *live);
void live_put(struct live *live, struct live_conf **conf);

struct tls_trust *live_trust(const struct live_conf *conf, const struct conf_tenant *tenant);

/* Reads the file again, and the authorities. -1: the old one stays, err says why. */
int live_reload(struct live *live, struct err *err);

#endif
