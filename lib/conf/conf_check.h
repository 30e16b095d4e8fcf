/* What the table of keys can't say: how settings fit together. */
#ifndef RELAY365_CONF_CONF_CHECK_H
#define RELAY365_CONF_CONF_CHECK_H

#include "conf/conf.h"

/*
 * Links mailboxes to tenants, fills in a cloud's endpoints, lower-cases
 * addresses and refuses what can't work. Part of conf_load().
 */
int conf_check(struct conf *conf, struct err *err);

#endif
