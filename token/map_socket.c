/*
 * The map protocol: smtp_delivery_status_filter asks status/NAME for each
 * recipient, after the server's reply and before the queue file is changed. So
 * the answer comes from memory, at once; disk and network are elsewhere.
 */
#include "base/compat.h"

#include "token/tokend.h"

#include "postfix/socketmap.h"

#include "base/log.h"

enum { CONNECTIONS = 4096, STATUS_MAX = 4096, PREFIX = 7 };

static void answer(struct stream *stream, const char *word, const char *text)
{
	struct buf reply = BUF_INIT(SOCKETMAP_REQUEST_MAX);

	if (socketmap_answer(&reply, word, text) < 0)
		stream_close(stream);
	else
		(void)stream_send(stream, reply.data, reply.len);
	buf_clear(&reply);
}

/* Postfix knows a mailbox by its old name until it is set up again: all the same it counts. */
static struct mailbox *named(struct tokend *tokend, const char *name, size_t len)
{
	struct mailbox *mailbox = tokend_mailbox_by_name(tokend, name, len);

	return mailbox != NULL ? mailbox : tokend_mailbox_by_old_name(tokend, name, len);
}

static void serve(struct stream *stream, const struct socketmap_request *request)
{
	struct tokend *tokend = stream_context(stream);
	char status[STATUS_MAX], better[STATUS_MAX];
	size_t n = request->key_len < sizeof(status) - 1 ? request->key_len : sizeof(status) - 1;
	struct mailbox *mailbox = NULL;

	memcpy(status, request->key, n);
	status[n] = '\0';
	if (request->name_len > PREFIX && memcmp(request->name, "status/", PREFIX) == 0)
		mailbox = named(tokend, request->name + PREFIX, request->name_len - PREFIX);
	if (mailbox == NULL) {
		log_say(EV_WARNING,
			"Postfix asked for map %.*s, which belongs to no mailbox; run: relay365 "
			"setup postfix",
			(int)(request->name_len < 100 ? request->name_len : 100), request->name);
		answer(stream, "NOTFOUND", "");
		return;
	}
	mailbox_announce(mailbox, status, 1);
	if (mailbox_status(mailbox, status, 1, better, sizeof(better)))
		answer(stream, "OK", better);
	else
		answer(stream, "NOTFOUND", "");
	mailbox_count(mailbox, status, 1, !stream->dead);
	if (!stream->dead && status[0] == '2')
		mailbox_left_ends(mailbox, stream->peer.pid, 1);
}

static void on_received(struct stream *stream)
{
	struct socketmap_request request;
	size_t used;

	while (!stream->dead) {
		switch (socketmap_parse(stream->in.data, stream->in.len, &request, &used)) {
		case SOCKETMAP_MORE:
			return;
		case SOCKETMAP_BAD:
			stream_close(stream);
			return;
		case SOCKETMAP_OK:
			serve(stream, &request);
			buf_consume(&stream->in, used);
			break;
		}
	}
}

static const struct stream_ops ops = {
	.received = on_received,
	.in_max = SOCKETMAP_REQUEST_MAX + 16,
	.out_max = 1u << 20,
	.connections_max = CONNECTIONS,
};

struct stream_server *map_socket_serve(struct tokend *tokend, const char *path, gid_t group,
				       struct err *err)
{
	return stream_serve(tokend->loop, path, 0660, group, &ops, tokend, err);
}
