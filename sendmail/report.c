#include "base/compat.h"

#include "sendmail/report.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "proto/kv.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEADLINE_MS = 5000, REQUEST_MAX = 4096 };

static bool wait_for(int fd, short events, int64_t until_ms)
{
	struct pollfd wish = {.fd = fd, .events = events};
	int64_t left_ms = until_ms - clock_boot_ms();

	if (left_ms <= 0)
		return false;
	(void)poll(&wish, 1, (int)left_ms);
	return true;
}

static int put(char *to, size_t cap, size_t *at, const char *key, const char *value)
{
	return kv_put(to, cap, at, key, value, strlen(value));
}

static int compose(char *to, size_t cap, const struct conf_mailbox *mailbox, int code,
		   const char *text, int64_t recipients)
{
	char number[24], code_text[12];
	size_t at = 0;

	(void)snprintf(number, sizeof(number), "%lld", (long long)recipients);
	(void)snprintf(code_text, sizeof(code_text), "%d", code);
	if (put(to, cap, &at, "relay365", KV_VERSION) < 0 ||
	    put(to, cap, &at, "verb", "status") < 0 ||
	    put(to, cap, &at, "mailbox", mailbox->address) < 0 ||
	    put(to, cap, &at, "code", code_text) < 0 || put(to, cap, &at, "text", text) < 0 ||
	    put(to, cap, &at, "recipients", number) < 0 || kv_end(to, cap, &at) < 0)
		return -1;
	return (int)at;
}

/* 0: it was taken; -1: the connection is of no use, errno says why. */
static int say(int fd, const char *request, size_t len, int64_t until_ms)
{
	char answer[KV_MESSAGE_MAX];
	size_t done = 0, got = 0;

	errno = ETIMEDOUT;
	while (done < len) {
		ssize_t n = send(fd, request + done, len - done, MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t)n;
		else if (errno != EAGAIN || !wait_for(fd, POLLOUT, until_ms))
			return -1;
	}
	while (got < sizeof(answer)) {
		ssize_t n = recv(fd, answer + got, sizeof(answer) - got, 0);
		struct kv_message message;
		size_t used;

		if (n == 0)
			errno = ECONNRESET;
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return -1;
		got += n > 0 ? (size_t)n : 0;
		if (n > 0 && kv_parse(answer, got, &message, &used) != KV_MORE)
			return kv_is(&message, "status", "ok") ? 0 : -1;
		if (n < 0 && !wait_for(fd, POLLIN, until_ms)) {
			errno = ETIMEDOUT;
			return -1;
		}
	}
	return -1;
}

static int say_anew(const char *path, const char *request, size_t len, int64_t until_ms,
		    struct err *err)
{
	int fd = sock_connect(path, err);
	int result;

	if (fd < 0)
		return -1;
	result = say(fd, request, len, until_ms);
	if (result < 0)
		err_set(err, ERR_TEMP, "relay365-tokend at %s did not take it: %s", path,
			err_no(errno));
	(void)close(fd);
	return result;
}

void report_reply(const struct conf *conf, const struct lease *lease,
		  const struct conf_mailbox *mailbox, int code, const char *text,
		  int64_t recipients)
{
	int64_t until_ms = clock_boot_ms() + DEADLINE_MS;
	struct err err = ERR_INIT;
	char request[REQUEST_MAX], path[SOCK_PATH_MAX + 1];
	int len = compose(request, sizeof(request), mailbox, code, text, recipients);

	if (len < 0)
		return; /* printable text of bounded length always fits */
	if (lease->fd >= 0 && say(lease->fd, request, (size_t)len, until_ms) == 0)
		return;
	/* The lease's tokend may have ended since; another one counts all the same. */
	(void)snprintf(path, sizeof(path), "%s/token", conf->run_dir);
	if (say_anew(path, request, (size_t)len, until_ms, &err) < 0)
		log_say(EV_WARNING, "%s: \"%d %s\" for %lld recipients was not counted: %s",
			mailbox->address, code, text, (long long)recipients, err.text);
}
