#include "base/compat.h"

#include "base/xalloc.h"
#include "quota/forecast.h"
#include "quota/quota_private.h"

#include <sys/random.h>

/* How full: 0, 80 or 95. Whoever waits has filled more than there is. */
static int percent_of(int64_t used, int64_t max)
{
	double percent = max <= 0 ? 0 : 100.0 * (double)used / (double)max;

	if (percent >= QUOTA_FULLER_PERCENT)
		return QUOTA_FULLER_PERCENT;
	return percent >= QUOTA_FULL_PERCENT ? QUOTA_FULL_PERCENT : 0;
}

static unsigned int new_number(void)
{
	uint16_t number = 0;

	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		number = (uint16_t)clock_boot_ms();
	return number == 0 ? 1 : number;
}

void quota_watch_counter(struct quota *quota, struct counter *counter, int64_t used)
{
	int percent = percent_of(used, counter->limit->max);
	struct quota_high *high;

	if (percent == 0 || counter->incident != 0) {
		if (percent > counter->percent)
			counter->percent = (unsigned char)percent;
		return;
	}
	if (quota->highs == QUOTA_INCIDENTS_MAX)
		return;
	quota->high = xreallocarray(quota->high, quota->highs + 1, sizeof(*quota->high));
	high = &quota->high[quota->highs++];
	*high = (struct quota_high){.counter = counter, .since_wall_ms = clock_wall_ms()};
	counter->refs++; /* it stays while somebody looks at it */
	counter->incident = (uint16_t)new_number();
	counter->percent = (unsigned char)percent;
}

static enum quota_incident_state state_of(struct quota_high *high, int64_t now_ms)
{
	struct counter *counter = high->counter;
	const struct quota_limit *limit = counter->limit;

	if (limit == NULL || limit->max <= 0 ||
	    (double)window_used(&counter->window, now_ms) * 100 <
		    (double)limit->max * QUOTA_REARM_PERCENT)
		return QUOTA_INCIDENT_ENDS;
	if (high->told == 0)
		return QUOTA_INCIDENT_BEGINS;
	return counter->percent > high->told ? QUOTA_INCIDENT_GROWS : QUOTA_INCIDENT_LASTS;
}

static void describe(const struct quota_high *high, int64_t now_ms, int64_t wall_ms,
		     struct quota_incident *incident)
{
	struct counter *counter = high->counter;
	const struct quota_limit *limit = counter->limit;
	int64_t full_ms;

	incident->number = counter->incident;
	incident->percent = counter->percent;
	incident->since_wall_ms = high->since_wall_ms;
	(void)snprintf(incident->limit, sizeof(incident->limit), "%.*s",
		       (int)(counter->key - counter->name) - 1, counter->name);
	(void)snprintf(incident->key, sizeof(incident->key), "%s", counter->key);
	incident->used = window_used(&counter->window, now_ms);
	if (limit == NULL)
		return;
	incident->per = limit->per;
	incident->count = limit->count;
	incident->max = limit->max;
	incident->window_ms = limit->window_ms;
	incident->shadow = limit->shadow;
	full_ms = forecast_full_at(&counter->window, now_ms, limit->max);
	incident->full_at_wall_ms = full_ms < 0 ? 0 : wall_ms + full_ms - now_ms;
}

size_t quota_incidents(struct quota *quota, bool news_only, struct quota_incident **list_r)
{
	struct quota_incident *list;
	size_t n = 0, kept = 0;
	int64_t now_ms, wall_ms;

	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, &wall_ms);
	list = xcalloc(quota->highs, sizeof(*list));
	for (size_t i = 0; i < quota->highs; i++) {
		struct quota_high *high = &quota->high[i];
		enum quota_incident_state state = state_of(high, now_ms);

		if (!news_only || state != QUOTA_INCIDENT_LASTS) {
			list[n].state = state;
			describe(high, now_ms, wall_ms, &list[n++]);
		}
		if (news_only)
			high->told = high->counter->percent;
		if (news_only && state == QUOTA_INCIDENT_ENDS) {
			high->counter->incident = 0;
			high->counter->percent = 0;
			high->counter->refs--;
		} else {
			quota->high[kept++] = *high;
		}
	}
	quota->highs = kept;
	(void)pthread_mutex_unlock(&quota->lock);
	*list_r = list;
	return n;
}

/* Limits of one source or sender, of which there may be very many. */
static bool is_of_one(const struct quota_limit *limit)
{
	return limit->per == QUOTA_PER_SOURCE || limit->per == QUOTA_PER_SENDER ||
	       limit->per == QUOTA_PER_SENDER_DOMAIN;
}

void quota_watch_all(struct quota *quota)
{
	int64_t now_ms;

	(void)pthread_mutex_lock(&quota->lock);
	now_ms = quota_now(quota, NULL);
	for (size_t i = 0; i < quota->counters.slots; i++)
		for (struct counter *c = quota->counters.slot[i]; c != NULL; c = c->next) {
			size_t before = quota->highs;

			if (c->limit == NULL)
				continue;
			quota_watch_counter(quota, c, window_used(&c->window, now_ms));
			if (quota->highs > before && is_of_one(c->limit))
				quota->high[before].told = c->percent;
		}
	(void)pthread_mutex_unlock(&quota->lock);
}
