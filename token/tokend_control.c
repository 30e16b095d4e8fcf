/* The control verbs of relay365-tokend: relay365-control(7). */
#include "base/compat.h"

#include "token/tokend.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "conf/conf_reload.h"
#include "quota/locks_control.h"
#include "proto/json_time.h"

#include <unistd.h>

static cJSON *mailbox_json(const struct tokend *tokend, struct mailbox *mailbox)
{
	cJSON *json = mailbox_status_json(mailbox);
	cJSON *verdict = probes_verdict(tokend->probes, mailbox_name(mailbox), 0, false);

	if (verdict != NULL)
		(void)cJSON_AddItemToObject(json, "probe", verdict);
	return json;
}

static int verb_status(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct tokend *tokend = context;
	char text[ERR_TEXT_MAX];
	cJSON *json = cJSON_CreateObject();
	cJSON *list;

	(void)request;
	(void)err;
	(void)cJSON_AddStringToObject(json, "daemon", "relay365-tokend");
	(void)cJSON_AddStringToObject(json, "version", PACKAGE_VERSION);
	(void)cJSON_AddNumberToObject(json, "pid", (double)getpid());
	json_add_time(json, "started", tokend->started_wall_ms);
	(void)cJSON_AddStringToObject(json, "configuration", tokend->conf->path);
	delivered_problem(tokend->delivered, text, sizeof(text));
	if (text[0] != '\0')
		(void)cJSON_AddStringToObject(json, "ledger_problem", text);
	locks_control_status(tokend->locks, json);
	list = cJSON_AddArrayToObject(json, "tokens");
	for (size_t i = 0; i < tokend->identities; i++)
		(void)cJSON_AddItemToArray(list, identity_status(tokend->identity[i]));
	list = cJSON_AddArrayToObject(json, "mailboxes");
	for (size_t i = 0; i < tokend->mailboxes; i++)
		if (!mailbox_is_gone(tokend->mailbox[i]))
			(void)cJSON_AddItemToArray(list,
						   mailbox_json(tokend, tokend->mailbox[i]));
	(void)cJSON_AddItemToObject(json, "calendar",
				    calendar_json(tokend->calendar, clock_wall_ms()));
	(void)cJSON_AddItemToObject(json, "alarms", alarms_status());
	*json_r = json;
	return 0;
}

/* Whose lock this answer tells of; NULL: no mailbox's. */
static struct mailbox *locked_mailbox(struct tokend *tokend, const cJSON *answer)
{
	const char *key = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "key"));

	if (key == NULL || strncmp(key, LOCK_MAILBOX, strlen(LOCK_MAILBOX)) != 0)
		return NULL;
	return tokend_mailbox_by_address(tokend, key + strlen(LOCK_MAILBOX));
}

static int verb_lock(void *context, const struct kv_message *request, cJSON **json_r,
		     struct err *err)
{
	struct tokend *tokend = context;
	int result = locks_control_lock(tokend->locks, tokend->conf, request, json_r, err);
	struct mailbox *mailbox = locked_mailbox(tokend, *json_r);

	if (mailbox != NULL)
		mailbox_locked(mailbox); /* who waits for a slot must hear of it now */
	return result;
}

static int verb_unlock(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct tokend *tokend = context;
	int result = locks_control_unlock(tokend->locks, tokend->conf, request, json_r, err);
	struct mailbox *mailbox = locked_mailbox(tokend, *json_r);

	if (mailbox != NULL && mailbox_unlocked(mailbox))
		(void)cJSON_AddTrueToObject(*json_r, "was_paused");
	return result;
}

static int verb_reset(void *context, const struct kv_message *request, cJSON **json_r,
		      struct err *err)
{
	struct tokend *tokend = context;
	char key[LOCK_KEY_MAX + 1];
	const char *name = key;
	struct mailbox *mailbox;
	struct log_line line;
	cJSON *item;
	int64_t used;

	if (kv_copy(request, "key", key, sizeof(key)) <= 0)
		return err_set(err, ERR_PERM, "key is missing or longer than %d bytes",
			       LOCK_KEY_MAX);
	if (strncmp(key, LOCK_MAILBOX, strlen(LOCK_MAILBOX)) == 0)
		name += strlen(LOCK_MAILBOX);
	mailbox = tokend_mailbox_by_name(tokend, name, strlen(name));
	if (mailbox == NULL)
		mailbox = tokend_mailbox_by_address(tokend, name);
	if (mailbox == NULL)
		return err_set(err, ERR_PERM, "%s has no mailbox called \"%s\"",
			       tokend->conf->path, name);
	used = mailbox_reset(mailbox);
	log_begin(&line, EV_RESET, NULL);
	log_str(&line, "ledger", "delivered");
	log_str(&line, "key", mailbox_address(mailbox));
	log_int(&line, "used", used);
	log_end(&line);
	*json_r = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(*json_r, "ledger", "delivered");
	item = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(item, "key", mailbox_address(mailbox));
	(void)cJSON_AddNumberToObject(item, "used", (double)used);
	(void)cJSON_AddItemToArray(cJSON_AddArrayToObject(*json_r, "counters"), item);
	return 0;
}

static int verb_reload(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct tokend *tokend = context;

	(void)request;
	if (tokend_reload(tokend, "control", err) < 0)
		return -1;
	*json_r = conf_reload_answer(tokend->conf);
	return 0;
}

const struct control_verb tokend_verbs[] = {
	{"authorize", tokend_verb_authorize},
	{"authorize-answer", tokend_verb_authorize_answer},
	{"authorize-import", tokend_verb_authorize_import},
	{"authorize-status", tokend_verb_authorize_status},
	{"probe", tokend_verb_probe},
	{"probe-status", tokend_verb_probe_status},
	{"status", verb_status},
	{"reload", verb_reload},
	{"lock", verb_lock},
	{"unlock", verb_unlock},
	{"reset", verb_reset},
	{NULL, NULL},
};
