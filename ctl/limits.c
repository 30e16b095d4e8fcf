/* relay365 limits: each limit in force, where it comes from and who uses it most. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "proto/control.h"

static void print_limit(const cJSON *limit)
{
	const cJSON *key;
	const char *only = ctl_text(limit, "only");
	char window[40] = "";

	/* Some are of one message, or of what goes on at the same time. */
	if (ctl_number(limit, "window_s") > 0)
		(void)snprintf(window, sizeof(window), " in %lld s",
			       ctl_number(limit, "window_s"));
	(void)printf("%s: %lld %s per %s%s, %s%s (%s)\n", ctl_text(limit, "limit"),
		     ctl_number(limit, "max"), ctl_text(limit, "count"),
		     only[0] != '\0' ? only : ctl_text(limit, "per"), window,
		     ctl_text(limit, "action"),
		     cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(limit, "shadow")) ? ", shadow"
										     : "",
		     ctl_text(limit, "from"));
	cJSON_ArrayForEach (key, cJSON_GetObjectItemCaseSensitive(limit, "top")) {
		const char *room_at = ctl_text(key, "room_at");

		(void)printf("  %8lld  %s%s%s\n", ctl_number(key, "used"), ctl_text(key, "key"),
			     room_at[0] == '\0' ? "" : ", room at ", room_at);
	}
}

int ctl_limits(const struct ctl *ctl)
{
	char *socket = ctl_milter_socket(ctl->conf);
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	const cJSON *limit;
	int result;

	if (ctl->argc != 0) {
		(void)fputs("usage: relay365 [-c FILE] [--json] limits\n", stderr);
		free(socket);
		return CTL_USAGE;
	}
	result = control_call(socket, "limits", NULL, NULL, CTL_TIMEOUT_MS, &answer, &err);
	free(socket);
	if (result < 0) {
		(void)fprintf(stderr, "relay365-milter: %s\n", err.text);
		return err.class == ERR_TEMP ? CTL_TRY_LATER : CTL_PROBLEM;
	}
	if (ctl->json)
		return ctl_print_json(answer, CTL_OK);
	cJSON_ArrayForEach (limit, cJSON_GetObjectItemCaseSensitive(answer, "limits"))
		print_limit(limit);
	cJSON_Delete(answer);
	return fflush(stdout) == 0 ? CTL_OK : CTL_PROBLEM;
}
