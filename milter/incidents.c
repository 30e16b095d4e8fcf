#include "milter/incidents.h"

#include "alarm/alarm.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/plain.h"
#include "base/xalloc.h"
#include "milter/replies.h"
#include "proto/json_text.h"
#include "proto/json_time.h"

enum { TICK_MS = 1000, TOP_SOURCES = 3, RUNAWAYS_TOLD = 20, USE_TEXT = 480 };

/* Alarms about limits and about sources have ids that begin so. */
#define LIMIT_ID "limit/"
#define RUNAWAY_ID "runaway/"

struct incidents {
	struct loop *loop;
	struct loop_timer tick;
	struct live *live;
	struct quota *quota;
	struct usage *usage;
};

/* ---- who fills a limit ---- */

/* The sources that sent most of what fills it; none where that is not known, or the key itself.
 */
static size_t top_of(const struct incidents *incidents, const struct conf *conf,
		     const struct quota_incident *incident, struct usage_row top_r[TOP_SOURCES])
{
	switch (incident->per) {
	case QUOTA_PER_MAILBOX:
		return usage_top(incidents->usage, incident->key, top_r, TOP_SOURCES);
	case QUOTA_PER_TENANT:
		if (conf->tenants > 1)
			return 0;
		return usage_top(incidents->usage, NULL, top_r, TOP_SOURCES);
	case QUOTA_PER_EVERYONE:
		return usage_top(incidents->usage, NULL, top_r, TOP_SOURCES);
	case QUOTA_PER_SOURCE:
	case QUOTA_PER_SENDER:
	case QUOTA_PER_SENDER_DOMAIN:
		break;
	}
	return 0;
}

static void top_text(const struct usage_row *top, size_t count, struct buf *text)
{
	for (size_t i = 0; i < count; i++)
		(void)buf_addf(text, "%s%.100s (%lld)", i == 0 ? "" : ", ", top[i].source,
			       (long long)top[i].recipients);
}

/* ---- limits ---- */

static void use_text(const struct quota_incident *incident, char out[USE_TEXT])
{
	struct quota_verdict verdict = {
		.per = incident->per,
		.count = incident->count,
		.window_ms = incident->window_ms,
		.used = incident->used,
		.max = incident->max,
		.cap = incident->max,
	};

	(void)snprintf(verdict.limit, sizeof(verdict.limit), "%s", incident->limit);
	(void)snprintf(verdict.key, sizeof(verdict.key), "%s", incident->key);
	reply_use(&verdict, out, USE_TEXT);
}

static void log_limit(const struct quota_incident *incident, const char *top)
{
	bool ends = incident->state == QUOTA_INCIDENT_ENDS;
	char number[REPLY_INCIDENT_MAX];
	struct log_line line;

	log_begin(&line, ends ? EV_LIMIT_OK : EV_LIMIT_HIGH, NULL);
	log_str(&line, "limit", incident->limit);
	log_str(&line, "key", incident->key);
	if (!ends)
		log_int(&line, "percent", incident->percent);
	log_ratio(&line, "used", incident->used, incident->max);
	if (!ends && incident->full_at_wall_ms > 0)
		log_time(&line, "full_at", incident->full_at_wall_ms);
	if (!ends && top[0] != '\0')
		log_str(&line, "top", top);
	if (incident->shadow)
		log_str(&line, "shadow", "yes");
	log_str(&line, "incident", reply_incident(incident->number, number));
	log_end(&line);
}

/* One user near a limit of its own is its own affair until it is nearly there. */
static int alarm_level(const struct quota_incident *incident)
{
	bool all = incident->per == QUOTA_PER_MAILBOX || incident->per == QUOTA_PER_TENANT ||
		   incident->per == QUOTA_PER_EVERYONE;

	return (all ? 1 : 0) + (incident->percent == QUOTA_FULLER_PERCENT ? 1 : 0);
}

static void limit_id(const struct quota_incident *incident, char id[ALARM_ID_MAX + 1])
{
	(void)snprintf(id, ALARM_ID_MAX + 1, LIMIT_ID "%s/%.130s", incident->limit,
		       incident->key);
	(void)plain(id);
}

