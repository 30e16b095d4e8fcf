#include "milter/control.h"

#include "alarm/alarm.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/plain.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "milter/fullest.h"
#include "milter/milter.h"
#include "conf/conf_reload.h"
#include "proto/control.h"
#include "proto/json_text.h"
#include "proto/json_time.h"
#include "quota/limits.h"
#include "quota/locks_control.h"

#include <strings.h>
#include <unistd.h>

struct milter_control {
	struct control_server *server;
	struct live *live;
	struct quota *quota;
	const struct incidents *incidents;
	const char *socket;
	int64_t started_wall_ms;
};

static void add_use(cJSON *to, int64_t used, int64_t reserved, int64_t room_at_wall_ms,
		    int64_t max, int64_t window_ms)
{
	(void)cJSON_AddNumberToObject(to, "used", (double)used);
	(void)cJSON_AddNumberToObject(to, "reserved", (double)reserved);
	(void)cJSON_AddNumberToObject(to, "max", (double)max);
	(void)cJSON_AddNumberToObject(to, "window_s", (double)window_ms / 1000);
	json_add_time(to, "room_at", room_at_wall_ms);
}

static void add_mailboxes(cJSON *to, struct quota *quota, const struct conf *conf)
{
	for (size_t i = 0; i < conf->mailboxes; i++) {
		const struct conf_mailbox *m = &conf->mailbox[i];
		cJSON *item = cJSON_CreateObject();
		struct quota_row row;

		quota_look(quota, LIMITS_DAY, m->address, &row);
		(void)cJSON_AddStringToObject(item, "name", m->name);
		(void)cJSON_AddStringToObject(item, "address", m->address);
		(void)cJSON_AddStringToObject(item, "limit", LIMITS_DAY);
		add_use(item, row.used, row.reserved, row.room_at_wall_ms, m->recipients_per_day,
			LIMITS_DAY_MS);
		(void)cJSON_AddItemToArray(to, item);
	}
}

/* The fullest keys of each limit but the mailboxes' own. */
static void add_limits(cJSON *to, struct quota *quota, const struct conf *conf)
{
	size_t count;
	struct quota_limit *limits = limits_from_conf(conf, &count);
	struct fullest_limit *found = fullest_find(quota, limits, count);

	for (size_t i = 0; i < count; i++) {
		const struct quota_limit *limit = &limits[i];

		for (size_t k = 0; k < found[i].count && strcmp(limit->name, LIMITS_DAY) != 0;
		     k++) {
			const struct fullest_key *key = &found[i].key[k];
			cJSON *item = cJSON_CreateObject();

			(void)cJSON_AddStringToObject(item, "limit", limit->name);
			(void)cJSON_AddStringToObject(item, "per", policy_per_name(limit->per));
			(void)cJSON_AddStringToObject(item, "count",
						      policy_count_name(limit->count));
			json_add_text(item, "key", key->name);
			add_use(item, key->used, key->reserved, key->room_at_wall_ms, limit->max,
				limit->window_ms);
			(void)cJSON_AddStringToObject(item, "action",
						      policy_action_name(limit->action));
			(void)cJSON_AddItemToArray(to, item);
		}
	}
	fullest_free(&found, count);
	free(limits);
}

static int verb_status(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct milter_control *control = context;
	struct live_conf *live = live_get(control->live);
	const struct conf *conf = live_conf(live);
	cJSON *json = cJSON_CreateObject();

	(void)request;
	(void)err;
	(void)cJSON_AddNumberToObject(json, "pid", (double)getpid());
	(void)cJSON_AddStringToObject(json, "version", PACKAGE_VERSION);
	json_add_time(json, "started", control->started_wall_ms);
	(void)cJSON_AddStringToObject(json, "socket", control->socket);
	(void)cJSON_AddNumberToObject(json, "sessions", milter_sessions());
	(void)cJSON_AddBoolToObject(json, "shadow", conf->shadow);
	if (quota_is_failing(control->quota))
		(void)cJSON_AddStringToObject(
			json, "ledger_problem",
			"accepted mail can't be written down; the log says why");
	locks_control_status(live_locks(control->live), json);
	add_mailboxes(cJSON_AddArrayToObject(json, "mailboxes"), control->quota, conf);
	add_limits(cJSON_AddArrayToObject(json, "limits"), control->quota, conf);
	incidents_status(control->incidents, json);
	live_put(&live);
	*json_r = json;
	return 0;
}

