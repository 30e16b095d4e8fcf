/*
 * relay365 alarm: what the daemons start to tell an admin. The notice is JSON
 * on standard input; it is completed (host, waiting mail, the whole text) and
 * handed to alarm_command and alarm_url. Exit status 0: one of them took it.
 */
#include "base/compat.h"

#include "ctl/child.h"
#include "ctl/ctl.h"
#include "ctl/waiting.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "http/http.h"
#include "proto/json_time.h"

#include <errno.h>
#include <unistd.h>

enum {
	NOTICE_MAX = 24576,
	COMMAND_TIMEOUT_MS = 30000,
	URL_TRIES = 3,
	URL_PAUSE_S = 5,
};

struct settings {
	const char *command, *url, *postmaster;
	const char **queue_dir; /* the list is ours, what it names is not */
	size_t queues;
	bool log_to_stderr, log_json;
};

/* The daemon's descriptors are none of ours, or of what we start. */
static void close_inherited(void)
{
	for (int fd = 3; fd < 1024; fd++)
		(void)close(fd);
}

static cJSON *read_notice(void)
{
	char text[NOTICE_MAX];
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(text) &&
	       (n = read(STDIN_FILENO, text + len, sizeof(text) - len)) != 0)
		if (n > 0)
			len += (size_t)n;
		else if (errno != EINTR)
			return NULL;
	return cJSON_ParseWithLength(text, len);
}

static void add_waiting(const struct settings *settings, cJSON *notice, struct waiting *waiting)
{
	cJSON *json;

	if (waiting_count(settings->queue_dir, settings->queues, waiting) < 0) {
		waiting->messages = -1;
		(void)cJSON_AddNullToObject(notice, "waiting");
		return;
	}
	json = cJSON_AddObjectToObject(notice, "waiting");
	(void)cJSON_AddNumberToObject(json, "messages", (double)waiting->messages);
	(void)cJSON_AddNumberToObject(json, "recipients", (double)waiting->recipients);
	(void)cJSON_AddNumberToObject(json, "held", (double)waiting->held);
	if (waiting->oldest_s > 0)
		json_add_time(json, "oldest", waiting->oldest_s * 1000);
	if (waiting->first_expires_s > 0)
		json_add_time(json, "first_expires", waiting->first_expires_s * 1000);
	(void)cJSON_AddNumberToObject(json, "queues_unread", (double)waiting->unread);
}

/* Everything in one text, for people. */
static void add_text(cJSON *notice, const struct waiting *waiting)
{
	struct buf text = BUF_INIT(NOTICE_MAX);
	char at[CLOCK_TEXT_MAX];
	bool over = strcmp(ctl_text(notice, "event"), "recovery") == 0;

	(void)buf_addf(&text, "relay365 on %s: %s%s.", ctl_text(notice, "host"),
		       over ? "over: " : "", ctl_text(notice, "what"));
	if (!over && ctl_text(notice, "action")[0] != '\0')
		(void)buf_addf(&text, " What to do: %s.", ctl_text(notice, "action"));
	(void)buf_addf(&text, " Since %s.", ctl_text(notice, "since"));
	if (waiting->messages == 0)
		(void)buf_adds(&text, " No mail waits.");
	else if (waiting->messages > 0)
		(void)buf_addf(&text, " %lld message%s wait%s.", waiting->messages,
			       waiting->messages == 1 ? "" : "s",
			       waiting->messages == 1 ? "s" : "");
	if (waiting->messages >= 0 && waiting->unread > 0)
		(void)buf_addf(&text, " (%zu more queue%s can't be read.)", waiting->unread,
			       waiting->unread == 1 ? "" : "s");
	if (waiting->first_expires_s > 0)
		(void)buf_addf(&text, " The first of them is returned to its sender at %s.",
			       clock_rfc3339(waiting->first_expires_s * 1000, at));
	(void)cJSON_AddStringToObject(notice, "text", buf_text(&text));
	buf_clear(&text);
}

static void complete(const struct settings *settings, cJSON *notice)
{
	char host[256] = "";
	struct waiting waiting;

	(void)gethostname(host, sizeof(host) - 1);
	(void)cJSON_AddStringToObject(notice, "host", host);
	(void)cJSON_AddStringToObject(notice, "postmaster", settings->postmaster);
	if (ctl_text(notice, "since")[0] == '\0') /* a trial of an admin's */
		json_add_time(notice, "since", clock_wall_ms());
	add_waiting(settings, notice, &waiting);
	add_text(notice, &waiting);
}

