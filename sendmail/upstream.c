#include "base/compat.h"

#include "sendmail/upstream.h"

#include "base/clock.h"
#include "explain/explain.h"
#include "proto/base64.h"
#include "proto/xoauth2.h"
#include "tls/dial.h"

#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOST_MAX = 255, CODE_LEN = 3 };

void upstream_init(struct upstream *up)
{
	wire_init(&up->wire, -1);
	up->tenant = NULL;
	up->mailbox = NULL;
	up->offers_len = 0;
	up->refused[0] = '\0';
}

static void forget(struct upstream *up)
{
	wire_close(&up->wire);
	up->tenant = NULL;
	up->mailbox = NULL;
}

void upstream_drop(struct upstream *up)
{
	static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

	if (up->wire.fd >= 0)
		(void)setsockopt(up->wire.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	forget(up);
}

bool upstream_is_quiet(struct upstream *up)
{
	(void)wire_fill(&up->wire);
	return up->tenant != NULL && !up->wire.ended && fifo_len(&up->wire.in) == 0;
}

void upstream_close(struct upstream *up)
{
	if (up->tenant != NULL && !up->wire.ended) {
		(void)wire_send(&up->wire, "QUIT\r\n", 6);
		(void)wire_flush(&up->wire);
	}
	forget(up);
}

/* ---- one command, one reply ---- */

static int say(struct upstream *up, const char *text, struct err *err)
{
	if (wire_send(&up->wire, text, strlen(text)) == 0 && wire_send(&up->wire, "\r\n", 2) == 0)
		return 0;
	return err_set(err, ERR_TEMP, "a command is too long"); /* buffers were empty */
}

/* Waits for a whole reply. It stays in the wire's buffer until hear_end(). */
static int hear(struct upstream *up, const char *to_what, struct reply *reply, int64_t until_ms,
		struct err *err)
{
	const char *host = up->tenant->smtp_host;
	struct fifo *in = &up->wire.in;

	for (;;) {
		int64_t now = clock_boot_ms();

		(void)wire_flush(&up->wire);
		(void)wire_fill(&up->wire);
		switch (reply_parse(in->data + in->from, fifo_len(in), reply)) {
		case 1:
			return 0;
		case -1:
			return err_set(err, ERR_TEMP, "%s answered %s with what is no SMTP", host,
				       to_what);
		}
		if (up->wire.ended)
			return err_set(err, ERR_TEMP, "%s hung up instead of answering %s", host,
				       to_what);
		if (now >= until_ms || fifo_room(in) == 0)
			return err_set(err, ERR_TEMP, "%s did not answer %s in time", host,
				       to_what);
		wire_wait(&up->wire, NULL, -1, until_ms - now);
	}
}

static void hear_end(struct upstream *up, const struct reply *reply)
{
	fifo_drop(&up->wire.in, reply->len);
}

/* Says a command (NULL: nothing) and wants a reply of the class, as 2 for 2xx. */
static int ask(struct upstream *up, const char *command, const char *name, int wanted,
	       int64_t until_ms, struct err *err)
{
	char text[UPSTREAM_TEXT_MAX];
	struct reply reply;

	if (command != NULL && say(up, command, err) < 0)
		return -1;
	if (hear(up, name, &reply, until_ms, err) < 0)
		return -1;
	reply_line(&reply, text, sizeof(text));
	hear_end(up, &reply);
	if (reply.code / 100 != wanted)
		return err_set(err, ERR_TEMP, "%s answered %s with: %s", up->tenant->smtp_host,
			       name, text);
	return 0;
}

/* ---- EHLO ---- */

static bool has_word(const char *line, size_t len, const char *word)
{
	size_t n = strlen(word);

	return len >= n && strncasecmp(line, word, n) == 0 &&
	       (len == n || line[n] == ' ' || line[n] == '=');
}

/*
 * Ours: what needs no or another session (STARTTLS, AUTH), and what would put
 * message data outside of DATA (CHUNKING and with it BINARYMIME).
 */
static bool is_for_client(const char *line, size_t len)
{
	static const char *const ours[] = {"STARTTLS", "AUTH", "CHUNKING", "BINARYMIME"};

	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (has_word(line, len, ours[i]))
			return false;
	return len > 0;
}

struct offers {
	bool starttls;
	bool xoauth2;
};

static bool offers_xoauth2(const char *line, size_t len)
{
	static const char name[] = "XOAUTH2";

	if (!has_word(line, len, "AUTH"))
		return false;
	for (size_t i = strlen("AUTH"); i + strlen(name) < len; i++)
		if ((line[i] == ' ' || line[i] == '=') &&
		    strncasecmp(line + i + 1, name, strlen(name)) == 0)
			return true;
	return false;
}

static void read_offers(struct upstream *up, const struct reply *reply, struct offers *offers)
{
	const char *at = memchr(reply->text, '\n', reply->len);
	const char *end = reply->text + reply->len;

	*offers = (struct offers){false, false};
	up->offers_len = 0;
	while (at != NULL && ++at < end) {
		const char *line = at + CODE_LEN + 1;
		size_t len = 0;

		at = memchr(at, '\n', (size_t)(end - at));
		if (at == NULL || line > at)
			continue;
		while (line + len < at && line[len] != '\r')
			len++;
		offers->starttls |= has_word(line, len, "STARTTLS");
		offers->xoauth2 |= offers_xoauth2(line, len);
		if (!is_for_client(line, len) || up->offers_len + len + 1 > sizeof(up->offers))
			continue;
		memcpy(up->offers + up->offers_len, line, len);
		up->offers[up->offers_len + len] = '\n';
		up->offers_len += len + 1;
	}
}

/* Our name; Microsoft does not look at it. */
static void own_name(char name[HOST_MAX + 1])
{
	if (gethostname(name, HOST_MAX + 1) < 0)
		name[0] = '\0';
	name[HOST_MAX] = '\0';
	if (name[0] == '\0' || name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST"
						 "UVWXYZ0123456789.-")] != '\0')
		(void)snprintf(name, HOST_MAX + 1, "localhost");
}

