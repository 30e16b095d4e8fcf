/* What the client sends: commands, and messages up to their end. */
#include "sendmail/session_private.h"

#include "base/clock.h"

#include <strings.h>

/* ---- messages ---- */

static bool body(struct session *session)
{
	struct fifo *in = &session->client.in;
	size_t len = fifo_len(in), room = fifo_room(&session->up.wire.out);
	bool end;

	if (len > room)
		len = room;
	if (len == 0 || session->up.wire.broken)
		return false;
	len = body_part(&session->body_at, fifo_text(in), len, &end);
	(void)wire_send(&session->up.wire, fifo_text(in), len);
	fifo_drop(in, len);
	session->bytes += (int64_t)len;
	if (end) {
		session_push(session, SENT_END);
		session_unanswered(session, true);
		session->phase = PHASE_COMMANDS;
	}
	return true;
}

/* ---- commands ---- */

struct command {
	const char *text;
	size_t len; /* with its CR LF */
};

static bool is_verb(const struct command *command, const char *verb)
{
	size_t n = strlen(verb);

	return command->len > n && strncasecmp(command->text, verb, n) == 0 &&
	       memchr(" \r", command->text[n], 2) != NULL;
}

/* To the server, as it is. */
static bool forward(struct session *session, const struct command *command, enum sent sent)
{
	if (session->pending_count == SESSION_PENDING_MAX ||
	    fifo_room(&session->up.wire.out) < command->len)
		return false;
	(void)wire_send(&session->up.wire, command->text, command->len);
	session_push(session, sent);
	return true;
}

static void greet(struct session *session, bool extended)
{
	const char *host =
		session->up.tenant == NULL ? "relay365" : session->up.tenant->smtp_host;
	const char *at = session->up.offers, *end = at + session->up.offers_len;

	if (session->in_mail) { /* EHLO ends a message; the server has had its EHLO */
		struct command rset = {"RSET\r\n", 6};

		(void)forward(session, &rset, SENT_QUIET);
		session_message_over(session);
	}
	session_answer(session, "250%c%s", extended && at < end ? '-' : ' ', host);
	while (extended && at < end) {
		const char *line_end = memchr(at, '\n', (size_t)(end - at));

		session_answer(session, "250%c%.*s", line_end + 1 < end ? '-' : ' ',
			       (int)(line_end - at), at);
		at = line_end + 1;
	}
}

/* The address in "MAIL FROM:<a@b> ..."; -1: there is none. */
static int sender_of(const struct command *command, char *to, size_t cap)
{
	const char *open = memchr(command->text, '<', command->len);
	const char *close =
		open == NULL ? NULL
			     : memchr(open, '>', command->len - (size_t)(open - command->text));
	size_t len = close == NULL ? 0 : (size_t)(close - open) - 1;

	if (close == NULL || len >= cap || memchr(open, '\0', len + 1) != NULL)
		return -1;
	memcpy(to, open + 1, len);
	to[len] = '\0';
	return 0;
}

/* Signs in for the sender's mailbox, if that is not done yet, and takes a lease. */
static void mail(struct session *session, const struct command *command)
{
	const struct conf_mailbox *mailbox;
	struct err err = ERR_INIT;

	if (session->in_mail) {
		session_answer(session, "503 5.5.1 a message is in progress");
		return;
	}
	if (sender_of(command, session->sender, sizeof(session->sender)) < 0) {
		session_answer(session, "501 5.5.4 MAIL FROM:<address> is needed");
		return;
	}
	mailbox = conf_mailbox_by_sender(session->conf, session->sender);
	if (mailbox == NULL) {
		session_answer(session,
			       "451 4.7.0 no mailbox in %s claims the sender %.256s; add it to "
			       "senders of one, or make one the default",
			       session->conf->path, session->sender);
		return;
	}
	/* The first message has the lease with which the session was opened. */
	if ((session->lease.fd < 0 || session->up.mailbox != mailbox) &&
	    session_sign_in(session, mailbox, &err) < 0) {
		session_answer(session, "451 4.7.0 %s", err.text);
		return;
	}
	session->in_mail = true;
	session->named = session->recipients = session->bytes = 0;
	session->begun_ms = clock_boot_ms();
	(void)forward(session, command, SENT_MAIL);
}

/* What is answered here, and so must wait until what came before was answered. */
static void local(struct session *session, const struct command *command)
{
	if (is_verb(command, "EHLO"))
		greet(session, true);
	else if (is_verb(command, "HELO"))
		greet(session, false);
	else if (is_verb(command, "MAIL"))
		mail(session, command);
	else if (is_verb(command, "RCPT") && session->in_mail)
		session_answer(session,
			       "452 4.5.3 %lld recipients are enough for one message; send it to "
			       "the others once more",
			       (long long)session->named);
	else if (is_verb(command, "RCPT") || is_verb(command, "DATA"))
		session_answer(session, "503 5.5.1 MAIL comes first");
	else if (is_verb(command, "RSET") || is_verb(command, "NOOP"))
		session_answer(session, "250 2.0.0 OK");
	else if (is_verb(command, "QUIT"))
		session_bye(session, "221 2.0.0 closing");
	else
		session_answer(session, "502 5.5.1 no such command here");
}

/* The lease reserved room for so many recipients, and no more. */
static bool has_room(const struct session *session)
{
	return session->named < conf_transaction_recipients(session->up.mailbox);
}

static bool take(struct session *session, const struct command *command)
{
	bool signed_in = session->up.mailbox != NULL;

	if (session->in_mail && is_verb(command, "RCPT") && has_room(session)) {
		if (!forward(session, command, SENT_RCPT))
			return false;
		session->named++;
		return true;
	}
	if (session->in_mail && is_verb(command, "DATA")) {
		if (!forward(session, command, SENT_DATA))
			return false;
		session->phase = PHASE_ASKED;
		return true;
	}
	if (signed_in && is_verb(command, "RSET"))
		return forward(session, command, SENT_RSET);
	if (signed_in && is_verb(command, "NOOP"))
		return forward(session, command, SENT_NOOP);
	if (signed_in && is_verb(command, "QUIT"))
		return forward(session, command, SENT_QUIT);
	if (session->pending_count > 0)
		return false;
	local(session, command);
	return true;
}

bool session_client(struct session *session)
{
	struct fifo *in = &session->client.in;
	struct command command = {.text = fifo_text(in)};
	const char *end;

	if (session->phase == PHASE_BODY)
		return body(session);
	if (session->phase == PHASE_ASKED || session->ending)
		return false;
	end = memchr(command.text, '\n', fifo_len(in));
	if (end == NULL && fifo_room(in) == 0)
		session_bye(session, "500 5.5.2 the command is too long");
	if (end == NULL)
		return false;
	command.len = (size_t)(end - command.text) + 1;
	if (command.len < 2 || end[-1] != '\r') {
		session_bye(session, "500 5.5.2 a command must end with CR LF");
		return true;
	}
	if (!take(session, &command))
		return false;
	fifo_drop(in, command.len);
	return true;
}
