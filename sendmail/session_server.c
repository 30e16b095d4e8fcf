/* What the server answers. */
#include "sendmail/session_private.h"

#include "base/clock.h"
#include "base/log.h"

enum { CODE_LEN = 3 };

void session_report(const struct session *session, int code, const char *line, int64_t taken,
		    int64_t refused)
{
	const struct report_reply reply = {
		code, strlen(line) > CODE_LEN ? line + CODE_LEN + 1 : "", taken, refused};

	report_reply(session->parts->reporter, session->conf, &session->lease,
		     session->lease_mailbox, &reply);
}

static void log_end_of_message(const struct session *session, const char *line)
{
	struct log_line out;
	char from[sizeof(session->sender) + 2];

	(void)snprintf(from, sizeof(from), "<%s>", session->sender);
	log_begin(&out, EV_SUBMIT, NULL);
	log_str(&out, "mailbox", session->up.mailbox->name);
	log_str(&out, "from", from);
	log_int(&out, "nrcpt", session->recipients);
	log_int(&out, "bytes", session->bytes);
	log_int(&out, "took_ms", clock_boot_ms() - session->begun_ms);
	log_str(&out, "reply", line);
	log_end(&out);
}

/* Which command this answers. */
static enum sent pop(struct session *session)
{
	enum sent sent = session->pending[session->pending_from];

	session->pending_from = (session->pending_from + 1) % SESSION_PENDING_MAX;
	session->pending_count--;
	return sent;
}

/* What the reply changes for us. */
static void follow(struct session *session, enum sent sent, int code)
{
	bool yes = code / 100 == 2;

	switch (sent) {
	case SENT_MAIL:
		if (!yes)
			session_message_over(session);
		break;
	case SENT_RCPT:
		session->recipients += yes;
		break;
	case SENT_DATA:
		session->phase = code == 354 ? PHASE_BODY : PHASE_COMMANDS;
		session->body_at = BODY_LINE_START;
		break;
	case SENT_RSET:
	case SENT_END:
		session_message_over(session);
		break;
	case SENT_QUIT:
		session->ending = true;
		break;
	case SENT_NOOP:
	case SENT_QUIET:
		break;
	}
}

/* How many recipients a refusal concerns; those that a MAIL would have had, nobody knows. */
static int64_t concerned(const struct session *session, enum sent sent)
{
	if (sent == SENT_RCPT)
		return 1;
	return sent == SENT_DATA || sent == SENT_END ? session->recipients : 0;
}

/*
 * Tells relay365-tokend of refusals, and of the message that was taken. The
 * client has its answer by then: what it waits for must not wait for us.
 */
static void tell(const struct session *session, enum sent sent, int code, const char *line)
{
	bool yes = code / 100 == 2;

	if (sent == SENT_QUIT || sent == SENT_QUIET || code / 100 == 3 ||
	    (yes && sent != SENT_END))
		return;
	session_report(session, code, line, yes ? session->recipients : 0,
		       yes ? 0 : concerned(session, sent));
}

static void answered(struct session *session, struct reply *reply)
{
	enum sent sent = pop(session);
	int code = reply->code;
	char line[UPSTREAM_TEXT_MAX];

	reply_line(reply, line, sizeof(line));
	if (sent == SENT_END)
		log_end_of_message(session, line);
	if (reply_soften(reply)) /* it is what the MTA does that counts */
		reply_line(reply, line, sizeof(line));
	if (sent != SENT_QUIET)
		(void)wire_send(&session->client, reply->text, reply->len);
	(void)wire_flush(&session->client);
	tell(session, sent, reply->code, line);
	follow(session, sent, reply->code);
	if (code == 421)
		session->ending = true;
}

/*
 * A reply that nothing asked for is a server that gives up: 421 when a session
 * was idle for too long, or a refusal in the middle of a message.
 */
static void unasked(struct session *session, const struct reply *reply)
{
	char line[UPSTREAM_TEXT_MAX];

	reply_line(reply, line, sizeof(line));
	session_bye(session, "421 4.4.2 relay365-submit: the server said: %s", line);
}

bool session_server(struct session *session)
{
	struct fifo *in = &session->up.wire.in;
	struct reply reply;

	if (session->ending)
		return false;
	switch (reply_parse(in->data + in->from, fifo_len(in), &reply)) {
	case 0:
		return false;
	case -1:
		session_bye(session,
			    "421 4.3.0 relay365-submit: the server sent what is no SMTP");
		return true;
	}
	if (session->pending_count == 0) {
		unasked(session, &reply);
		return true;
	}
	if (!session->client.broken && fifo_room(&session->client.out) < reply.len)
		return false;
	answered(session, &reply);
	fifo_drop(in, reply.len);
	return true;
}
