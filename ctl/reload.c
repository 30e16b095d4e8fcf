/* relay365 reload: the daemons read the configuration again, or say why not. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "proto/control.h"

static int reload_one(const char *daemon, char *socket)
{
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	int status = CTL_OK;

	if (control_call(socket, "reload", NULL, NULL, CTL_TIMEOUT_MS, &answer, &err) == 0) {
		(void)printf("%s has read the configuration again\n", daemon);
	} else {
		(void)fprintf(stderr, "%s: %s\n", daemon, err.text);
		status = err.class == ERR_TEMP ? CTL_TRY_LATER : CTL_CONFIG;
	}
	cJSON_Delete(answer);
	free(socket);
	return status;
}

int ctl_reload(const struct ctl *ctl)
{
	int tokend, milter, submit = CTL_OK;
	char *socket;

	if (ctl->argc != 0) {
		(void)fputs("usage: relay365 [-c FILE] reload\n", stderr);
		return CTL_USAGE;
	}
	tokend = reload_one("relay365-tokend", ctl_tokend_socket(ctl->conf));
	milter = reload_one("relay365-milter", ctl_milter_socket(ctl->conf));
	socket = ctl_submit_socket(ctl->conf);
	if (socket != NULL)
		submit = reload_one("relay365-submit", socket);
	return tokend != CTL_OK ? tokend : milter != CTL_OK ? milter : submit;
}
