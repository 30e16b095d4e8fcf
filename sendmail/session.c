#include "base/compat.h"

#include "sendmail/session_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"

#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>

enum {
	LEASE_MS = 2 * 60 * 1000, /* for asking for a lease once more; MTAs wait 5 minutes */
	LEASE_RETRY_S = 10,	  /* what is nearer than that is asked for once more */
	OPEN_MS = 2 * 60 * 1000,  /* to a signed-in session, with the lease */
	STOP_MS = 10 * 1000,	  /* for a message to come to its end when the daemon ends */
	STOP_END_MS = 75 * 1000,  /* and for the reply to its end */
	STOP_LINGER_MS = 1000,	  /* what remains of LINGER_MS then */
	LINGER_MS = 30 * 1000,	  /* for the client to read our last words */
	ANSWER_MAX = 510	  /* bytes of a reply line, RFC 5321, section 4.5.3.1.5 */
};

/* ---- replies of ours ---- */

static void PRINTF_LIKE(2, 0) answer(struct session *session, const char *fmt, va_list args)
{
	char line[ANSWER_MAX + 3];
	int n = vsnprintf(line, ANSWER_MAX + 1, fmt, args);
	size_t len = n < 0 ? 0 : n > ANSWER_MAX ? ANSWER_MAX : (size_t)n;

	memcpy(line + len, "\r\n", 2);
	if (wire_send(&session->client, line, len + 2) < 0)
		session->client.broken = true; /* lets 64 KB of replies pile up */
}

void session_answer(struct session *session, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	answer(session, fmt, args);
	va_end(args);
}

void session_bye(struct session *session, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	answer(session, fmt, args);
	va_end(args);
	session->ending = true;
}

/* ---- the session to the server ---- */

void session_push(struct session *session, enum sent sent)
{
	size_t at = (session->pending_from + session->pending_count) % SESSION_PENDING_MAX;

	session->pending[at] = sent;
	session->pending_count++;
}

void session_unanswered(struct session *session, bool is)
{
	if (is != session->unanswered)
		(void)atomic_fetch_add(session->parts->unanswered, is ? 1 : -1);
	session->unanswered = is;
}

static void end_lease(struct session *session)
{
	report_end(session->parts->reporter, session->conf, &session->lease,
		   session->lease_mailbox);
}

void session_message_over(struct session *session)
{
	end_lease(session);
	session_unanswered(session, false);
	session->in_mail = false;
	session->recipients = 0;
	session->bytes = 0;
}

/* A reason for the MTA's queue and the log. */
static int failed(const struct conf_mailbox *mailbox, const struct err *err)
{
	struct log_line line;

	log_begin(&line, EV_SUBMIT_FAIL, NULL);
	log_str(&line, "mailbox", mailbox->name);
	log_str(&line, "text", err->text);
	log_end(&line);
	return -1;
}

static bool is_stopping(const struct session *session)
{
	struct pollfd stop = {.fd = session->parts->stop_fd, .events = POLLIN};

	return poll(&stop, 1, 0) > 0;
}

/* Whether it makes sense to go on after so long. */
static bool nap(struct session *session, int64_t ms)
{
	int64_t until_ms = clock_boot_ms() + ms, now;

	while ((now = clock_boot_ms()) < until_ms) {
		(void)wire_fill(&session->client);
		if (session->client.ended || is_stopping(session))
			return false;
		wire_wait(&session->client, NULL, session->parts->stop_fd, until_ms - now);
	}
	return true;
}

/*
 * A lease, patiently: when all slots are taken, or the pace lets nobody send for
 * some seconds, the MTA had better wait here than put the mail off until its
 * next queue run.
 */
static int take_lease(struct session *session, const struct conf_mailbox *mailbox, char *answer,
		      size_t cap, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + LEASE_MS;
	int recipients = (int)conf_transaction_recipients(mailbox);
	struct lease *lease = &session->lease;
	enum lease_result result;
	char path[256], why[768];

	session->lease_mailbox = mailbox;
	(void)snprintf(path, sizeof(path), "%s/token%s", session->conf->run_dir,
		       conf_is_priority_sender(mailbox, session->sender) ? "-priority" : "");
	do
		result = lease_ask(path, mailbox->address, recipients, LEASE_DEADLINE_MS, answer,
				   cap, lease);
	while (result == LEASE_LATER && lease->retry_after_s > 0 &&
	       lease->retry_after_s <= LEASE_RETRY_S && clock_boot_ms() < until_ms &&
	       nap(session, (int64_t)lease->retry_after_s * 1000));
	if (result == LEASE_OK)
		return 0;
	lease_explain(result, lease, path, LEASE_DEADLINE_MS, why, sizeof(why));
	return err_set(err, ERR_TEMP, "%s: %s", mailbox->address, why);
}

