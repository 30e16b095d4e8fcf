/* The control verbs of relay365-tokend: relay365-control(7). */
#include "base/compat.h"

#include "token/tokend.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"

#include <unistd.h>

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
	(void)cJSON_AddStringToObject(json, "started",
				      clock_rfc3339(tokend->started_wall_ms, text));
	(void)cJSON_AddStringToObject(json, "configuration", tokend->conf->path);
	delivered_problem(tokend->delivered, text, sizeof(text));
	if (text[0] != '\0')
		(void)cJSON_AddStringToObject(json, "ledger_problem", text);
	list = cJSON_AddArrayToObject(json, "tokens");
	for (size_t i = 0; i < tokend->identities; i++)
		(void)cJSON_AddItemToArray(list, identity_status(tokend->identity[i]));
	list = cJSON_AddArrayToObject(json, "mailboxes");
	for (size_t i = 0; i < tokend->mailboxes; i++)
		if (!mailbox_is_gone(tokend->mailbox[i]))
			(void)cJSON_AddItemToArray(list, mailbox_status_json(tokend->mailbox[i]));
	(void)cJSON_AddItemToObject(json, "alarms", alarms_status());
	*json_r = json;
	return 0;
}

static int verb_reload(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	(void)request;
	(void)json_r;
	return tokend_reload(context, "control", err);
}

const struct control_verb tokend_verbs[] = {
	{"status", verb_status},
	{"reload", verb_reload},
	{NULL, NULL},
};
