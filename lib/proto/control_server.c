#include "base/compat.h"

#include "proto/control.h"

#include "base/stream.h"
#include "base/xalloc.h"

enum { CONNECTIONS = 64 };

struct control_server {
	struct stream_server *streams;
	const struct control_verb *verbs;
	void *context;
};

static const char *class_name(enum err_class class)
{
	switch (class) {
	case ERR_TEMP:
		return "temp";
	case ERR_CONFIG:
		return "config";
	case ERR_PERM:
	case ERR_NONE:
		break;
	}
	return "perm";
}

static void answer_error(struct stream *stream, struct err *err)
{
	char head[ERR_TEXT_MAX + 128];
	size_t at = 0;

	for (char *p = err->text; *p != '\0'; p++)
		if (*p == '\n' || *p == '\r')
			*p = ' ';
	(void)kv_put(head, sizeof(head), &at, "status", "error", 5);
	(void)kv_put(head, sizeof(head), &at, "class", class_name(err->class),
		     strlen(class_name(err->class)));
	(void)kv_put(head, sizeof(head), &at, "reason", err->text, strlen(err->text));
	(void)kv_end(head, sizeof(head), &at);
	(void)stream_send(stream, head, at);
	stream_end(stream);
}

static void answer_json(struct stream *stream, const cJSON *json)
{
	char *text = json == NULL ? NULL : cJSON_PrintUnformatted(json);
	const char *body = text == NULL ? "{}" : text;
	char head[64];
	int n;

	n = snprintf(head, sizeof(head), "status=ok\nlength=%zu\n\n", strlen(body));
	if (stream_send(stream, head, (size_t)n) == 0 &&
	    stream_send(stream, body, strlen(body)) == 0)
		stream_end(stream);
	cJSON_free(text);
}

static void run(struct stream *stream, const struct kv_message *request)
{
	struct control_server *server = stream_context(stream);
	struct err err = ERR_INIT;
	cJSON *json = NULL;

	for (const struct control_verb *v = server->verbs; v->name != NULL; v++) {
		if (!kv_is(request, "verb", v->name))
			continue;
		if (v->run(server->context, request, &json, &err) < 0)
			answer_error(stream, &err);
		else
			answer_json(stream, json);
		cJSON_Delete(json);
		return;
	}
	err_set(&err, ERR_PERM, "this daemon knows no such verb; is it older than the command?");
	answer_error(stream, &err);
}

static void on_received(struct stream *stream)
{
	struct kv_message request;
	struct err err = ERR_INIT;
	size_t used;

	switch (kv_parse(stream->in.data, stream->in.len, &request, &used)) {
	case KV_MORE:
		return;
	case KV_BAD:
		stream_close(stream);
		return;
	case KV_OK:
		break;
	}
	if (kv_is(&request, "relay365", KV_VERSION)) {
		run(stream, &request);
	} else {
		err_set(&err, ERR_PERM,
			"this daemon speaks version " KV_VERSION " of the protocol only");
		answer_error(stream, &err);
	}
	buf_consume(&stream->in, used);
}

static const struct stream_ops ops = {
	.received = on_received,
	.in_max = KV_MESSAGE_MAX,
	.out_max = CONTROL_ANSWER_MAX,
	.connections_max = CONNECTIONS,
};

struct control_server *control_serve(struct loop *loop, const char *path, gid_t group,
				     const struct control_verb *verbs, void *context,
				     struct err *err)
{
	struct control_server *server = xcalloc(1, sizeof(*server));

	server->verbs = verbs;
	server->context = context;
	server->streams = stream_serve(loop, path, 0660, group, &ops, server, err);
	if (server->streams == NULL) {
		free(server);
		return NULL;
	}
	return server;
}

void control_server_free(struct control_server **server)
{
	if (*server == NULL)
		return;
	stream_server_free(&(*server)->streams);
	free(*server);
	*server = NULL;
}
