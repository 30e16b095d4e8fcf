#include "token/tokend.h"

#include "base/log.h"
#include "base/sock.h"
#include "base/xalloc.h"

typedef struct stream_server *serve_fn(struct tokend *tokend, const char *path, gid_t group,
				       struct err *err);

struct tokend_socket {
	serve_fn *serve;
	char *path;
	gid_t group;
	struct stream_server *server; /* NULL: missing */
};

gid_t tokend_control_group(const struct conf *conf)
{
	return conf->control_group[0] == '\0' ? (gid_t)-1 : sock_group(conf->control_group);
}

static int open_control(struct tokend *tokend, struct err *err)
{
	const struct conf *conf = tokend->conf;
	gid_t admins = tokend_control_group(conf);
	char *path;

	if (conf->control_group[0] != '\0' && admins == (gid_t)-1)
		return err_set(err, ERR_CONFIG, "%s: there is no group \"%s\" (control_group)",
			       conf->path, conf->control_group);
	path = xasprintf("%s/control", conf->run_dir);
	tokend->control = control_serve(tokend->loop, path, admins, tokend_verbs, tokend, err);
	free(path);
	return tokend->control == NULL ? -1 : 0;
}

static int serve_at(struct tokend *tokend, serve_fn *serve, const char *folder, const char *name,
		    gid_t group, struct err *err)
{
	struct tokend_socket *socket;

	tokend->socket = xreallocarray(tokend->socket, tokend->sockets + 1, sizeof(*socket));
	socket = &tokend->socket[tokend->sockets++];
	*socket = (struct tokend_socket){
		.serve = serve, .path = xasprintf("%s/%s", folder, name), .group = group};
	socket->server = serve(tokend, socket->path, group, err);
	return socket->server == NULL ? -1 : 0;
}

/* Tries all; returns -1 when any is missing, err says why. */
static int serve_queue(struct tokend *tokend, const char *queue_directory, struct err *err)
{
	gid_t postfix = sock_group("postfix");
	char *folder = xasprintf("%s/relay365", queue_directory);
	int rc = 0;

	rc |= serve_at(tokend, token_socket_serve, folder, "token", postfix, err);
	rc |= serve_at(tokend, token_socket_serve_priority, folder, "token-priority", postfix,
		       err);
	rc |= serve_at(tokend, map_socket_serve, folder, "map", postfix, err);
	free(folder);
	return rc;
}

static int serve_queues(struct tokend *tokend, struct err *err)
{
	const struct conf_list *queues = &tokend->conf->queue_directories;
	char **why = xcalloc(queues->count, sizeof(*why));
	size_t missing = 0;

	for (size_t i = 0; i < queues->count; i++) {
		if (serve_queue(tokend, queues->item[i], err) == 0)
			continue;
		why[i] = xstrdup(err->text);
		missing++;
	}
	for (size_t i = 0; i < queues->count; i++) {
		if (why[i] != NULL && missing < queues->count)
			log_say(EV_WARNING,
				"mail in the queue directory %s waits: %s; this is tried again "
				"every few seconds",
				queues->item[i], why[i]);
		free(why[i]);
	}
	free(why);
	return missing > 0 && missing == queues->count ? -1 : 0;
}

int tokend_open_sockets(struct tokend *tokend, struct err *err)
{
	const char *run_dir = tokend->conf->run_dir;
	gid_t submit = sock_group_to_give("relay365s");

	/* Control first, since it makes the run folder for its group. */
	if (open_control(tokend, err) < 0 ||
	    serve_at(tokend, token_socket_serve, run_dir, "token", submit, err) < 0 ||
	    serve_at(tokend, token_socket_serve_priority, run_dir, "token-priority", submit,
		     err) < 0)
		return -1;
	return serve_queues(tokend, err);
}

void tokend_open_missing_sockets(struct tokend *tokend)
{
	for (size_t i = 0; i < tokend->sockets; i++) {
		struct tokend_socket *socket = &tokend->socket[i];
		struct err err = ERR_INIT;

		if (socket->server != NULL)
			continue;
		socket->server = socket->serve(tokend, socket->path, socket->group, &err);
		if (socket->server != NULL)
			log_say(EV_NOTE, "%s is served now", socket->path);
	}
}

void tokend_close_sockets(struct tokend *tokend)
{
	for (size_t i = 0; i < tokend->sockets; i++) {
		stream_server_free(&tokend->socket[i].server);
		free(tokend->socket[i].path);
	}
	free(tokend->socket);
	control_server_free(&tokend->control);
}
