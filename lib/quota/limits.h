/* The configuration's limits as quota.h wants them. Pure. */
#ifndef RELAY365_QUOTA_LIMITS_H
#define RELAY365_QUOTA_LIMITS_H

#include "conf/conf.h"
#include "quota/policy.h"

#define LIMITS_DAY "recipients_per_day" /* the built-in limit's name */
#define LIMITS_EXTERNAL "external_recipients_per_day"
#define LIMITS_DAY_MS (24 * 3600 * 1000LL)

/* Whether a limit counts bytes, so that messages must be measured. */
bool limits_count_bytes(const struct conf *conf);

/* All limits of a configuration, to be freed. *count_r may be 0. */
struct quota_limit *limits_from_conf(const struct conf *conf, size_t *count_r);

#endif
