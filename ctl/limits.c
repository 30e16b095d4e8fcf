/*
 * relay365 limits: each limit in force, where it comes from and who uses it
 * most; or what the limits of a configuration would have done to a mail log.
 */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/xalloc.h"
#include "ctl/maillog.h"
#include "ctl/what_if.h"
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

static int show(const struct ctl *ctl)
{
	char *socket = ctl_milter_socket(ctl->conf);
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	const cJSON *limit;
	int result;

	result = control_call(socket, "limits", NULL, NULL, CTL_TIMEOUT_MS, &answer, &err);
	free(socket);
	if (result < 0)
		return ctl_print_daemon_error(
			ctl, "milter", &err, err.class == ERR_TEMP ? CTL_TRY_LATER : CTL_PROBLEM);
	if (ctl->json)
		return ctl_print_json(answer, CTL_OK);
	ctl_plain(answer);
	cJSON_ArrayForEach (limit, cJSON_GetObjectItemCaseSensitive(answer, "limits"))
		print_limit(limit);
	cJSON_Delete(answer);
	return CTL_OK;
}

struct reading {
	struct mails *mails;
	bool full;
};

static void each_line(void *arg, const struct logline *line)
{
	struct reading *reading = arg;

	reading->full = reading->full || !mails_add(reading->mails, line);
}

static int what_if(const struct ctl *ctl, const char *config, const char *const *files,
		   size_t count)
{
	struct reading reading = {.mails = mails_new()};
	struct err err = ERR_INIT;
	struct conf *conf = conf_load(config, &err);
	const struct mail *all;
	int status = conf == NULL ? CTL_CONFIG : CTL_PROBLEM;
	cJSON *result;
	size_t n;

	if (conf != NULL && maillog_read(files, count, conf, each_line, &reading, &err) == 0 &&
	    reading.full)
		err_set(&err, ERR_PERM, "the log holds more than %d messages; name fewer files",
			MAILS_MAX);
	if (err.text[0] != '\0') {
		status = ctl_print_error(ctl, &err, status);
	} else {
		all = mails_all(reading.mails, &n);
		result = what_if_replay(conf, all, n);
		status = CTL_OK;
		if (ctl->json) {
			status = ctl_print_json(result, status);
		} else {
			ctl_plain(result);
			what_if_print(result);
			cJSON_Delete(result);
		}
	}
	conf_free(&conf);
	mails_free(&reading.mails);
	return status;
}

int ctl_limits(const struct ctl *ctl)
{
	const char *config = NULL, *log = NULL;
	const char **rest = xcalloc((size_t)ctl->argc + 2, sizeof(*rest));
	const struct ctl_option options[] = {{"--what-if", NULL, &config}, {"--log", NULL, &log}};
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest + 1), status = CTL_USAGE;

	/* Behind --log may come more files. */
	rest[0] = log;
	if (n < 0 || (config == NULL && log != NULL) || (log == NULL && n > 0))
		(void)fputs("usage: relay365 [-c FILE] [--json] limits [--what-if CONFIG [--log "
			    "FILE...]]\n",
			    stderr);
	else if (config != NULL)
		status = what_if(ctl, config, rest, log == NULL ? 0 : (size_t)n + 1);
	else
		status = show(ctl);
	free(rest);
	return status;
}
