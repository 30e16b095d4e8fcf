#include "base/compat.h"
#include "fake_tokend.h"

#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static char home[] = "/tmp/relay365-test.XXXXXX";
static char old_home[PATH_MAX];

void fake_enter(void)
{
	assert_non_null(getcwd(old_home, sizeof(old_home)));
	assert_non_null(mkdtemp(home));
	assert_int_equal(chdir(home), 0);
}

void fake_leave(void)
{
	(void)unlink(FAKE_SOCKET);
	assert_int_equal(chdir(old_home), 0);
	assert_int_equal(rmdir(home), 0);
}

/* Whether the test has ended. */
static bool stopped(const struct fake *fake, int ms)
{
	struct pollfd fds = {.fd = fake->stop[0], .events = POLLIN};

	return poll(&fds, 1, ms) > 0;
}

/* Waits for fd to be readable. Says false when the test ends first. */
static bool wait_readable(const struct fake *fake, int fd)
{
	struct pollfd fds[] = {{.fd = fd, .events = POLLIN},
			       {.fd = fake->stop[0], .events = POLLIN}};

	return poll(fds, 2, -1) > 0 && fds[0].revents != 0;
}

static void read_request(struct fake *fake, int fd)
{
	size_t len = 0;

	while (len < sizeof(fake->request) - 1 && strstr(fake->request, "\n\n") == NULL) {
		ssize_t n;

		if (!wait_readable(fake, fd))
			return;
		n = recv(fd, fake->request + len, sizeof(fake->request) - 1 - len, 0);
		if (n <= 0)
			return;
		len += (size_t)n;
		fake->request[len] = '\0';
	}
}

static void write_answer(const struct fake *fake, int fd)
{
	for (size_t at = 0; at < fake->answer_len;) {
		size_t left = fake->answer_len - at;
		ssize_t n;

		if (fake->pause_ms > 0 && stopped(fake, fake->pause_ms))
			return;
		n = send(fd, fake->answer + at,
			 fake->chunk > 0 && fake->chunk < left ? fake->chunk : left,
			 MSG_NOSIGNAL);
		if (n <= 0)
			return;
		at += (size_t)n;
	}
}

static void serve(struct fake *fake, int fd)
{
	char byte;

	fake->asked++;
	memset(fake->request, 0, sizeof(fake->request));
	if (!fake->deaf)
		read_request(fake, fd);
	write_answer(fake, fd);
	while (!fake->hang_up && wait_readable(fake, fd)) {
		if (recv(fd, &byte, 1, 0) <= 0) {
			fake->ended++;
			break;
		}
	}
	(void)close(fd);
}

static void *run(void *arg)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = FAKE_SOCKET};
	struct fake *fake = arg;

	if (fake->late_ms > 0) {
		if (stopped(fake, fake->late_ms) ||
		    bind(fake->listener, (struct sockaddr *)&name, sizeof(name)) == -1 ||
		    listen(fake->listener, 5) == -1)
			return NULL;
	}
	while (wait_readable(fake, fake->listener)) {
		int fd = accept(fake->listener, NULL, NULL);

		if (fd != -1)
			serve(fake, fd);
	}
	return NULL;
}

void fake_start(struct fake *fake)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = FAKE_SOCKET};

	(void)unlink(FAKE_SOCKET);
	fake->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_true(fake->listener != -1);
	assert_int_equal(pipe(fake->stop), 0);
	if (fake->late_ms == 0) {
		assert_int_equal(bind(fake->listener, (struct sockaddr *)&name, sizeof(name)), 0);
		assert_int_equal(listen(fake->listener, 5), 0);
	}
	assert_int_equal(pthread_create(&fake->thread, NULL, run, fake), 0);
}

bool fake_wait_ended(struct fake *fake, int count)
{
	for (int i = 0; i < 200 && fake->ended < count; i++)
		(void)poll(NULL, 0, 10);
	return fake->ended == count;
}

void fake_stop(struct fake *fake)
{
	(void)close(fake->stop[1]);
	assert_int_equal(pthread_join(fake->thread, NULL), 0);
	(void)close(fake->stop[0]);
	(void)close(fake->listener);
	(void)unlink(FAKE_SOCKET);
}