static int ehlo(struct upstream *up, struct offers *offers, int64_t until_ms, struct err *err)
{
	char name[HOST_MAX + 1], command[HOST_MAX + 8], text[UPSTREAM_TEXT_MAX];
	struct reply reply;

	own_name(name);
	(void)snprintf(command, sizeof(command), "EHLO %s", name);
	if (say(up, command, err) < 0 || hear(up, "EHLO", &reply, until_ms, err) < 0)
		return -1;
	reply_line(&reply, text, sizeof(text));
	read_offers(up, &reply, offers);
	hear_end(up, &reply);
	if (reply.code / 100 != 2)
		return err_set(err, ERR_TEMP, "%s answered EHLO with: %s", up->tenant->smtp_host,
			       text);
	return 0;
}

/* ---- connecting ---- */

static int handshake(struct upstream *up, struct tls_trust *trust, int64_t until_ms,
		     struct err *err)
{
	const char *host = up->tenant->smtp_host;
	int rc;

	if (fifo_len(&up->wire.in) > 0)
		return err_set(
			err, ERR_TEMP,
			"%s sent more than its answer to STARTTLS, which nobody honest does",
			host);
	up->wire.tls = tls_new(trust, up->wire.fd, host, err);
	if (up->wire.tls == NULL)
		return -1;
	while ((rc = tls_handshake(up->wire.tls, err)) == 0) {
		int64_t now = clock_boot_ms();

		if (now >= until_ms)
			return err_set(err, ERR_TEMP, "%s did not begin TLS in time", host);
		wire_wait(&up->wire, NULL, -1, until_ms - now);
	}
	return rc < 0 ? -1 : 0;
}

static int connect_tls(struct upstream *up, struct tls_trust *trust, int64_t until_ms,
		       struct err *err)
{
	const struct conf_tenant *tenant = up->tenant;
	const char *address =
		tenant->smtp_address[0] == '\0' ? tenant->smtp_host : tenant->smtp_address;
	struct offers offers;
	int fd = dial(address, tenant->smtp_port, until_ms, NULL, err);

	if (fd < 0)
		return -1;
	wire_init(&up->wire, fd);
	if (ask(up, NULL, "the connection", 2, until_ms, err) < 0 ||
	    ehlo(up, &offers, until_ms, err) < 0)
		return -1;
	if (!offers.starttls)
		return err_set(
			err, ERR_CONFIG,
			"%s does not offer STARTTLS; look for a firewall that changes SMTP",
			tenant->smtp_host);
	if (ask(up, "STARTTLS", "STARTTLS", 2, until_ms, err) < 0 ||
	    handshake(up, trust, until_ms, err) < 0 || ehlo(up, &offers, until_ms, err) < 0)
		return -1;
	up->can_xoauth2 = offers.xoauth2;
	return 0;
}

