#include "base/compat.h"

#include "tls/dial.h"

#include "base/clock.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ADDRESS_MS = 30 * 1000 };

/* 0, or an errno. */
static int wait_connected(int fd, int64_t until_ms)
{
	struct pollfd wish = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t len = sizeof(error);
	int64_t left_ms;

	while ((left_ms = until_ms - clock_boot_ms()) > 0) {
		int n = poll(&wish, 1, (int)left_ms);

		if (n < 0 && errno != EINTR)
			return errno;
		if (n > 0)
			return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? errno
										      : error;
	}
	return ETIMEDOUT;
}

static int dial_one(const struct addrinfo *to, int64_t until_ms, int *error_r)
{
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int64_t limit_ms = clock_boot_ms() + ADDRESS_MS;
	int on = 1;

	*error_r = errno;
	if (fd < 0)
		return -1;
	if (connect(fd, to->ai_addr, to->ai_addrlen) == 0)
		*error_r = 0;
	else if (errno == EINPROGRESS)
		*error_r = wait_connected(fd, limit_ms < until_ms ? limit_ms : until_ms);
	else
		*error_r = errno;
	if (*error_r != 0) {
		(void)close(fd);
		return -1;
	}
	/* Commands are short and are waited for. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

int dial(const char *host, int64_t port, int64_t until_ms, int *error_r, struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *found = NULL;
	char service[24];
	int rc, error = 0, fd = -1;

	(void)snprintf(service, sizeof(service), "%lld", (long long)port);
	if (error_r != NULL)
		*error_r = 0;
	rc = getaddrinfo(host, service, &hints, &found);
	if (rc != 0)
		return err_set(err, ERR_TEMP, "cannot look up %s: %s; check /etc/resolv.conf",
			       host, rc == EAI_SYSTEM ? err_no(errno) : gai_strerror(rc));
	for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
		fd = dial_one(at, until_ms, &error);
	freeaddrinfo(found);
	if (fd < 0 && error_r != NULL)
		*error_r = error;
	if (fd < 0)
		return err_set(err, ERR_TEMP,
			       "cannot connect to %s port %lld: %s; check that the firewall lets "
			       "this machine out",
			       host, (long long)port, err_no(error));
	return fd;
}