enum { TOP_KEYS = 5 };

static cJSON *limit_json(const struct conf *conf, const struct quota_limit *limit,
			 const struct fullest_limit *found)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *keys;
	char from[4200];

	if (limit->conf == NULL)
		(void)snprintf(from, sizeof(from), "built in");
	else
		(void)snprintf(from, sizeof(from), "%s:%u", conf->path, limit->conf->line);
	(void)cJSON_AddStringToObject(json, "limit", limit->name);
	if (limit->key[0] != '\0')
		(void)cJSON_AddStringToObject(json, "only", limit->key);
	(void)cJSON_AddStringToObject(json, "per", policy_per_name(limit->per));
	(void)cJSON_AddStringToObject(json, "count", policy_count_name(limit->count));
	(void)cJSON_AddNumberToObject(json, "max", (double)limit->max);
	(void)cJSON_AddNumberToObject(json, "window_s", (double)limit->window_ms / 1000);
	(void)cJSON_AddStringToObject(json, "action", policy_action_name(limit->action));
	(void)cJSON_AddStringToObject(json, "kept_by", "relay365-milter");
	(void)cJSON_AddBoolToObject(json, "shadow", limit->shadow);
	(void)cJSON_AddStringToObject(json, "from", from);
	(void)cJSON_AddNumberToObject(json, "keys", (double)found->in_use);
	keys = cJSON_AddArrayToObject(json, "top");
	for (size_t i = 0; i < found->count && i < TOP_KEYS && found->key[i].used > 0; i++) {
		cJSON *item = cJSON_CreateObject();

		json_add_text(item, "key", found->key[i].name);
		(void)cJSON_AddNumberToObject(item, "used", (double)found->key[i].used);
		json_add_time(item, "room_at", found->key[i].room_at_wall_ms);
		(void)cJSON_AddItemToArray(keys, item);
	}
	return json;
}

/* A mailbox's limits that need no count over time. */
static void add_fixed(cJSON *list, const struct conf_mailbox *m)
{
	const struct {
		const char *limit, *count, *action, *kept_by;
		int64_t max, window_s;
	} fixed[] = {
		{"messages_per_minute", "messages", "wait", "relay365-tokend",
		 m->messages_per_minute, 60},
		{"connections", "connections", "wait", "relay365-tokend", m->connections, 0},
		{"recipients_per_message", "recipients", "defer", "relay365-milter",
		 m->recipients_per_message, 0},
		{"message_size", "bytes", "reject", "relay365-milter", m->message_size, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
		cJSON *json;

		if (fixed[i].max == 0)
			continue; /* no limit */
		json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "limit", fixed[i].limit);
		(void)cJSON_AddStringToObject(json, "only", m->address);
		(void)cJSON_AddStringToObject(json, "per", "mailbox");
		(void)cJSON_AddStringToObject(json, "count", fixed[i].count);
		(void)cJSON_AddNumberToObject(json, "max", (double)fixed[i].max);
		(void)cJSON_AddNumberToObject(json, "window_s", (double)fixed[i].window_s);
		(void)cJSON_AddStringToObject(json, "action", fixed[i].action);
		(void)cJSON_AddStringToObject(json, "kept_by", fixed[i].kept_by);
		(void)cJSON_AddBoolToObject(json, "shadow", 0);
		(void)cJSON_AddStringToObject(json, "from", "built in");
		(void)cJSON_AddNumberToObject(json, "keys", 0);
		(void)cJSON_AddArrayToObject(json, "top");
		(void)cJSON_AddItemToArray(list, json);
	}
}

static int verb_limits(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct milter_control *control = context;
	struct live_conf *live = live_get(control->live);
	const struct conf *conf = live_conf(live);
	size_t count;
	struct quota_limit *limits = limits_from_conf(conf, &count);
	struct fullest_limit *found = fullest_find(control->quota, limits, count);
	cJSON *list;

	(void)request;
	(void)err;
	*json_r = cJSON_CreateObject();
	list = cJSON_AddArrayToObject(*json_r, "limits");
	for (size_t i = 0; i < count; i++)
		(void)cJSON_AddItemToArray(list, limit_json(conf, &limits[i], &found[i]));
	fullest_free(&found, count);
	free(limits);
	for (size_t i = 0; i < conf->mailboxes; i++)
		add_fixed(list, &conf->mailbox[i]);
	live_put(&live);
	return 0;
}

