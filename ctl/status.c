/* relay365 status: asks both daemons and puts their answers side by side. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/xalloc.h"
#include "ctl/reach.h"
#include "proto/control.h"

static void add_unanswered(cJSON *problems, const char *name, enum reach reach,
			   const struct conf *conf, const struct err *err)
{
	char *daemon = xasprintf("relay365-%s", name);
	char *what = reach_text(reach, daemon), *advice = reach_advice(reach, daemon, conf);
	char *text = xasprintf("%s: %s; %s", what, err->text, advice);

	(void)cJSON_AddItemToArray(problems, cJSON_CreateString(text));
	free(text);
	free(advice);
	free(what);
	free(daemon);
}

/* Adds the daemon's answer under name; when there is none, why, to the problems. */
static void ask(cJSON *status, cJSON *problems, const struct conf *conf, const char *name,
		char *socket)
{
	cJSON *daemons = cJSON_GetObjectItemCaseSensitive(status, "daemons"), *answer = NULL;
	struct err err = ERR_INIT;
	enum reach reach;

	if (control_call(socket, "status", NULL, NULL, CTL_TIMEOUT_MS, &answer, &err) == 0) {
		(void)cJSON_AddItemToObject(status, name, answer);
		(void)cJSON_AddStringToObject(daemons, name, "up");
	} else {
		reach = reach_of(socket);
		add_unanswered(problems, name, reach, conf, &err);
		(void)cJSON_AddNullToObject(status, name);
		(void)cJSON_AddStringToObject(daemons, name, reach_name(reach));
	}
	free(socket);
}

static void add_problem(cJSON *problems, const char *what, const cJSON *object, const char *name)
{
	const char *reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	char text[ERR_TEXT_MAX + 64];

	if (reason == NULL)
		return;
	(void)snprintf(text, sizeof(text), "%s: %s", what, reason);
	(void)cJSON_AddItemToArray(problems, cJSON_CreateString(text));
}

static const char *name_of(const cJSON *object, const char *key)
{
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));

	return name == NULL ? "?" : name;
}

static void add_end(cJSON *problems, const cJSON *item)
{
	char text[ERR_TEXT_MAX];

	(void)snprintf(text, sizeof(text), "%s ends at %s (%lld days)", ctl_text(item, "what"),
		       ctl_text(item, "ends"), ctl_number(item, "days_left"));
	(void)cJSON_AddItemToArray(problems, cJSON_CreateString(text));
}

static void find_problems(const cJSON *status, cJSON *problems)
{
	const cJSON *tokend = cJSON_GetObjectItemCaseSensitive(status, "tokend");
	const cJSON *milter = cJSON_GetObjectItemCaseSensitive(status, "milter");
	const cJSON *item;

	add_problem(problems, "ledger of deliveries", tokend, "ledger_problem");
	add_problem(problems, "ledger of accepted mail", milter, "ledger_problem");
	add_problem(problems, "locks of tokend", tokend, "locks_problem");
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(tokend, "calendar"))
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "near")))
			add_end(problems, item);
	add_problem(problems, "locks of the milter", milter, "locks_problem");
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(tokend, "tokens")) {
		add_problem(problems, name_of(item, "tenant"),
			    cJSON_GetObjectItemCaseSensitive(item, "last_error"), "reason");
		add_problem(problems, name_of(item, "tenant"),
			    cJSON_GetObjectItemCaseSensitive(item, "claims"), "wrong");
	}
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(tokend, "mailboxes")) {
		add_problem(problems, name_of(item, "name"), item, "problem");
		add_problem(problems, name_of(item, "name"),
			    cJSON_GetObjectItemCaseSensitive(item, "probe"), "text");
	}
}

cJSON *status_read(const struct conf *conf)
{
	cJSON *status = cJSON_CreateObject();
	cJSON *problems = cJSON_CreateArray();
	char *socket;

	(void)cJSON_AddObjectToObject(status, "daemons");
	ask(status, problems, conf, "tokend", ctl_tokend_socket(conf));
	ask(status, problems, conf, "milter", ctl_milter_socket(conf));
	socket = ctl_submit_socket(conf);
	if (socket != NULL)
		ask(status, problems, conf, "submit", socket);
	find_problems(status, problems);
	(void)cJSON_AddItemToObject(status, "problems", problems);
	return status;
}

int ctl_status(const struct ctl *ctl)
{
	bool watch = ctl->argc == 1 && strcmp(ctl->argv[0], "--watch") == 0;
	struct buf text = BUF_INIT(CONTROL_ANSWER_MAX);
	cJSON *status;
	int result;

	if ((ctl->argc != 0 && !watch) || (watch && ctl->json)) {
		(void)fputs("usage: relay365 [-c FILE] status [--json | --watch]\n", stderr);
		return CTL_USAGE;
	}
	if (watch)
		return status_watch(ctl);
	status = status_read(ctl->conf);
	result = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(status, "problems")) == 0
			 ? CTL_OK
			 : CTL_PROBLEM;
	if (ctl->json)
		return ctl_print_json(status, result);
	ctl_plain(status);
	ctl_status_text(status, &text);
	(void)fwrite(buf_text(&text), 1, text.len, stdout);
	buf_clear(&text);
	cJSON_Delete(status);
	return result;
}
