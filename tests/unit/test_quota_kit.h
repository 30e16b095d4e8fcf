/*
 * What the tests of quota.h share: clocks that are theirs (link with
 * --wrap=clock_wall_ms,--wrap=clock_boot_ms), limits, and a message in a call.
 */
#ifndef RELAY365_TESTS_QUOTA_KIT_H
#define RELAY365_TESTS_QUOTA_KIT_H

#include "quota/quota.h"

#define DAY (24 * 3600 * 1000LL)
#define HOUR (3600 * 1000LL)
#define MINUTE 60000LL
#define T0 (1795442825000LL / MINUTE * MINUTE)
#define FORGOTTEN (2 * HOUR)

extern int64_t kit_wall_ms, kit_boot_ms;

/* cmocka's set-up: a private folder, and both clocks at their start. */
int kit_enter(void **state);

/* Time goes on, for both clocks. */
void kit_pass(int64_t ms);

/* "day": recipients of relay@contoso.com in 24 h. "per-user": of any source in 1 h. */
struct quota_limit kit_day_limit(int64_t max, enum quota_action action);
struct quota_limit kit_source_limit(enum quota_count count, int64_t max);

/* A message of the source "erp" through relay@contoso.com. */
extern const struct quota_facts kit_relay;

struct quota *kit_open(const struct quota_limit *limits, size_t count);

/* Whether n more recipients were reserved. */
bool kit_reserve(struct quota_message *m, const struct quota_facts *facts, int64_t n,
		 struct quota_verdict *verdict);

/* One whole message of n recipients; whether it was taken. */
bool kit_send(struct quota *quota, int64_t n);

int64_t kit_used(struct quota *quota, const char *limit, const char *key);
int64_t kit_reserved(struct quota *quota, const char *limit, const char *key);

/* How many counters status would show. */
int kit_rows(struct quota *quota);

/* How large a file may grow: the nearest to a full disk that needs no root. */
void kit_file_limit(unsigned long long bytes);

#endif