static void alarm_limit(const struct quota_incident *incident, const char *top)
{
	char id[ALARM_ID_MAX + 1], use[USE_TEXT], number[REPLY_INCIDENT_MAX],
		when[CLOCK_TEXT_MAX];
	struct buf what = BUF_INIT(ALARM_TEXT_MAX);
	int level = alarm_level(incident);

	limit_id(incident, id);
	if (incident->state == QUOTA_INCIDENT_ENDS) {
		alarm_clear(id);
		return;
	}
	if (level == 0 || incident->shadow)
		return;
	use_text(incident, use);
	(void)buf_adds(&what, use);
	if (incident->full_at_wall_ms > 0 && incident->used < incident->max)
		(void)buf_addf(
			&what, "; at this pace it is full at %s",
			clock_for_people(incident->full_at_wall_ms, clock_wall_ms(), when));
	if (top[0] != '\0')
		(void)buf_addf(&what, "; most in 24 h is from %s", top);
	(void)buf_addf(&what, "; incident %s", reply_incident(incident->number, number));
	alarm_raise(
		id, level, buf_text(&what),
		"see with \"relay365 limits\" who sends most, and stop what should not be sent; "
		"relay365.conf(5) says what happens when the limit is full");
	buf_clear(&what);
}

static void tell_limits(struct incidents *incidents, const struct conf *conf)
{
	struct quota_incident *list;
	size_t count = quota_incidents(incidents->quota, true, &list);

	for (size_t i = 0; i < count; i++) {
		struct buf text = BUF_INIT(USE_TEXT);
		struct usage_row top[TOP_SOURCES];

		top_text(top, top_of(incidents, conf, &list[i], top), &text);
		log_limit(&list[i], buf_text(&text));
		alarm_limit(&list[i], buf_text(&text));
		buf_clear(&text);
	}
	free(list);
}

/* ---- sources that run away ---- */

static void runaway_id(const struct usage_row *row, char id[ALARM_ID_MAX + 1])
{
	(void)snprintf(id, ALARM_ID_MAX + 1, RUNAWAY_ID "%.150s", row->source);
	(void)plain(id);
}

static void raise_runaway(const struct usage_row *row)
{
	char id[ALARM_ID_MAX + 1], number[REPLY_INCIDENT_MAX];
	struct buf what = BUF_INIT(ALARM_TEXT_MAX);

	(void)buf_addf(&what,
		       "source %.150s sends far more than is usual for it: to %lld recipients in "
		       "this hour, and to %lld at most in others; incident %s",
		       row->source, (long long)row->recipients, (long long)row->usual,
		       reply_incident(row->incident, number));
	runaway_id(row, id);
	alarm_raise(id, 1, buf_text(&what),
		    "find out what it sends; \"relay365 lock\" stops it, and runaway_action in "
		    "relay365.conf can hold such mail");
	buf_clear(&what);
}

static void log_end_of(const struct usage_row *row)
{
	struct log_line line;

	log_begin(&line, EV_RUNAWAY_END, NULL);
	log_str(&line, "source", row->source);
	log_int(&line, "hour", row->recipients);
	log_int(&line, "usual", row->usual);
	log_end(&line);
}

/* Their beginning is logged with the message. */
static void tell_runaways(struct incidents *incidents, const struct conf *conf)
{
	struct usage_row row[RUNAWAYS_TOLD];
	char id[ALARM_ID_MAX + 1];
	size_t count = usage_roll(incidents->usage, conf->runaway_factor, row, RUNAWAYS_TOLD);

	for (size_t i = 0; i < count; i++) {
		log_end_of(&row[i]);
		runaway_id(&row[i], id);
		alarm_clear(id);
	}
	count = usage_runaways(incidents->usage, row, RUNAWAYS_TOLD);
	for (size_t i = 0; i < count; i++)
		raise_runaway(&row[i]);
}

/* ---- the loop ---- */

static void on_tick(struct loop_timer *timer)
{
	struct incidents *incidents = timer->owner;
	struct live_conf *live = live_get(incidents->live);

	tell_limits(incidents, live_conf(live));
	tell_runaways(incidents, live_conf(live));
	live_put(&live);
	alarms_tick();
	loop_timer_in(incidents->loop, timer, TICK_MS);
}

