/*
 * The calendar: what will end though nothing is wrong yet. Client secrets (by
 * the day in the configuration), certificates (by their files) and refresh
 * tokens that are not used. Each is warned of 30, 14, 7 and 1 days ahead.
 */
#ifndef RELAY365_TOKEN_CALENDAR_H
#define RELAY365_TOKEN_CALENDAR_H

#include "token/identity.h"

#include "conf/conf.h"

struct calendar;

struct calendar *calendar_new(void);
void calendar_free(struct calendar **calendar);

/*
 * Reads certificates anew, warns of what comes near and clears what is well
 * again. After the configuration was read, and every few hours.
 */
void calendar_look(struct calendar *calendar, const struct conf *conf,
		   struct identity *const *identity, size_t identities, int64_t now_wall_ms);

/* Whether what this alarm's id names ends some day, as far as is known. */
bool calendar_has(const struct calendar *calendar, const char *id);

/* For status: what was found, [{"id", "what", "ends", "days_left"}, ...]. */
cJSON *calendar_json(const struct calendar *calendar, int64_t now_wall_ms);

/* 0: more than 30 days; then 1 to 4, the nearer the higher; 5: it has ended. */
int calendar_level(int64_t ends_s, int64_t now_s);

#endif
