#include "base/compat.h"

#include "proto/control.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/sock.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static int wait_for(int fd, short events, int64_t until_ms, struct err *err)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = until_ms - clock_boot_ms();
		int n = poll(&pfd, 1, left > 0 ? (int)left : 0);

		if (n > 0)
			return 0;
		if (n == 0)
			return err_set(err, ERR_TEMP, "the daemon did not answer in time");
		if (errno != EINTR)
			return err_set(err, ERR_TEMP, "cannot wait for the daemon: %s",
				       err_no(errno));
	}
}

static int send_all(int fd, const char *data, size_t len, int64_t until_ms, struct err *err)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n > 0) {
			data += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (wait_for(fd, POLLOUT, until_ms, err) < 0)
				return -1;
		} else if (errno != EINTR) {
			return err_set(err, ERR_TEMP, "cannot ask the daemon: %s", err_no(errno));
		}
	}
	return 0;
}

/* Reads until the daemon closes. */
static int receive_all(int fd, struct buf *buf, int64_t until_ms, struct err *err)
{
	for (;;) {
		size_t room;
		char *to = buf_reserve(buf, 1, &room);
		ssize_t n;

		if (to == NULL)
			return err_set(err, ERR_PERM, "the daemon's answer is too large");
		n = recv(fd, to, room, 0);
		if (n == 0)
			return 0;
		if (n > 0) {
			buf->len += (size_t)n;
			buf->data[buf->len] = '\0';
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (wait_for(fd, POLLIN, until_ms, err) < 0)
				return -1;
		} else if (errno != EINTR) {
			return err_set(err, ERR_TEMP, "cannot read the daemon's answer: %s",
				       err_no(errno));
		}
	}
}

static int daemon_error(const struct kv_message *head, struct err *err)
{
	char reason[ERR_TEXT_MAX];

	if (kv_copy(head, "reason", reason, sizeof(reason)) < 0)
		(void)snprintf(reason, sizeof(reason), "the daemon gave no reason");
	return err_set(err,
		       kv_is(head, "class", "config") ? ERR_CONFIG
		       : kv_is(head, "class", "temp") ? ERR_TEMP
						      : ERR_PERM,
		       "%s", reason);
}

static int read_answer(const struct buf *buf, cJSON **json_r, struct err *err)
{
	struct kv_message head;
	long long length;
	size_t used;

	if (kv_parse(buf_text(buf), buf->len, &head, &used) != KV_OK)
		return err_set(err, ERR_TEMP,
			       "the daemon closed the connection without an answer");
	if (!kv_is(&head, "status", "ok"))
		return daemon_error(&head, err);
	if (kv_number(&head, "length", &length) < 0 || (size_t)length != buf->len - used)
		return err_set(err, ERR_TEMP, "the daemon's answer was cut");
	*json_r = cJSON_ParseWithLength(buf->data + used, (size_t)length);
	return *json_r == NULL ? err_set(err, ERR_PERM, "the daemon's answer is not JSON") : 0;
}

static int make_request(const char *verb, const struct control_pair *pairs, size_t count,
			char request[KV_MESSAGE_MAX], size_t *len_r, struct err *err)
{
	*len_r = 0;
	if (kv_put(request, KV_MESSAGE_MAX, len_r, "relay365", KV_VERSION, 1) < 0 ||
	    kv_put(request, KV_MESSAGE_MAX, len_r, "verb", verb, strlen(verb)) < 0)
		return err_set(err, ERR_PERM,
			       "the request has a line break in it or is too long");
	for (size_t i = 0; i < count; i++)
		if (kv_put(request, KV_MESSAGE_MAX, len_r, pairs[i].key, pairs[i].value,
			   strlen(pairs[i].value)) < 0)
			return err_set(err, ERR_PERM, "%s has a line break in it or is too long",
				       pairs[i].key);
	if (kv_end(request, KV_MESSAGE_MAX, len_r) < 0)
		return err_set(err, ERR_PERM, "the request is too long");
	return 0;
}

int control_ask(const char *path, const char *verb, const struct control_pair *pairs,
		size_t count, int timeout_ms, cJSON **json_r, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + timeout_ms;
	struct buf answer = BUF_INIT(CONTROL_ANSWER_MAX);
	char request[KV_MESSAGE_MAX];
	size_t len;
	int fd = -1, result = -1;

	if (make_request(verb, pairs, count, request, &len, err) == 0)
		fd = sock_connect(path, err);
	if (fd < 0)
		goto out;
	if (send_all(fd, request, len, until_ms, err) == 0 &&
	    receive_all(fd, &answer, until_ms, err) == 0)
		result = read_answer(&answer, json_r, err);
	buf_clear(&answer);
	(void)close(fd);
out:
	/* It may hold what is to reach the daemon alone. */
	explicit_bzero(request, sizeof(request));
	return result;
}

int control_call(const char *path, const char *verb, const char *key, const char *value,
		 int timeout_ms, cJSON **json_r, struct err *err)
{
	const struct control_pair pair = {key, value};

	return control_ask(path, verb, &pair, key == NULL ? 0 : 1, timeout_ms, json_r, err);
}