/* What was raised before a restart and is over, or is to be found again. */
static void clear_old(const struct quota_incident *list, size_t count)
{
	cJSON *alarms = alarms_status();
	const cJSON *alarm;

	cJSON_ArrayForEach (alarm, alarms) {
		const char *id =
			cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(alarm, "id"));
		bool lasts = false;

		if (id == NULL || (strncmp(id, LIMIT_ID, strlen(LIMIT_ID)) != 0 &&
				   strncmp(id, RUNAWAY_ID, strlen(RUNAWAY_ID)) != 0))
			continue;
		for (size_t i = 0; i < count && !lasts; i++) {
			char own[ALARM_ID_MAX + 1];

			limit_id(&list[i], own);
			lasts = strcmp(id, own) == 0;
		}
		if (!lasts)
			alarm_clear(id);
	}
	cJSON_Delete(alarms);
}

struct incidents *incidents_watch(struct loop *loop, struct live *live, struct quota *quota,
				  struct usage *usage)
{
	struct incidents *incidents = xcalloc(1, sizeof(*incidents));
	struct quota_incident *list;
	size_t count;

	incidents->loop = loop;
	incidents->live = live;
	incidents->quota = quota;
	incidents->usage = usage;
	quota_watch_all(quota);
	count = quota_incidents(quota, false, &list);
	clear_old(list, count);
	free(list);
	incidents->tick.due = on_tick;
	incidents->tick.owner = incidents;
	loop_timer_in(loop, &incidents->tick, TICK_MS);
	return incidents;
}

void incidents_free(struct incidents **incidents)
{
	if (*incidents == NULL)
		return;
	loop_timer_stop((*incidents)->loop, &(*incidents)->tick);
	free(*incidents);
	*incidents = NULL;
}

/* ---- status ---- */

static void add_number(cJSON *to, unsigned int incident)
{
	char number[REPLY_INCIDENT_MAX];

	(void)cJSON_AddStringToObject(to, "incident", reply_incident(incident, number));
}

static cJSON *limit_status(const struct incidents *incidents, const struct conf *conf,
			   const struct quota_incident *incident)
{
	cJSON *item = cJSON_CreateObject(), *sources;
	struct usage_row top[TOP_SOURCES];
	size_t count = top_of(incidents, conf, incident, top);
	char text[USE_TEXT];

	add_number(item, incident->number);
	(void)cJSON_AddStringToObject(item, "limit", incident->limit);
	json_add_text(item, "key", incident->key);
	(void)cJSON_AddNumberToObject(item, "percent", incident->percent);
	(void)cJSON_AddNumberToObject(item, "used", (double)incident->used);
	(void)cJSON_AddNumberToObject(item, "max", (double)incident->max);
	use_text(incident, text);
	(void)cJSON_AddStringToObject(item, "text", text);
	json_add_time(item, "since", incident->since_wall_ms);
	json_add_time(item, "full_at", incident->full_at_wall_ms);
	sources = cJSON_AddArrayToObject(item, "top");
	for (size_t i = 0; i < count; i++) {
		cJSON *source = cJSON_CreateObject();

		json_add_text(source, "source", top[i].source);
		(void)cJSON_AddNumberToObject(source, "recipients", (double)top[i].recipients);
		(void)cJSON_AddItemToArray(sources, source);
	}
	return item;
}

void incidents_status(const struct incidents *incidents, cJSON *status)
{
	struct live_conf *live = live_get(incidents->live);
	cJSON *limits = cJSON_AddArrayToObject(status, "incidents");
	cJSON *runaways = cJSON_AddArrayToObject(status, "runaways");
	struct usage_row row[RUNAWAYS_TOLD];
	struct quota_incident *list;
	size_t count = quota_incidents(incidents->quota, false, &list);

	for (size_t i = 0; i < count; i++)
		(void)cJSON_AddItemToArray(limits,
					   limit_status(incidents, live_conf(live), &list[i]));
	free(list);
	count = usage_runaways(incidents->usage, row, RUNAWAYS_TOLD);
	for (size_t i = 0; i < count; i++) {
		cJSON *item = cJSON_CreateObject();

		add_number(item, row[i].incident);
		json_add_text(item, "source", row[i].source);
		(void)cJSON_AddNumberToObject(item, "hour", (double)row[i].recipients);
		(void)cJSON_AddNumberToObject(item, "usual", (double)row[i].usual);
		json_add_time(item, "since", row[i].since_wall_ms);
		(void)cJSON_AddItemToArray(runaways, item);
	}
	(void)cJSON_AddItemToObject(status, "alarms", alarms_status());
	live_put(&live);
}
