/*
 * The configuration in force. A message keeps the one it began with; a reload
 * puts another in its place, which the next message gets. Any thread.
 */
#ifndef RELAY365_MILTER_LIVE_H
#define RELAY365_MILTER_LIVE_H

#include "conf/conf.h"
#include "quota/locks.h"
#include "quota/quota.h"

struct live;

/* A configuration with a count of who uses it. */
struct live_conf;

/* Takes conf over. quota gets a new configuration's limits; it and locks must outlive live. */
struct live *live_new(struct conf *conf, struct quota *quota, struct locks *locks);
void live_free(struct live **live);

struct locks *live_locks(const struct live *live);

struct live_conf *live_get(struct live *live);
void live_put(struct live_conf **conf);
const struct conf *live_conf(const struct live_conf *conf);

/* Reads the file again. 0: it is in force. -1: the old one stays, err says why. */
int live_reload(struct live *live, struct err *err);

#endif