int upstream_open(struct upstream *up, const struct conf_tenant *tenant, struct tls_trust *trust,
		  int64_t until_ms, struct err *err)
{
	upstream_close(up);
	up->tenant = tenant;
	if (connect_tls(up, trust, until_ms, err) == 0)
		return 0;
	forget(up);
	return -1;
}

/* ---- signing in ---- */

/* "user=...^Aauth=Bearer ...^A^A" in Base64; erased again when it has gone out. */
static int send_response(struct upstream *up, const char *token, size_t token_len,
			 struct err *err)
{
	const char *user = up->mailbox->address;
	char plain[XOAUTH2_RESPONSE_MAX], coded[BASE64_SIZE(XOAUTH2_RESPONSE_MAX) + 2];
	size_t len = 0, n = 0;
	int result = 0;

	if (xoauth2_compose(user, strlen(user), token, token_len, plain, sizeof(plain), &len) !=
	    XOAUTH2_OK) {
		result = err_set(err, ERR_PERM,
				 "what relay365-tokend gave is no token that XOAUTH2 can carry");
	} else {
		n = base64_encode(plain, len, coded);
		coded[n++] = '\r';
		coded[n++] = '\n';
		if (wire_send(&up->wire, coded, n) < 0)
			result = err_set(err, ERR_TEMP, "the token is too long");
	}
	explicit_bzero(plain, sizeof(plain));
	explicit_bzero(coded, sizeof(coded));
	return result;
}

static int refused(struct upstream *up, const struct reply *reply, struct err *err)
{
	const struct explanation *what;
	char text[UPSTREAM_TEXT_MAX];

	if (reply->code == 421) { /* it hangs up, and has not looked at the mailbox */
		reply_line(reply, text, sizeof(text));
		return err_set(err, ERR_TEMP, "%s hung up instead of signing %s in: %s",
			       up->tenant->smtp_host, up->mailbox->address, text);
	}
	reply_line(reply, up->refused, sizeof(up->refused));
	what = explain_reply(up->refused);
	return err_set(err, ERR_CONFIG, "%s does not let %s in: %s%s%s%s", up->tenant->smtp_host,
		       up->mailbox->address, up->refused, what == NULL ? "" : " (",
		       what == NULL ? "" : what->meaning, what == NULL ? "" : ")");
}

/* The first 334, which must be empty: a server that asks something else does not get the token.
 */
static int ask_xoauth2(struct upstream *up, int64_t until_ms, struct err *err)
{
	char text[UPSTREAM_TEXT_MAX];
	struct reply reply;
	int result;

	if (say(up, "AUTH XOAUTH2", err) < 0 ||
	    hear(up, "AUTH XOAUTH2", &reply, until_ms, err) < 0)
		return -1;
	reply_line(&reply, text, sizeof(text));
	result = strcmp(text, "334") == 0 || strcmp(text, "334 ") == 0 ? 0
		 : reply.code == 334
			 ? err_set(err, ERR_TEMP,
				   "%s answered AUTH XOAUTH2 with a question instead of an empty "
				   "334, so it did not get the token: %s",
				   up->tenant->smtp_host, text)
			 : refused(up, &reply, err);
	hear_end(up, &reply);
	return result;
}

static int sign_in(struct upstream *up, const char *token, size_t token_len, int64_t until_ms,
		   struct err *err)
{
	struct reply reply;
	int result;

	if (!up->can_xoauth2)
		return err_set(err, ERR_CONFIG,
			       "%s does not offer AUTH XOAUTH2; is it smtp.office365.com:587, "
			       "without a proxy between?",
			       up->tenant->smtp_host);
	if (ask_xoauth2(up, until_ms, err) < 0 || send_response(up, token, token_len, err) < 0 ||
	    hear(up, "the token", &reply, until_ms, err) < 0)
		return -1;
	if (reply.code == 334) { /* an error in JSON: the refusal comes after an empty line */
		hear_end(up, &reply);
		if (say(up, "", err) < 0 || hear(up, "the token", &reply, until_ms, err) < 0)
			return -1;
	}
	result = reply.code == 235 ? 0 : refused(up, &reply, err);
	hear_end(up, &reply);
	return result;
}

int upstream_sign_in(struct upstream *up, const struct conf_mailbox *mailbox, const char *token,
		     size_t token_len, int64_t until_ms, struct err *err)
{
	up->mailbox = mailbox;
	up->refused[0] = '\0';
	if (sign_in(up, token, token_len, until_ms, err) == 0)
		return 0;
	upstream_close(up);
	return -1;
}
