#include "base/compat.h"
#include "proto/lease.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proto/printable.h"
#include "proto/kv.h"

#define ADDRESS_PREFIX "unix:"
#define REQUEST_SIZE 512 /* bytes: a request with the longest mail address */
#define RESTART_MS 3000	 /* how long a daemon that restarts may be away */
#define NAP_MS 50
#define ERRNO_TEXT_SIZE 128

_Static_assert(LEASE_ANSWER_SIZE == KV_MESSAGE_MAX, "an answer is one message");

const char *lease_path(const char *address)
{
	size_t len = strlen(ADDRESS_PREFIX);

	if (strncmp(address, ADDRESS_PREFIX, len) != 0 || address[len] == '\0')
		return NULL;
	return address + len;
}

static long long now_ms(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for fd, or just naps when fd is -1. Says false when the deadline has passed. */
static bool wait_for(int fd, short events, long long nap_ms, long long until_ms)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};
	long long left_ms = until_ms - now_ms();

	if (left_ms <= 0)
		return false;
	if (left_ms > nap_ms)
		left_ms = nap_ms;
	/* Early returns are harmless: each caller tries again and comes back here. */
	(void)poll(&poll_fd, 1, (int)left_ms);
	return true;
}

/* Both are what a daemon looks like while it is being restarted. */
static bool is_absent(int error)
{
	return error == ENOENT || error == ECONNREFUSED;
}

static enum lease_result dial(const char *path, long long until_ms, struct lease *lease)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	long long patience_ms = now_ms() + RESTART_MS;

	if (path[0] == '\0' || strlen(path) >= sizeof(name.sun_path))
		return LEASE_BAD_PATH;
	memcpy(name.sun_path, path, strlen(path) + 1);
	if (patience_ms > until_ms)
		patience_ms = until_ms;
	lease->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (lease->fd == -1) {
		lease->error = errno;
		return LEASE_UNREACHABLE;
	}
	while (connect(lease->fd, (const struct sockaddr *)&name, sizeof(name)) == -1) {
		int error = errno;

		if (error == EAGAIN) { /* its queue of connections is full: busy or stopped */
			if (!wait_for(-1, 0, NAP_MS, until_ms))
				return LEASE_TIMEOUT;
		} else if (error != EINTR &&
			   !(is_absent(error) && wait_for(-1, 0, NAP_MS, patience_ms))) {
			lease->error = error;
			return LEASE_UNREACHABLE;
		}
	}
	return LEASE_OK;
}

static enum lease_result send_request(const char *request, size_t len, long long until_ms,
				      struct lease *lease)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = send(lease->fd, request + done, len - done, MSG_NOSIGNAL);

		if (n >= 0) {
			done += (size_t)n;
		} else if (errno == EPIPE) {
			break; /* hung up on us, perhaps with an answer that can be read */
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (!wait_for(lease->fd, POLLOUT, INT_MAX, until_ms))
				return LEASE_TIMEOUT;
		} else if (errno != EINTR) {
			lease->error = errno;
			return LEASE_CLOSED;
		}
	}
	return LEASE_OK;
}

static enum lease_result judge(const struct kv_message *message, struct lease *lease)
{
	const struct kv_pair *token = kv_find(message, "token");
	const struct kv_pair *reason = kv_find(message, "reason");
	long long retry_after_s = 0;

	if (kv_is(message, "status", "ok")) {
		if (token == NULL || token->value_len == 0)
			return LEASE_BAD_ANSWER;
		lease->token = token->value;
		lease->token_len = token->value_len;
		if (kv_copy(message, "lease", lease->name, sizeof(lease->name)) < 0)
			lease->name[0] = '\0'; /* of an older daemon, and not missed */
		return LEASE_OK;
	}
	if (reason != NULL)
		printable(reason->value, reason->value_len, lease->reason, sizeof(lease->reason));
	if (kv_number(message, "retry_after", &retry_after_s) == 0)
		lease->retry_after_s = retry_after_s < INT_MAX ? (int)retry_after_s : INT_MAX;
	if (kv_is(message, "status", "later"))
		return LEASE_LATER;
	return kv_is(message, "status", "denied") ? LEASE_DENIED : LEASE_BAD_ANSWER;
}

static enum lease_result read_answer(char *answer, size_t cap, long long until_ms,
				     struct lease *lease)
{
	size_t len = 0;

	while (len < cap) {
		ssize_t n = recv(lease->fd, answer + len, cap - len, 0);
		struct kv_message message;
		size_t used;

		if (n == 0)
			return LEASE_CLOSED;
		if (n > 0) {
			len += (size_t)n;
			switch (kv_parse(answer, len, &message, &used)) {
			case KV_OK:
				return used == len ? judge(&message, lease) : LEASE_BAD_ANSWER;
			case KV_MORE:
				break;
			case KV_BAD:
				return LEASE_BAD_ANSWER;
			}
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (!wait_for(lease->fd, POLLIN, INT_MAX, until_ms))
				return LEASE_TIMEOUT;
		} else if (errno != EINTR) {
			lease->error = errno;
			return LEASE_CLOSED;
		}
	}
	return LEASE_BAD_ANSWER;
}

