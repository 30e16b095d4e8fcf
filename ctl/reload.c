/* relay365 reload: the daemons read the configuration again, or say why not. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "proto/control.h"

static const struct {
	const char *name;
	char *(*socket)(const struct conf *conf);
} daemons[] = {
	{"tokend", ctl_tokend_socket},
	{"milter", ctl_milter_socket},
	{"submit", ctl_submit_socket}, /* not every machine runs it */
};

/* Tells one daemon; gives its answer, or {"error": ...}. socket is NULL where it does not run. */
static int ask(const char *socket, cJSON **answer_r)
{
	struct err err = ERR_INIT;

	*answer_r = NULL;
	if (socket == NULL)
		(void)err_set(&err, ERR_TEMP, "it does not run");
	else if (control_call(socket, "reload", NULL, NULL, CTL_TIMEOUT_MS, answer_r, &err) == 0)
		return CTL_OK;
	*answer_r = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(*answer_r, "error", err.text);
	return err.class == ERR_TEMP ? CTL_TRY_LATER : CTL_CONFIG;
}

static void print_text(const char *name, const cJSON *answer)
{
	const char *error = ctl_text(answer, "error"), *keys = ctl_text(answer, "restart_for");

	if (error[0] != '\0') {
		(void)fprintf(stderr, "relay365-%s: %s\n", name, error);
		return;
	}
	(void)printf("relay365-%s has read the configuration again\n", name);
	if (keys[0] != '\0')
		(void)printf("  but %s %s only when it starts: systemctl restart relay365-%s\n",
			     keys, strchr(keys, ',') == NULL ? "counts" : "count", name);
}

/* All that run, or the one that is named; returns the first status that is not well. */
static int reload(const struct ctl *ctl, const char *only, cJSON *answers)
{
	int status = CTL_OK;

	for (size_t i = 0; i < ARRAY_LEN(daemons); i++) {
		const char *name = daemons[i].name;
		char *socket;
		cJSON *answer;
		int one;

		if (only != NULL && strcmp(only, name) != 0)
			continue;
		socket = daemons[i].socket(ctl->conf);
		if (socket == NULL && only == NULL)
			continue;
		one = ask(socket, &answer);
		if (status == CTL_OK)
			status = one;
		if (!ctl->json)
			print_text(name, answer);
		(void)cJSON_AddItemToObject(answers, name, answer);
		free(socket);
	}
	return status;
}

static bool is_daemon(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(daemons); i++)
		if (strcmp(name, daemons[i].name) == 0)
			return true;
	return false;
}

int ctl_reload(const struct ctl *ctl)
{
	const char *only = ctl->argc == 1 ? ctl->argv[0] : NULL;
	cJSON *answers;
	int status;

	if (ctl->argc > 1 || (only != NULL && !is_daemon(only))) {
		(void)fputs("usage: relay365 [-c FILE] [--json] reload [tokend|milter|submit]\n",
			    stderr);
		return CTL_USAGE;
	}
	answers = cJSON_CreateObject();
	status = reload(ctl, only, answers);
	if (ctl->json)
		return ctl_print_json(answers, status);
	cJSON_Delete(answers);
	return status;
}