/* A lease brings a token too; it is used only where the session is not signed in yet. */
static int sign_in(struct session *session, const struct conf_mailbox *mailbox, char *answer,
		   size_t cap, struct err *err)
{
	const struct conf_tenant *tenant = mailbox->tenant;
	struct upstream *up = &session->up;
	int64_t until_ms;
	bool open;

	if (take_lease(session, mailbox, answer, cap, err) < 0)
		return -1;
	until_ms = clock_boot_ms() + OPEN_MS;
	open = upstream_is_quiet(up); /* the lease may have taken minutes */
	if (open && up->mailbox == mailbox)
		return 0;
	if ((!open || up->mailbox != NULL || up->tenant != tenant) &&
	    upstream_open(up, tenant, live_trust(session->live, tenant), until_ms, err) < 0)
		return -1;
	return upstream_sign_in(up, mailbox, session->lease.token, session->lease.token_len,
				until_ms, err);
}

int session_sign_in(struct session *session, const struct conf_mailbox *mailbox, struct err *err)
{
	char answer[LEASE_ANSWER_SIZE];
	int result;

	end_lease(session);
	session->up.refused[0] = '\0';
	result = sign_in(session, mailbox, answer, sizeof(answer), err);
	explicit_bzero(answer, sizeof(answer));
	session->lease.token = NULL;
	if (result == 0)
		return 0;
	if (session->up.refused[0] != '\0')
		session_report(session, (int)strtol(session->up.refused, NULL, 10),
			       session->up.refused, 0, 0);
	end_lease(session);
	return failed(mailbox, err);
}

/*
 * Before the greeting. With several mailboxes the server is the default one's,
 * and the sender decides; so it does where some have priority.
 */
static int open_first(struct session *session, struct err *err)
{
	const struct conf *conf = session->conf;
	const struct conf_mailbox *first = &conf->mailbox[0];

	if (conf->mailboxes == 1 && first->priority_senders.count == 0)
		return session_sign_in(session, first, err);
	for (size_t i = 0; i < conf->mailboxes; i++)
		if (conf->mailbox[i].is_default)
			first = &conf->mailbox[i];
	if (upstream_open(&session->up, first->tenant, live_trust(session->live, first->tenant),
			  clock_boot_ms() + OPEN_MS, err) == 0)
		return 0;
	return failed(first, err);
}

/* ---- waiting ---- */

/* How long nothing may move. */
static int64_t patience_ms(const struct session *session)
{
	if (session->phase == PHASE_BODY)
		return patience_body_ms(fifo_len(&session->up.wire.out) > 0);
	return patience_reply_ms(
		session->pending_count == 0 ? NULL : &session->pending[session->pending_from]);
}

/*
 * How long the session may last when the daemon ends. A message whose end was
 * sent may be taken already: to say "try again" now would double it.
 */
static int64_t stop_patience_ms(const struct session *session)
{
	return session->unanswered ? STOP_END_MS : STOP_MS;
}

static void out_of_patience(struct session *session)
{
	const char *host =
		session->up.tenant == NULL ? "the server" : session->up.tenant->smtp_host;

	if (session->pending_count > 0 || fifo_len(&session->up.wire.out) > 0)
		session_bye(session, "421 4.4.2 relay365-submit: %s does not answer", host);
	else
		session_bye(session, "421 4.4.2 relay365-submit: no command for too long");
}

static void lost_server(struct session *session)
{
	const char *host =
		session->up.tenant == NULL ? "the server" : session->up.tenant->smtp_host;

	if (session->in_mail)
		log_say(EV_SUBMIT_FAIL, "%s hung up during a message from <%s>; the MTA keeps it",
			host, session->sender);
	session_bye(session, "421 4.4.2 relay365-submit: %s hung up", host);
}

