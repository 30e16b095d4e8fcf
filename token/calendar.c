#include "token/calendar.h"

#include "token/assertion.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "proto/json_time.h"

enum { DAY_S = 86400 };

struct entry {
	char id[ALARM_ID_MAX];
	char what[300];
	int64_t ends_s;
	int level; /* that was warned of */
	bool seen; /* in this look */
	struct entry *next;
};

struct calendar {
	struct entry *first;
};

int calendar_level(int64_t ends_s, int64_t now_s)
{
	static const int days[] = {30, 14, 7, 1};
	int level = 0;

	for (size_t i = 0; i < ARRAY_LEN(days); i++)
		if (ends_s - now_s <= (int64_t)days[i] * DAY_S)
			level++;
	return level + (ends_s <= now_s);
}

static long long days_left(int64_t ends_s, int64_t now_s)
{
	return ends_s <= now_s ? 0 : (long long)((ends_s - now_s) / DAY_S);
}

static void warn(struct entry *entry, const char *action, int64_t now_s)
{
	int level = calendar_level(entry->ends_s, now_s);
	char what[ALARM_TEXT_MAX], date[CLOCK_TEXT_MAX];
	long long days = days_left(entry->ends_s, now_s);

	(void)clock_rfc3339(entry->ends_s * 1000, date);
	date[strlen("2026-11-23")] = '\0';
	if (level > 4)
		(void)snprintf(what, sizeof(what), "%s ended on %s", entry->what, date);
	else
		(void)snprintf(what, sizeof(what), "%s ends on %s, in %lld day%s", entry->what,
			       date, days, days == 1 ? "" : "s");
	if (level > 0)
		alarm_raise(entry->id, level, what, action);
	else
		alarm_clear(entry->id);
	if (level > entry->level)
		log_say(EV_WARNING, "%s; %s", what, action);
	entry->level = level;
}

/* Something that ends at ends_s; 0: not known, and so not in the calendar. */
static void note(struct calendar *calendar, const char *id, const char *what, int64_t ends_s,
		 const char *action, int64_t now_s)
{
	struct entry *entry = calendar->first;

	if (ends_s <= 0)
		return;
	while (entry != NULL && strcmp(entry->id, id) != 0)
		entry = entry->next;
	if (entry == NULL) {
		entry = xcalloc(1, sizeof(*entry));
		(void)snprintf(entry->id, sizeof(entry->id), "%s", id);
		entry->next = calendar->first;
		calendar->first = entry;
	}
	entry->seen = true;
	entry->ends_s = ends_s;
	(void)snprintf(entry->what, sizeof(entry->what), "%s", what);
	warn(entry, action, now_s);
}

static void note_certificate(struct calendar *calendar, const struct conf_tenant *tenant,
			     const char *which, const char *path, int64_t now_s)
{
	char id[ALARM_ID_MAX], what[300];

	if (path[0] == '\0')
		return;
	(void)snprintf(id, sizeof(id), "calendar/%s/%s", tenant->name, which);
	(void)snprintf(what, sizeof(what), "tenant %s: the certificate in %s", tenant->name,
		       path);
	note(calendar, id, what, assertion_expires_s(path, NULL),
	     "make a new certificate, upload it to the app registration, and set "
	     "next_certificate and next_private_key; see relay365.conf(5)",
	     now_s);
}

static void note_tenant(struct calendar *calendar, const struct conf_tenant *tenant,
			int64_t now_s)
{
	char id[ALARM_ID_MAX], what[300];

	(void)snprintf(id, sizeof(id), "calendar/%s/secret", tenant->name);
	(void)snprintf(what, sizeof(what), "tenant %s: the client secret in %s", tenant->name,
		       tenant->secret_file);
	note(calendar, id, what, tenant->secret_expires_s,
	     "make a new secret in entra.microsoft.com, App registrations, your app, "
	     "Certificates & secrets, put its Value into secret_file, and set secret_expires",
	     now_s);
	note_certificate(calendar, tenant, "certificate", tenant->certificate, now_s);
	note_certificate(calendar, tenant, "next_certificate", tenant->next_certificate, now_s);
}

static void note_identity(struct calendar *calendar, const struct identity *identity,
			  int64_t now_s)
{
	char id[ALARM_ID_MAX], what[300], action[200];

	(void)snprintf(id, sizeof(id), "calendar/%s", identity_name(identity));
	(void)snprintf(what, sizeof(what), "%s: the user's sign-in, which could not be renewed,",
		       identity_name(identity));
	(void)snprintf(action, sizeof(action), "read why in: relay365 status; or sign in again");
	note(calendar, id, what, identity_idle_end_s(identity), action, now_s);
}

/* What is not in the configuration any more. */
static void forget_unseen(struct calendar *calendar)
{
	struct entry **at = &calendar->first;

	while (*at != NULL) {
		struct entry *entry = *at;

		if (entry->seen) {
			entry->seen = false;
			at = &entry->next;
			continue;
		}
		alarm_clear(entry->id);
		*at = entry->next;
		free(entry);
	}
}

void calendar_look(struct calendar *calendar, const struct conf *conf,
		   struct identity *const *identity, size_t identities, int64_t now_wall_ms)
{
	int64_t now_s = now_wall_ms / 1000;

	for (size_t i = 0; i < conf->tenants; i++)
		note_tenant(calendar, &conf->tenant[i], now_s);
	for (size_t i = 0; i < identities; i++)
		note_identity(calendar, identity[i], now_s);
	forget_unseen(calendar);
}

bool calendar_has(const struct calendar *calendar, const char *id)
{
	const struct entry *entry = calendar->first;

	while (entry != NULL && strcmp(entry->id, id) != 0)
		entry = entry->next;
	return entry != NULL;
}

cJSON *calendar_json(const struct calendar *calendar, int64_t now_wall_ms)
{
	cJSON *list = cJSON_CreateArray();

	for (const struct entry *e = calendar->first; e != NULL; e = e->next) {
		cJSON *json = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(json, "id", e->id);
		(void)cJSON_AddStringToObject(json, "what", e->what);
		json_add_time(json, "ends", e->ends_s * 1000);
		(void)cJSON_AddNumberToObject(json, "days_left",
					      (double)days_left(e->ends_s, now_wall_ms / 1000));
		(void)cJSON_AddBoolToObject(json, "near",
					    calendar_level(e->ends_s, now_wall_ms / 1000) > 0);
		(void)cJSON_AddItemToArray(list, json);
	}
	return list;
}

struct calendar *calendar_new(void)
{
	return xcalloc(1, sizeof(struct calendar));
}

void calendar_free(struct calendar **calendar)
{
	if (*calendar == NULL)
		return;
	while ((*calendar)->first != NULL) {
		struct entry *entry = (*calendar)->first;

		(*calendar)->first = entry->next;
		free(entry);
	}
	free(*calendar);
	*calendar = NULL;
}
