/* What the table of keys can't say: how settings fit together. */
#ifndef RELAY365_CONF_CONF_CHECK_H
#define RELAY365_CONF_CONF_CHECK_H

#include "conf/conf.h"

/*
 * Links mailboxes to tenants, fills in a cloud's endpoints, lower-cases
 * addresses and refuses what can't work. Part of conf_load().
 */
int conf_check(struct conf *conf, struct err *err);

/* conf_index.c: what the look-ups of mailboxes need; before all other checks. */
void conf_index(struct conf *conf);

/* Frees what conf_check() has worked out. */
void conf_check_free(struct conf *conf);

/* Lower-cases every entry. */
void conf_fold_list(struct conf_list *list);

/* Whether text is "user@domain" or "*@domain". */
bool conf_is_pattern(const char *text);

/* conf_grant.c: a tenant's credential, and its cloud's endpoints. */
int conf_check_grant(struct conf_tenant *tenant, struct err *err);

/* conf_limits.c: the same for sources and limits. */
int conf_check_sources(struct conf *conf, struct err *err);
int conf_check_limits(struct conf *conf, struct err *err);

/* conf_limits.c: "10.1.0.5", "10.2.0.0/16", "2001:db8::/32"; -1: it is none of these. */
int conf_network_parse(const char *text, struct conf_network *network_r);

/* Whether the network holds the address (all of whose bits count). */
bool conf_network_has(const struct conf_network *network, const struct conf_network *address);

/* conf_submit.c: the same for what is relay365-submit's. */
int conf_check_submit(struct conf *conf, struct err *err);

#endif