int milter_control_reload(struct live *live, const char *who, struct err *err)
{
	int rc = live_reload(live, err);
	struct live_conf *now = live_get(live);

	alarms_configure(live_conf(now));
	conf_reload_log(rc < 0 ? NULL : live_conf(now), who, err);
	live_put(&now);
	return rc;
}

static int verb_reload(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct milter_control *control = context;
	struct live_conf *now;

	(void)request;
	if (milter_control_reload(control->live, "control", err) < 0)
		return -1;
	now = live_get(control->live);
	*json_r = conf_reload_answer(live_conf(now));
	live_put(&now);
	return 0;
}

/* What a reset has taken away: told to who asked, and logged. */
static void add_reset(void *arg, const struct quota_row *row)
{
	cJSON *item = cJSON_CreateObject();
	struct log_line line;

	(void)cJSON_AddStringToObject(item, "limit", row->limit->name);
	(void)cJSON_AddStringToObject(item, "per", policy_per_name(row->limit->per));
	json_add_text(item, "key", row->key);
	(void)cJSON_AddNumberToObject(item, "used", (double)row->used);
	(void)cJSON_AddItemToArray(arg, item);
	log_begin(&line, EV_RESET, NULL);
	log_str(&line, "ledger", "accepted");
	log_str(&line, "limit", row->limit->name);
	log_str(&line, "key", row->key);
	log_int(&line, "used", row->used);
	log_end(&line);
}

/* The key of a counter: a mailbox is counted by its address. */
static int read_reset_key(const struct conf *conf, const struct kv_message *request,
			  char key_r[LOCK_KEY_MAX + 1], int *per_r, struct err *err)
{
	static const struct {
		const char *prefix;
		enum quota_per per;
	} kinds[] = {{LOCK_MAILBOX, QUOTA_PER_MAILBOX}, {LOCK_SOURCE, QUOTA_PER_SOURCE}};
	const struct conf_mailbox *mailbox = NULL;
	char given[LOCK_KEY_MAX + 1];

	if (kv_copy(request, "key", key_r, LOCK_KEY_MAX + 1) <= 0)
		return err_set(err, ERR_PERM, "key is missing or longer than %d bytes",
			       LOCK_KEY_MAX);
	*per_r = -1;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		size_t len = strlen(kinds[i].prefix);

		if (*per_r >= 0 || strncmp(key_r, kinds[i].prefix, len) != 0)
			continue;
		*per_r = (int)kinds[i].per;
		memmove(key_r, key_r + len, strlen(key_r + len) + 1);
	}
	if (*per_r != QUOTA_PER_SOURCE)
		mailbox = conf_mailbox_by_name(conf, key_r, strlen(key_r));
	if (mailbox != NULL) {
		(void)snprintf(key_r, LOCK_KEY_MAX + 1, "%s", mailbox->address);
	} else {
		(void)snprintf(given, sizeof(given), "%s", key_r);
		conf_client_text(given, key_r, LOCK_KEY_MAX + 1);
	}
	return 0;
}

/* Whether a limit of this name is in force; names gets all names, each once. */
static bool find_limit(const struct conf *conf, const char *name, struct buf *names)
{
	size_t count;
	struct quota_limit *limits = limits_from_conf(conf, &count);
	bool found = false;

	for (size_t i = 0; i < count; i++) {
		found = found || strcmp(limits[i].name, name) == 0;
		/* Those of one name are neighbours. */
		if (i == 0 || strcmp(limits[i].name, limits[i - 1].name) != 0)
			(void)buf_addf(names, "%s%s", i == 0 ? "" : ", ", limits[i].name);
	}
	free(limits);
	return found;
}

/* The limit that is meant, "" for all: a name with a slip in it must not look like a success. */
static int read_reset_limit(const struct conf *conf, const struct kv_message *request,
			    char name_r[QUOTA_NAME_MAX + 1], struct err *err)
{
	const struct kv_pair *given = kv_find(request, "limit");
	struct buf names = BUF_INIT(ERR_TEXT_MAX / 2);
	int result = 0;

	name_r[0] = '\0';
	/* One that is too long is none's, as "" is. */
	if (given != NULL && kv_copy(request, "limit", name_r, QUOTA_NAME_MAX + 1) < 0)
		name_r[0] = '\0';
	if (given != NULL && !find_limit(conf, name_r, &names))
		result = err_set(err, ERR_PERM,
				 "no limit in force is called \"%.*s\"; there are: %s",
				 (int)(given->value_len < QUOTA_NAME_MAX ? given->value_len
									 : QUOTA_NAME_MAX),
				 given->value, buf_text(&names));
	buf_clear(&names);
	return result;
}