/* ---- alarm_command ---- */

static void set_variable(const char *name, const char *value)
{
	(void)setenv(name, value, 1);
}

static bool run_command(const struct settings *settings, const cJSON *notice, const char *json)
{
	const cJSON *waiting = cJSON_GetObjectItemCaseSensitive(notice, "waiting");
	char number[32] = "";
	int status;

	if (cJSON_IsObject(waiting))
		(void)snprintf(number, sizeof(number), "%lld", ctl_number(waiting, "messages"));
	set_variable("RELAY365_EVENT", ctl_text(notice, "event"));
	set_variable("RELAY365_ID", ctl_text(notice, "id"));
	set_variable("RELAY365_SINCE", ctl_text(notice, "since"));
	set_variable("RELAY365_WHAT", ctl_text(notice, "what"));
	set_variable("RELAY365_ACTION", ctl_text(notice, "action"));
	set_variable("RELAY365_TEXT", ctl_text(notice, "text"));
	set_variable("RELAY365_POSTMASTER", settings->postmaster);
	set_variable("RELAY365_WAITING", number);
	set_variable("RELAY365_FIRST_EXPIRES", ctl_text(waiting, "first_expires"));
	status = child_run(settings->command, json, NULL, COMMAND_TIMEOUT_MS);
	if (status == 0)
		return true;
	if (status < 0)
		log_say(EV_FAULT, "alarm_command was ended after %d s or by a signal",
			COMMAND_TIMEOUT_MS / 1000);
	else
		log_say(EV_FAULT, "alarm_command ended with status %d", status);
	return false;
}

/* ---- alarm_url ---- */

struct post {
	struct loop *loop;
	bool taken;
	char problem[300];
};

static void on_answer(void *arg, const struct http_answer *answer)
{
	struct post *post = arg;

	post->taken = answer->status >= 200 && answer->status < 300;
	if (answer->status == 0)
		(void)snprintf(post->problem, sizeof(post->problem), "%s", answer->problem);
	else
		(void)snprintf(post->problem, sizeof(post->problem), "HTTP %d", answer->status);
	loop_stop(post->loop);
}

static bool post_once(const char *url, const char *json, struct post *post)
{
	const struct http_target target = {
		.url = url, .ca_file = "", .type = "application/json", .plain = true};
	struct secret body = SECRET_INIT;
	struct err err = ERR_INIT;
	struct http *http = http_new(post->loop, &err);

	if (http != NULL && secret_set(&body, json, strlen(json)) == 0 &&
	    http_send(http, &target, &body, on_answer, post, &err) != NULL)
		(void)loop_run(post->loop);
	else
		(void)snprintf(post->problem, sizeof(post->problem), "%s", err.text);
	secret_clear(&body);
	http_free(&http);
	return post->taken;
}

static bool post_notice(const char *url, const char *json)
{
	struct post post = {.taken = false};

	for (int i = 0; i < URL_TRIES && !post.taken; i++) {
		if (i > 0)
			(void)sleep(URL_PAUSE_S);
		post.loop = loop_new();
		if (post.loop == NULL || post_once(url, json, &post)) {
			loop_free(&post.loop);
			break;
		}
		loop_free(&post.loop);
	}
	if (!post.taken)
		log_say(EV_FAULT, "alarm_url did not take the notice: %s", post.problem);
	return post.taken;
}

/* ---- all of it ---- */

/* So that the daemon's next start knows what was told. */
static void keep_record(const char *path, const char *event, const char *daemons_text)
{
	struct err err = ERR_INIT;

	if (path[0] == '\0')
		return;
	if (strcmp(event, "recovery") == 0)
		(void)unlink(path);
	else if (file_replace(path, daemons_text, strlen(daemons_text), 0600, &err) < 0)
		log_say(EV_WARNING, "%s; this alarm is told once more after a restart", err.text);
}

static bool is_true(const cJSON *json, const char *name)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, name));
}