enum lease_result lease_ask(const char *path, const char *mailbox, int recipients,
			    int deadline_ms, char *answer, size_t cap, struct lease *lease_r)
{
	long long until_ms = now_ms() + deadline_ms;
	char request[REQUEST_SIZE], number[16];
	size_t len = 0;
	enum lease_result result;

	(void)snprintf(number, sizeof(number), "%d", recipients);
	*lease_r = (struct lease){.fd = -1};
	if (kv_put(request, sizeof(request), &len, "relay365", KV_VERSION, strlen(KV_VERSION)) ||
	    kv_put(request, sizeof(request), &len, "verb", "lease", strlen("lease")) ||
	    kv_put(request, sizeof(request), &len, "mailbox", mailbox, strlen(mailbox)) ||
	    (recipients > 0 &&
	     kv_put(request, sizeof(request), &len, "recipients", number, strlen(number))) ||
	    kv_end(request, sizeof(request), &len))
		return LEASE_BAD_MAILBOX;
	result = dial(path, until_ms, lease_r);
	if (result == LEASE_OK)
		result = send_request(request, len, until_ms, lease_r);
	if (result == LEASE_OK)
		result = read_answer(answer, cap, until_ms, lease_r);
	if (result != LEASE_OK)
		lease_end(lease_r);
	return result;
}

void lease_end(struct lease *lease)
{
	if (lease->fd != -1)
		(void)close(lease->fd);
	lease->fd = -1;
	lease->token = NULL;
	lease->token_len = 0;
}

/* What strerror_r returns depends on the libc and on the macros that configure defines. */
static const char *errno_text(int error, char *text, size_t size)
{
	text[0] = '\0';
	return _Generic(strerror_r(error, text, size), int
			: ((void)strerror_r(error, text, size), text), default
			: strerror_r(error, text, size));
}

static const char *errno_advice(int error)
{
	switch (error) {
	case ENOENT:
		return "is relay365-tokend running, and is this queue directory among its "
		       "queue_directories?";
	case EACCES:
	case EPERM:
		return "the socket and its folder must be open to the user that sends the mail";
	default:
		return "is relay365-tokend running?";
	}
}

static void explain_refusal(enum lease_result result, const struct lease *lease, char *to,
			    size_t cap)
{
	const char *when = result == LEASE_LATER ? "no token now" : "no token";
	const char *reason = lease->reason[0] != '\0' ? lease->reason : "no reason was given";

	if (lease->retry_after_s > 0)
		(void)snprintf(to, cap, "%s: %s (not before %d s from now); see: relay365 status",
			       when, reason, lease->retry_after_s);
	else
		(void)snprintf(to, cap, "%s: %s; see: relay365 status", when, reason);
}

void lease_explain(enum lease_result result, const struct lease *lease, const char *path,
		   int deadline_ms, char *to, size_t cap)
{
	char text[ERRNO_TEXT_SIZE];

	switch (result) {
	case LEASE_OK:
		(void)snprintf(to, cap, "has a lease");
		break;
	case LEASE_LATER:
	case LEASE_DENIED:
		explain_refusal(result, lease, to, cap);
		break;
	case LEASE_BAD_PATH:
		(void)snprintf(to, cap, "%s is no path of a socket: empty or too long", path);
		break;
	case LEASE_BAD_MAILBOX:
		(void)snprintf(to, cap, "not an address that relay365-tokend can be asked for");
		break;
	case LEASE_UNREACHABLE:
		(void)snprintf(to, cap, "cannot connect to %s: %s; %s", path,
			       errno_text(lease->error, text, sizeof(text)),
			       errno_advice(lease->error));
		break;
	case LEASE_TIMEOUT:
		(void)snprintf(to, cap,
			       "relay365-tokend at %s did not answer within %d s; "
			       "see its log, and: relay365 status",
			       path, (deadline_ms + 999) / 1000);
		break;
	case LEASE_CLOSED:
		(void)snprintf(
			to, cap,
			"relay365-tokend at %s hung up before it had answered%s%s; its "
			"log says why (a restart, or a user that token_users does not name)",
			path, lease->error != 0 ? ": " : "",
			lease->error != 0 ? errno_text(lease->error, text, sizeof(text)) : "");
		break;
	case LEASE_BAD_ANSWER:
		(void)snprintf(to, cap,
			       "what answers at %s does not speak this version of the token "
			       "protocol; are all parts of relay365 of one release?",
			       path);
		break;
	}
}