/* Keys that are shown as this one. */
struct likeness {
	const char *shown;
	char **key;
	size_t count;
};

static void find_likeness(void *arg, const struct quota_row *row)
{
	struct likeness *likeness = arg;
	char shown[QUOTA_KEY_MAX + 1];

	(void)snprintf(shown, sizeof(shown), "%s", row->key);
	if (strcasecmp(plain(shown), likeness->shown) != 0 || strcmp(shown, row->key) == 0)
		return;
	likeness->key = xreallocarray(likeness->key, likeness->count + 1, sizeof(*likeness->key));
	likeness->key[likeness->count++] = xstrdup(row->key);
}

/* A sender may have put into its address what can't be shown, and so not be asked for. */
static void reset_likenesses(struct quota *quota, const char *limit, int per, const char *shown,
			     cJSON *counters)
{
	struct likeness likeness = {.shown = shown};

	if (strpbrk(shown, "? ") != NULL)
		quota_each(quota, find_likeness, &likeness);
	for (size_t i = 0; i < likeness.count; i++) {
		(void)quota_reset(quota, limit, per, likeness.key[i], add_reset, counters);
		free(likeness.key[i]);
	}
	free(likeness.key);
}

static int verb_reset(void *context, const struct kv_message *request, cJSON **json_r,
		      struct err *err)
{
	struct milter_control *control = context;
	struct live_conf *live = live_get(control->live);
	char key[LOCK_KEY_MAX + 1], limit[QUOTA_NAME_MAX + 1];
	int per = -1, result = read_reset_key(live_conf(live), request, key, &per, err);
	const char *one;
	cJSON *counters;

	if (result == 0)
		result = read_reset_limit(live_conf(live), request, limit, err);
	if (result == 0) {
		one = limit[0] == '\0' ? NULL : limit;
		*json_r = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(*json_r, "ledger", "accepted");
		counters = cJSON_AddArrayToObject(*json_r, "counters");
		(void)quota_reset(control->quota, one, per, key, add_reset, counters);
		reset_likenesses(control->quota, one, per, key, counters);
	}
	live_put(&live);
	return result;
}

static int verb_lock(void *context, const struct kv_message *request, cJSON **json_r,
		     struct err *err)
{
	struct milter_control *control = context;
	struct live_conf *live = live_get(control->live);
	int result = locks_control_lock(live_locks(control->live), live_conf(live), request,
					json_r, err);

	live_put(&live);
	return result;
}

static int verb_unlock(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct milter_control *control = context;
	struct live_conf *live = live_get(control->live);
	int result = locks_control_unlock(live_locks(control->live), live_conf(live), request,
					  json_r, err);

	live_put(&live);
	return result;
}

static int verb_backup(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct milter_control *control = context;
	char *path = quota_backup(control->quota, err);

	(void)request;
	if (path == NULL)
		return -1;
	*json_r = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(*json_r, "file", path);
	free(path);
	return 0;
}

static const struct control_verb verbs[] = {
	{"status", verb_status}, {"limits", verb_limits},
	{"reload", verb_reload}, {"lock", verb_lock},
	{"unlock", verb_unlock}, {"reset", verb_reset},
	{"backup", verb_backup}, {NULL, NULL},
};

struct milter_control *milter_control_serve(struct loop *loop, struct live *live,
					    struct quota *quota,
					    const struct incidents *incidents, const char *socket,
					    struct err *err)
{
	struct milter_control *control = xcalloc(1, sizeof(*control));
	struct live_conf *now = live_get(live);
	const struct conf *conf = live_conf(now);
	char *path = xasprintf("%s/control", conf->milter_run_dir);
	gid_t group =
		conf->control_group[0] == '\0' ? (gid_t)-1 : sock_group(conf->control_group);

	control->live = live;
	control->quota = quota;
	control->incidents = incidents;
	control->socket = socket;
	control->started_wall_ms = clock_wall_ms();
	if (sock_make_folder(path, group, err) == 0)
		control->server = control_serve(loop, path, group, verbs, control, err);
	free(path);
	live_put(&now);
	if (control->server == NULL)
		milter_control_free(&control);
	return control;
}

void milter_control_free(struct milter_control **control)
{
	if (*control == NULL)
		return;
	control_server_free(&(*control)->server);
	free(*control);
	*control = NULL;
}
