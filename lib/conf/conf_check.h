/* What the table of keys can't say: how settings fit together. */
#ifndef RELAY365_CONF_CONF_CHECK_H
#define RELAY365_CONF_CONF_CHECK_H

#include "conf/conf.h"

/*
 * Links mailboxes to tenants, fills in a cloud's endpoints, lower-cases
 * addresses and refuses what can't work. Part of conf_load().
 */
int conf_check(struct conf *conf, struct err *err);

/* Frees what conf_check() has worked out. */
void conf_check_free(struct conf *conf);

/* Lower-cases every entry. */
void conf_fold_list(struct conf_list *list);

/* Whether text is "user@domain" or "*@domain". */
bool conf_is_pattern(const char *text);

/* conf_limits.c: the same for sources and limits. */
int conf_check_sources(struct conf *conf, struct err *err);
int conf_check_limits(struct conf *conf, struct err *err);

#endif
