#include "base/compat.h"

#include "sendmail/control.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "conf/conf_reload.h"
#include "proto/control.h"
#include "proto/json_time.h"

#include <unistd.h>

struct submit_control {
	struct control_server *server;
	struct live *live;
	const char *socket;
	const atomic_int *sessions;
	int64_t started_wall_ms;
};

static int verb_status(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	const struct submit_control *control = context;

	(void)request;
	(void)err;
	*json_r = cJSON_CreateObject();
	(void)cJSON_AddNumberToObject(*json_r, "pid", (double)getpid());
	(void)cJSON_AddStringToObject(*json_r, "version", PACKAGE_VERSION);
	json_add_time(*json_r, "started", control->started_wall_ms);
	(void)cJSON_AddStringToObject(*json_r, "socket", control->socket);
	(void)cJSON_AddNumberToObject(*json_r, "sessions", atomic_load(control->sessions));
	return 0;
}

int submit_control_reload(struct live *live, const char *who, struct err *err)
{
	int rc = live_reload(live, err);
	struct live_conf *now = live_get(live);

	conf_reload_log(rc < 0 ? NULL : now->conf, who, err);
	live_put(live, &now);
	return rc;
}

static int verb_reload(void *context, const struct kv_message *request, cJSON **json_r,
		       struct err *err)
{
	struct submit_control *control = context;
	struct live_conf *now;

	(void)request;
	if (submit_control_reload(control->live, "control", err) < 0)
		return -1;
	now = live_get(control->live);
	*json_r = conf_reload_answer(now->conf);
	live_put(control->live, &now);
	return 0;
}

static const struct control_verb verbs[] = {
	{"status", verb_status},
	{"reload", verb_reload},
	{NULL, NULL},
};

struct submit_control *submit_control_serve(struct loop *loop, const struct conf *conf,
					    struct live *live, const char *socket,
					    const atomic_int *sessions, struct err *err)
{
	struct submit_control *control = xcalloc(1, sizeof(*control));
	char *path = xasprintf("%s/control", conf->submit_run_dir);
	gid_t group =
		conf->control_group[0] == '\0' ? (gid_t)-1 : sock_group(conf->control_group);

	control->live = live;
	control->socket = socket;
	control->sessions = sessions;
	control->started_wall_ms = clock_wall_ms();
	control->server = control_serve(loop, path, group, verbs, control, err);
	free(path);
	if (control->server == NULL)
		submit_control_free(&control);
	return control;
}

void submit_control_free(struct submit_control **control)
{
	if (*control == NULL)
		return;
	control_server_free(&(*control)->server);
	free(*control);
	*control = NULL;
}