/* After what could be done was done: is that all? stop_ms: when we must be through, 0: never. */
static void look_for_end(struct session *session, int64_t stop_ms, int64_t now_ms)
{
	bool busy = session->pending_count > 0 || session->phase != PHASE_COMMANDS;

	if (session->ending)
		return;
	if (session->up.tenant != NULL && session->up.wire.ended &&
	    fifo_len(&session->client.out) == 0)
		lost_server(session);
	else if (session->client.gone && session->phase == PHASE_BODY)
		session->ending = true; /* half a message is no message: it gets no end */
	else if (session->client.ended && (session->phase != PHASE_COMMANDS || !busy))
		session->ending = true;
	else if (stop_ms > 0 && ((!busy && !session->in_mail) || now_ms >= stop_ms))
		session_bye(session, "421 4.3.2 relay365-submit ends; try again");
}

/* Commands and replies, until one side or we have had enough. */
static void relay(struct session *session)
{
	struct wire *client = &session->client, *server = &session->up.wire;
	int64_t stop_since_ms = 0, stop_ms = 0;

	session->moved_ms = clock_boot_ms();
	while (!session->ending) {
		int64_t left_ms, now;
		bool moved;

		moved = wire_flush(client);
		moved |= wire_flush(server);
		moved |= wire_fill(client);
		moved |= wire_fill(server);
		moved |= session_server(session);
		moved |= session_client(session);
		now = clock_boot_ms();
		if (moved) {
			session->moved_ms = now;
			continue;
		}
		if (stop_since_ms == 0 && is_stopping(session))
			stop_since_ms = now;
		if (stop_since_ms > 0)
			stop_ms = stop_since_ms + stop_patience_ms(session);
		look_for_end(session, stop_ms, now);
		left_ms = session->moved_ms + patience_ms(session) - now;
		if (session->ending)
			return;
		if (left_ms <= 0)
			out_of_patience(session);
		else if (stop_ms == 0)
			wire_wait(client, server, session->parts->stop_fd, left_ms);
		else
			wire_wait(client, server, -1,
				  stop_ms - now < left_ms ? stop_ms - now : left_ms);
	}
}

/*
 * The client may still be sending. Closing on it would let the kernel throw
 * away our last words, which say why; so they are sent, and what comes is
 * thrown away until the client has hung up.
 */
static void linger(struct session *session)
{
	struct wire *client = &session->client;
	int64_t until_ms = clock_boot_ms() + LINGER_MS;
	int stop_fd = session->parts->stop_fd;
	bool said = false;

	while (!client->ended && !client->broken) {
		int64_t now = clock_boot_ms();

		(void)wire_flush(client);
		if (!said && fifo_len(&client->out) == 0) {
			(void)shutdown(client->fd, SHUT_WR);
			said = true;
		}
		fifo_drop(&client->in, fifo_len(&client->in));
		if (wire_fill(client))
			continue;
		if (stop_fd >= 0 && is_stopping(session)) {
			stop_fd = -1;
			if (until_ms > now + STOP_LINGER_MS)
				until_ms = now + STOP_LINGER_MS;
		}
		if (now >= until_ms || client->gone)
			return;
		wire_wait(client, NULL, stop_fd, until_ms - now);
	}
}

void session_run(const struct session_parts *parts, int fd)
{
	struct session *session = xcalloc(1, sizeof(*session));
	struct err err = ERR_INIT;

	session->parts = parts;
	session->live = live_get(parts->live);
	session->conf = session->live->conf;
	session->lease.fd = -1;
	wire_init(&session->client, fd);
	upstream_init(&session->up);
	if (open_first(session, &err) < 0) {
		session_bye(session, "421 4.7.0 %s", err.text);
	} else {
		session_answer(session, "220 %s relay365-submit ESMTP",
			       session->up.tenant->smtp_host);
		relay(session);
	}
	if (session->phase == PHASE_BODY)
		upstream_drop(&session->up);
	else
		upstream_close(&session->up);
	(void)wire_flush(&session->client);
	end_lease(session);
	session_unanswered(session, false);
	linger(session);
	wire_close(&session->client);
	live_put(parts->live, &session->live);
	free(session);
}
