/*
 * The token protocol (relay365-token(7)): verb=lease holds a sending slot as
 * long as the connection lives, verb=status tells what became of the message,
 * verb=end that the lease is over, also one of an earlier tokend, verb=token hands
 * out a token without a slot. There are two sockets: leases that are asked for at
 * the one for priority come before the others.
 */
#include "base/compat.h"

#include "token/tokend.h"

#include "base/log.h"
#include "base/xalloc.h"

enum { CONNECTIONS = 4096, STATUS_MAX = 2048, RECIPIENTS_MAX = 1000 };

struct session {
	struct stream *stream;
	struct lease *lease;
	struct identity_waiter waiter;
	bool priority;
	bool asked;
	bool granted; /* the lease is open: statuses may follow */
};

/* Who may take a token, by the kernel's word on who connects. */
static bool is_allowed(const struct tokend *tokend, uid_t uid)
{
	for (size_t i = 0; i < tokend->token_uids; i++)
		if (tokend->token_uid[i] == uid)
			return true;
	return false;
}

static void answer(struct stream *stream, const char *status, const struct identity_token *token,
		   const char *lease, const char *reason, int64_t retry_after_ms)
{
	char text[KV_MESSAGE_MAX];
	char number[24];
	size_t at = 0;
	int bad;

	bad = kv_put(text, sizeof(text), &at, "status", status, strlen(status));
	if (token != NULL) {
		(void)snprintf(number, sizeof(number), "%lld",
			       (long long)token->expires_at_wall_ms / 1000);
		bad |= kv_put(text, sizeof(text), &at, "token", token->text, token->len);
		bad |= kv_put(text, sizeof(text), &at, "expires_at", number, strlen(number));
	}
	if (lease != NULL && lease[0] != '\0')
		bad |= kv_put(text, sizeof(text), &at, "lease", lease, strlen(lease));
	if (reason != NULL)
		bad |= kv_put(text, sizeof(text), &at, "reason", reason, strlen(reason));
	if (retry_after_ms > 0) {
		(void)snprintf(number, sizeof(number), "%lld",
			       (long long)(retry_after_ms + 999) / 1000);
		bad |= kv_put(text, sizeof(text), &at, "retry_after", number, strlen(number));
	}
	if ((bad | kv_end(text, sizeof(text), &at)) != 0 || stream_send(stream, text, at) < 0)
		stream_close(stream);
	explicit_bzero(text, sizeof(text));
}

static void on_lease(void *arg, const struct lease_answer *decision)
{
	struct stream *stream = arg;
	struct session *session = stream->state;

	if (decision->token != NULL) {
		session->granted = true;
		answer(stream, "ok", decision->token, decision->name, NULL, 0);
		return;
	}
	answer(stream, "later", NULL, NULL, decision->reason, decision->retry_after_ms);
	stream_end(stream);
}

static void on_token(struct identity_waiter *waiter, const struct identity_token *token,
		     const char *reason, int64_t retry_after_ms)
{
	struct session *session =
		(struct session *)((char *)waiter - offsetof(struct session, waiter));

	answer(session->stream, token != NULL ? "ok" : "later", token, NULL, reason,
	       retry_after_ms);
	stream_end(session->stream);
}

static void deny(struct stream *stream, const char *reason)
{
	answer(stream, "denied", NULL, NULL, reason, 0);
	stream_end(stream);
}

/* A number from 0 to RECIPIENTS_MAX; n when it is left out; -1: it is none. */
static int read_number(const struct kv_message *request, const char *key, long long n)
{
	int result = kv_number(request, key, &n);

	return result == -2 || n > RECIPIENTS_MAX ? -1 : (int)n;
}

/* "5.2.0 text" of a reply's code and text; an enhanced code is made up where there is none. */
static int read_status(const struct kv_message *request, char *status, size_t cap)
{
	const struct kv_pair *given = kv_find(request, "text");
	char text[STATUS_MAX - 16] = "", code[4];
	size_t dots;

	if (kv_copy(request, "code", code, sizeof(code)) != 3 ||
	    strspn(code, "0123456789") != 3 || code[0] < '2' || code[0] > '5')
		return -1;
	if (given != NULL) /* a long one is cut: it must count all the same */
		(void)snprintf(text, sizeof(text), "%.*s", (int)given->value_len, given->value);
	dots = strspn(text, "0123456789.");
	if (text[0] == code[0] && text[1] == '.' && (text[dots] == ' ' || text[dots] == '\0'))
		(void)snprintf(status, cap, "%s", text);
	else
		(void)snprintf(status, cap, "%c.0.0 %s", code[0] == '3' ? '4' : code[0], text);
	return 0;
}

/* The name of the lease that the request is about; "": it gives none that can be one. */
static void read_lease(const struct kv_message *request, char name[LEASE_NAME_SIZE])
{
	if (kv_copy(request, "lease", name, LEASE_NAME_SIZE) < 0)
		name[0] = '\0';
}

/* What the server answered to a message: counted and explained as for the map. */
static void serve_status(struct stream *stream, const struct kv_message *request,
			 struct mailbox *mailbox)
{
	struct session *session = stream->state;
	char status[STATUS_MAX], better[STATUS_MAX + 1024], text[KV_MESSAGE_MAX];
	char name[LEASE_NAME_SIZE];
	int recipients = read_number(request, "recipients", 0);
	int refused = read_number(request, "refused", 1);
	enum lease_told told;
	bool explained;
	size_t at = 0;

