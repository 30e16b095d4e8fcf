/*
 * Tells the admin what begins to go wrong: limits that are nearly full
 * (quota.h's incidents) and sources that run away (usage.h's). Each incident
 * has a number, which the log lines about it carry as four hex digits. Told as
 * log events, as alarms (alarm.h) and in status.
 */
#ifndef RELAY365_MILTER_INCIDENTS_H
#define RELAY365_MILTER_INCIDENTS_H

#include "base/loop.h"
#include "milter/live.h"
#include "milter/usage.h"
#include "quota/quota.h"

#include <cjson/cJSON.h>

struct incidents;

/* Looks on the loop each second, from now on. All must outlive it. */
struct incidents *incidents_watch(struct loop *loop, struct live *live, struct quota *quota,
				  struct usage *usage);
void incidents_free(struct incidents **incidents);

/* Adds "incidents", "runaways" and "alarms" to a status. */
void incidents_status(const struct incidents *incidents, cJSON *status);

#endif
