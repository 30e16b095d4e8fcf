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

static void tell_restart(const char *name, const char *keys)
{
	if (keys[0] != '\0')
		(void)printf("  but %s %s only when it starts: systemctl restart relay365-%s\n",
			     keys, strchr(keys, ',') == NULL ? "counts" : "count", name);
}

static int reload_one(const char *name, const char *socket)
{
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	int status = CTL_OK;

	if (control_call(socket, "reload", NULL, NULL, CTL_TIMEOUT_MS, &answer, &err) == 0) {
		(void)printf("relay365-%s has read the configuration again\n", name);
		tell_restart(name, ctl_text(answer, "restart_for"));
	} else {
		(void)fprintf(stderr, "relay365-%s: %s\n", name, err.text);
		status = err.class == ERR_TEMP ? CTL_TRY_LATER : CTL_CONFIG;
	}
	cJSON_Delete(answer);
	return status;
}

static int reload_all(const struct conf *conf)
{
	int status = CTL_OK;

	for (size_t i = 0; i < ARRAY_LEN(daemons); i++) {
		char *socket = daemons[i].socket(conf);
		int one = socket == NULL ? CTL_OK : reload_one(daemons[i].name, socket);

		if (status == CTL_OK)
			status = one;
		free(socket);
	}
	return status;
}

int ctl_reload(const struct ctl *ctl)
{
	if (ctl->argc == 0)
		return reload_all(ctl->conf);
	for (size_t i = 0; ctl->argc == 1 && i < ARRAY_LEN(daemons); i++) {
		char *socket;
		int status = CTL_TRY_LATER;

		if (strcmp(ctl->argv[0], daemons[i].name) != 0)
			continue;
		socket = daemons[i].socket(ctl->conf);
		if (socket != NULL)
			status = reload_one(daemons[i].name, socket);
		else
			(void)fprintf(stderr, "relay365-%s does not run\n", daemons[i].name);
		free(socket);
		return status;
	}
	(void)fputs("usage: relay365 [-c FILE] reload [tokend|milter|submit]\n", stderr);
	return CTL_USAGE;
}