	if (recipients < 0 || refused < 0 || read_status(request, status, sizeof(status)) < 0) {
		deny(stream, "a status needs code=200 to 599, and recipients=0 to 1000");
		return;
	}
	mailbox_announce(mailbox, status, recipients);
	explained = mailbox_status(mailbox, status, refused, better, sizeof(better));
	read_lease(request, name);
	told = mailbox_tell(mailbox, name, status);
	if (kv_put(text, sizeof(text), &at, "status", "ok", 2) < 0 ||
	    (explained && kv_put(text, sizeof(text), &at, "text", better, strlen(better)) < 0) ||
	    kv_end(text, sizeof(text), &at) < 0 || stream_send(stream, text, at) < 0)
		stream_close(stream);
	/* Without an answer it will be told again, and then counts, unless that is known of it.
	 */
	mailbox_count(mailbox, status, recipients,
		      told == LEASE_TOLD || (told == LEASE_UNKNOWN && !stream->dead));
	if (stream->dead || session->granted)
		return;
	/* Who names no lease had it from an earlier tokend. */
	if (status[0] == '2' && name[0] == '\0')
		mailbox_left_ends(mailbox, stream->peer.pid, recipients);
	stream_end(stream);
}

static void serve_end(struct stream *stream, const struct kv_message *request,
		      struct mailbox *mailbox)
{
	char name[LEASE_NAME_SIZE];

	read_lease(request, name);
	if (name[0] == '\0') {
		deny(stream, "an end needs the lease, as its answer named it");
		return;
	}
	mailbox_end_lease(mailbox, name);
	answer(stream, "ok", NULL, NULL, NULL, 0);
	stream_end(stream);
}

static void serve_verb(struct stream *stream, const struct kv_message *request,
		       struct mailbox *mailbox)
{
	struct session *session = stream->state;
	int recipients = read_number(request, "recipients", 0);

	if (kv_is(request, "verb", "status")) {
		serve_status(stream, request, mailbox);
	} else if (kv_is(request, "verb", "end")) {
		serve_end(stream, request, mailbox);
	} else if (session->granted) {
		stream_close(stream); /* one lease a connection */
	} else if (kv_is(request, "verb", "lease")) {
		if (recipients < 0)
			deny(stream, "recipients is not a number from 1 to 1000");
		else
			session->lease = lease_begin(mailbox, stream->peer.pid, recipients,
						     session->priority, on_lease, stream);
	} else if (kv_is(request, "verb", "token")) {
		session->waiter.done = on_token;
		mailbox_get_token(mailbox, &session->waiter);
	} else {
		deny(stream, "the request's verb is none of lease, status, end and token");
	}
}

static void serve(struct stream *stream, const struct kv_message *request)
{
	struct tokend *tokend = stream_context(stream);
	struct session *session = stream->state;
	char address[330];
	struct mailbox *mailbox;

	session->asked = true;
	if (!kv_is(request, "relay365", KV_VERSION)) {
		deny(stream,
		     "relay365-tokend speaks version " KV_VERSION " of the token protocol");
		return;
	}
	if (kv_copy(request, "mailbox", address, sizeof(address)) < 0) {
		deny(stream, "the request names no mailbox");
		return;
	}
	mailbox = tokend_mailbox_by_address(tokend, address);
	if (mailbox == NULL) {
		char reason[512];

		(void)snprintf(reason, sizeof(reason),
			       "%s is no mailbox in %s; add it under \"mailboxes\" and run: "
			       "relay365 reload",
			       address, tokend->conf->path);
		deny(stream, reason);
	} else {
		serve_verb(stream, request, mailbox);
	}
}

static bool open_session(struct stream *stream, bool priority)
{
	struct tokend *tokend = stream_context(stream);
	struct session *session;

	if (!is_allowed(tokend, stream->peer.uid)) {
		log_say(EV_WARNING,
			"user id %ld asked for a token and was turned away; token_users in %s "
			"says who may",
			(long)stream->peer.uid, tokend->conf->path);
		return false;
	}
	session = xcalloc(1, sizeof(*session));
	session->stream = stream;
	session->priority = priority;
	stream->state = session;
	return true;
}

static bool on_opened(struct stream *stream)
{
	return open_session(stream, false);
}

static bool on_priority_opened(struct stream *stream)
{
	return open_session(stream, true);
}

static void on_received(struct stream *stream)
{
	struct session *session = stream->state;
	struct kv_message request;
	size_t used;

	while (!stream->dead && stream->in.len > 0) {
		if (session->asked && !session->granted) {
			stream_close(stream); /* one request a connection, but for a lease's */
			return;
		}
		switch (kv_parse(stream->in.data, stream->in.len, &request, &used)) {
		case KV_MORE:
			return;
		case KV_BAD:
			stream_close(stream);
			return;
		case KV_OK:
			serve(stream, &request);
			buf_consume(&stream->in, used);
			break;
		}
	}
}

static void on_closed(struct stream *stream)
{
	struct session *session = stream->state;

	lease_end(&session->lease);
	identity_cancel(&session->waiter);
	free(session);
}

static const struct stream_ops ops = {
	.opened = on_opened,
	.received = on_received,
	.closed = on_closed,
	.in_max = KV_MESSAGE_MAX,
	.out_max = KV_MESSAGE_MAX,
	.connections_max = CONNECTIONS,
};

static const struct stream_ops priority_ops = {
	.opened = on_priority_opened,
	.received = on_received,
	.closed = on_closed,
	.in_max = KV_MESSAGE_MAX,
	.out_max = KV_MESSAGE_MAX,
	.connections_max = CONNECTIONS,
};

struct stream_server *token_socket_serve(struct tokend *tokend, const char *path, gid_t group,
					 struct err *err)
{
	return stream_serve(tokend->loop, path, 0660, group, &ops, tokend, err);
}

struct stream_server *token_socket_serve_priority(struct tokend *tokend, const char *path,
						  gid_t group, struct err *err)
{
	return stream_serve(tokend->loop, path, 0660, group, &priority_ops, tokend, err);
}
