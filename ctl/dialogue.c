#include "base/compat.h"

#include "ctl/dialogue.h"

#include "base/clock.h"
#include "tls/dial.h"
#include "tls/tls.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_MAX = 64 * 1024 };

static void note(struct dialogue *talk, const char *who, const char *line)
{
	if (talk->transcript == NULL)
		return;
	(void)buf_adds(talk->transcript, who);
	for (; line[0] != '\0'; line++)
		(void)buf_addf(talk->transcript, "%c",
			       isprint((unsigned char)line[0]) ? line[0] : '?');
	(void)buf_adds(talk->transcript, "\n");
}

int dialogue_open(struct dialogue *talk, const char *host, int64_t port, int timeout_ms,
		  struct buf *transcript, int *error_r, struct err *err)
{
	char line[512];

	*talk = (struct dialogue){.fd = -1, .in = BUF_INIT(IN_MAX), .transcript = transcript};
	(void)snprintf(line, sizeof(line), "%s port %lld", host, (long long)port);
	note(talk, "== connect to ", line);
	talk->fd = dial(host, port, clock_boot_ms() + timeout_ms, error_r, err);
	if (talk->fd < 0) {
		note(talk, "== ", err->text);
		return -1;
	}
	return 0;
}

/* Waits for the socket; false when its time is over. */
static bool ready(const struct dialogue *talk, short events, int64_t until_ms)
{
	struct pollfd pfd = {.fd = talk->fd, .events = events};
	int64_t left_ms = until_ms - clock_boot_ms();

	return left_ms > 0 && poll(&pfd, 1, (int)left_ms) != 0;
}

int dialogue_start_tls(struct dialogue *talk, const char *host, const char *ca_file,
		       struct err *err)
{
	int64_t until_ms = clock_boot_ms() + DIALOGUE_STEP_MS;
	int result = -1;

	talk->trust = tls_trust_new(ca_file, err);
	if (talk->trust != NULL)
		talk->tls = tls_new(talk->trust, talk->fd, host, err);
	while (talk->tls != NULL && (result = tls_handshake(talk->tls, err)) == 0)
		if (!ready(talk, tls_read_wants(talk->tls), until_ms)) {
			result = err_set(err, ERR_TEMP, "the TLS handshake does not end");
			break;
		}
	note(talk, "== TLS: ", result == 1 ? "chain and name verified" : err->text);
	return result == 1 ? 0 : -1;
}

int dialogue_say(struct dialogue *talk, const char *line, const char *shown, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + DIALOGUE_STEP_MS;
	struct buf out = BUF_INIT(IN_MAX);
	size_t at = 0;
	int result = 0;

	(void)buf_addf(&out, "%s\r\n", line);
	note(talk, "> ", shown != NULL ? shown : line);
	while (result == 0 && at < out.len) {
		ssize_t n = talk->tls != NULL
				    ? tls_write(talk->tls, out.data + at, out.len - at)
				    : send(talk->fd, out.data + at, out.len - at, MSG_NOSIGNAL);

		if (n > 0)
			at += (size_t)n;
		else if (talk->tls != NULL ? n < 0 : errno != EAGAIN && errno != EINTR)
			result = err_set(err, ERR_TEMP, "the server closed the connection");
		else if (!ready(talk, talk->tls != NULL ? tls_write_wants(talk->tls) : POLLOUT,
				until_ms))
			result = err_set(err, ERR_TEMP, "the server takes nothing");
	}
	buf_clear(&out); /* overwrites: it may have held a token */
	return result;
}

/* One read; 0 when there was something. */
static int fill(struct dialogue *talk, int64_t until_ms, struct err *err)
{
	size_t room;
	char *to = buf_reserve(&talk->in, 1, &room);

	while (to != NULL) {
		ssize_t n = talk->tls != NULL ? tls_read(talk->tls, to, room)
					      : recv(talk->fd, to, room, 0);

		if (n > 0) {
			talk->in.len += (size_t)n;
			talk->in.data[talk->in.len] = '\0';
			return 0;
		}
		if (talk->tls != NULL ? n < 0 : n == 0 || (errno != EAGAIN && errno != EINTR))
			return err_set(err, ERR_TEMP, "the server closed the connection");
		if (!ready(talk, talk->tls != NULL ? tls_read_wants(talk->tls) : POLLIN,
			   until_ms))
			return err_set(err, ERR_TEMP, "the server does not answer");
	}
	return err_set(err, ERR_TEMP, "the server's answer is too long");
}

int dialogue_line(struct dialogue *talk, char *line, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + DIALOGUE_STEP_MS;
	const char *end;
	size_t len;

	while ((end = memchr(buf_text(&talk->in), '\n', talk->in.len)) == NULL)
		if (fill(talk, until_ms, err) < 0) {
			note(talk, "== ", err->text);
			return -1;
		}
	len = (size_t)(end - talk->in.data);
	(void)snprintf(line, DIALOGUE_REPLY_MAX, "%.*s", (int)len, talk->in.data);
	line[strcspn(line, "\r")] = '\0';
	buf_consume(&talk->in, len + 1);
	note(talk, "< ", line);
	return 0;
}

int dialogue_reply(struct dialogue *talk, char *reply, struct err *err)
{
	char line[DIALOGUE_REPLY_MAX];
	size_t at = 0;

	do {
		if (dialogue_line(talk, line, err) < 0)
			return -1;
		if (strlen(line) < 3 || strspn(line, "0123456789") < 3)
			return err_set(err, ERR_TEMP, "this is no SMTP server; it says: %.100s",
				       line);
		if (at < DIALOGUE_REPLY_MAX)
			at += (size_t)snprintf(reply + at, DIALOGUE_REPLY_MAX - at, "%s%s",
					       at > 0 ? "\n" : "", line);
	} while (line[3] == '-');
	return (int)strtol(line, NULL, 10);
}

void dialogue_close(struct dialogue *talk)
{
	if (talk->tls != NULL)
		tls_free(&talk->tls);
	if (talk->trust != NULL)
		tls_trust_free(&talk->trust);
	if (talk->fd >= 0)
		(void)close(talk->fd);
	talk->fd = -1;
	buf_clear(&talk->in);
}