/* A daemon's settings come with the notice. */
static void take_settings(const cJSON *given, struct settings *settings_r)
{
	const cJSON *queues = cJSON_GetObjectItemCaseSensitive(given, "queue_directories"), *item;

	*settings_r =
		(struct settings){.command = ctl_text(given, "alarm_command"),
				  .url = ctl_text(given, "alarm_url"),
				  .postmaster = ctl_text(given, "postmaster"),
				  .queue_dir = xcalloc((size_t)cJSON_GetArraySize(queues) + 1,
						       sizeof(const char *)),
				  .log_to_stderr = is_true(given, "log_to_stderr"),
				  .log_json = is_true(given, "log_json")};
	cJSON_ArrayForEach (item, queues)
		if (cJSON_IsString(item))
			settings_r->queue_dir[settings_r->queues++] = item->valuestring;
}

/* Without a daemon they are read, and somebody must be told. */
static int read_settings(const struct ctl *ctl, struct conf **conf_r, struct settings *settings_r,
			 struct err *err)
{
	const struct conf *conf;
	size_t n;

	*conf_r = conf_load(ctl->conf_path, err);
	if (*conf_r == NULL)
		return -1;
	conf = *conf_r;
	if (conf->alarm_command[0] == '\0' && conf->alarm_url[0] == '\0')
		return err_set(
			err, ERR_CONFIG,
			"%s sets neither alarm_command nor alarm_url, so alarms go nowhere "
			"but into the log and relay365 status",
			conf->path);
	n = conf->queue_directories.count;
	*settings_r = (struct settings){.command = conf->alarm_command,
					.url = conf->alarm_url,
					.postmaster = conf->postmaster,
					.queue_dir = xcalloc(n + 1, sizeof(const char *)),
					.queues = n,
					.log_to_stderr = true,
					.log_json = conf->log_json};
	for (size_t i = 0; i < n; i++)
		settings_r->queue_dir[i] = conf->queue_directories.item[i];
	return 0;
}

static int get_settings(const struct ctl *ctl, const cJSON *given, struct conf **conf_r,
			struct settings *settings_r, struct err *err)
{
	if (!cJSON_IsObject(given))
		return read_settings(ctl, conf_r, settings_r, err);
	take_settings(given, settings_r);
	return 0;
}

/* Whether somebody took it. */
static bool deliver(const struct settings *settings, cJSON *notice)
{
	char *original = cJSON_PrintUnformatted(notice), *json;
	bool taken = false;

	complete(settings, notice);
	cJSON_DeleteItemFromObjectCaseSensitive(notice, "since_ms");
	json = cJSON_PrintUnformatted(notice);
	if (original != NULL && json != NULL) {
		if (settings->command[0] != '\0')
			taken = run_command(settings, notice, json);
		if (settings->url[0] != '\0')
			taken = post_notice(settings->url, json) || taken;
		if (taken)
			keep_record(ctl_text(notice, "record"), ctl_text(notice, "event"),
				    original);
	}
	cJSON_free(original);
	cJSON_free(json);
	return taken;
}

/* In text the log has said all. */
static int tell(const struct ctl *ctl, bool taken)
{
	struct err err = ERR_INIT;
	cJSON *json;

	if (!ctl->json)
		return taken ? CTL_OK : CTL_PROBLEM;
	if (!taken) {
		(void)err_set(&err, ERR_TEMP, "nobody took the notice; the log says why");
		return ctl_print_error(ctl, &err, CTL_PROBLEM);
	}
	json = cJSON_CreateObject();
	(void)cJSON_AddTrueToObject(json, "taken");
	return ctl_print_json(json, CTL_OK);
}

int ctl_alarm(const struct ctl *ctl)
{
	cJSON *notice = read_notice();
	cJSON *given = cJSON_DetachItemFromObjectCaseSensitive(notice, "settings");
	struct settings settings = {.queue_dir = NULL};
	struct err err = ERR_INIT;
	struct conf *conf = NULL;
	int status;

	if (ctl->argc != 0 || !cJSON_IsObject(notice)) {
		(void)fputs("usage: relay365 [-c FILE] [--json] alarm <NOTICE.json\n", stderr);
		status = CTL_USAGE;
	} else if (get_settings(ctl, given, &conf, &settings, &err) < 0) {
		status = ctl_print_error(ctl, &err, CTL_CONFIG);
	} else {
		close_inherited();
		log_open("relay365", settings.log_to_stderr ? LOG_TO_STDERR : LOG_TO_SYSLOG,
			 settings.log_json, false);
		status = tell(ctl, deliver(&settings, notice));
	}
	free(settings.queue_dir);
	conf_free(&conf);
	cJSON_Delete(given);
	cJSON_Delete(notice);
	return status;
}
