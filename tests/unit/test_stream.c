#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/stream.h"
#include "base/xalloc.h"
#include "temp.h"
#include "test_loop_kit.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- streams ---- */

/*
 * A server of lines: "echo TEXT" answers, "big" answers BIG bytes, "close",
 * "end" and "flood" do that, "kill" closes the oldest other stream, "late"
 * sends and closes when the peer is gone.
 */
enum { BIG = 1 << 20, IN_MAX = 64 };

static struct {
	struct stream_server *server;
	struct stream *open[16];
	unsigned int opened, closed, flushed, refuse;
	bool greet, greet_and_close, send_when_closed;
} served;

static bool on_opened(struct stream *stream)
{
	assert_int_equal(stream->peer.uid, getuid());
	assert_int_equal(stream->peer.pid, getpid());
	assert_ptr_equal(stream_context(stream), &served);
	if (served.refuse > 0) {
		served.refuse--;
		return false;
	}
	served.open[served.opened++] = stream;
	if (served.greet)
		assert_int_equal(stream_send(stream, "hello\n", 6), 0);
	if (served.greet_and_close)
		stream_close(stream);
	return true;
}

static void on_closed(struct stream *stream)
{
	for (size_t i = 0; i < served.opened; i++)
		if (served.open[i] == stream) {
			served.open[i] = NULL;
			served.closed++;
			if (served.send_when_closed)
				assert_int_equal(stream_send(stream, "bye\n", 4), -1);
			return;
		}
	fail_msg("closed() for a stream that is not open");
}

static void send_big(struct stream *stream)
{
	char *big = xmalloc(BIG);

	memset(big, 'b', BIG);
	(void)stream_send(stream, big, BIG);
	free(big);
}

static void kill_other(const struct stream *self)
{
	for (size_t i = 0; i < served.opened; i++)
		if (served.open[i] != NULL && served.open[i] != self) {
			stream_close(served.open[i]);
			return;
		}
}

static void on_line(struct stream *stream, const char *line, size_t len)
{
	if (len >= 5 && memcmp(line, "echo ", 5) == 0) {
		(void)stream_send(stream, line + 5, len - 5);
	} else if (memcmp(line, "big", 3) == 0) {
		send_big(stream);
	} else if (memcmp(line, "end", 3) == 0) {
		send_big(stream);
		stream_end(stream);
	} else if (memcmp(line, "close", 5) == 0) {
		stream_close(stream);
		stream_close(stream);
		assert_int_equal(stream_send(stream, "x", 1), -1);
		stream_end(stream);
	} else if (memcmp(line, "kill", 4) == 0) {
		kill_other(stream);
	} else if (memcmp(line, "flood", 5) == 0) {
		for (int i = 0; i < 4; i++)
			send_big(stream);
	}
}

static void on_received(struct stream *stream)
{
	char *end;

	while (stream->in.len > 0 && (end = memchr(stream->in.data, '\n', stream->in.len))) {
		size_t n = (size_t)(end - stream->in.data) + 1;

		on_line(stream, stream->in.data, n);
		buf_consume(&stream->in, n);
	}
}

static void on_flushed(struct stream *stream)
{
	assert_true(stream_is_flushed(stream));
	served.flushed++;
}

static const struct stream_ops ops = {
	.opened = on_opened,
	.received = on_received,
	.closed = on_closed,
	.flushed = on_flushed,
	.in_max = IN_MAX,
	.out_max = 2 * BIG,
	.connections_max = 8,
};

static void serve(const char *name)
{
	struct err err = ERR_INIT;

	memset(&served, 0, sizeof(served));
	served.server = stream_serve(loop, temp_path(name), 0600, (gid_t)-1, &ops, &served, &err);
	if (served.server == NULL)
		fail_msg("%s", err.text);
}

/* Lets the loop handle all that is ready and due. */
static void turn(void)
{
	for (int i = 0; i < 4; i++)
		run_due(clock_boot_ms() + 1);
}

static int dial(const char *name)
{
	struct err err = ERR_INIT;
	int fd = sock_connect(temp_path(name), &err);

	if (fd < 0)
		fail_msg("%s", err.text);
	turn();
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	turn();
}

/* What there is to read, counted; *end_r says whether the server closed. */
static size_t hear(int fd, char *to, size_t cap, bool *end_r)
{
	char rest[4096];
	size_t total = 0;

	*end_r = false;
	for (;;) {
		ssize_t n = recv(fd, rest, sizeof(rest), 0);

		if (n <= 0) {
			*end_r = n == 0 || errno == ECONNRESET;
			if (n == 0 || errno != EAGAIN)
				return total;
			turn();
			n = recv(fd, rest, sizeof(rest), 0);
			if (n <= 0) {
				*end_r = n == 0 || errno == ECONNRESET;
				return total;
			}
		}
		if (total < cap)
			memcpy(to + total, rest,
			       (size_t)n < cap - total ? (size_t)n : cap - total);
		total += (size_t)n;
	}
}

static void expect(int fd, const char *text, bool end)
{
	char got[256];
	bool ended;

	assert_int_equal(hear(fd, got, sizeof(got), &ended), strlen(text));
	assert_memory_equal(got, text, strlen(text));
	assert_int_equal(ended, end);
}

static void test_partial_messages(void **state)
{
	int fd;

	(void)state;
	serve("s");
	fd = dial("s");
	for (const char *p = "echo one\necho two\n"; *p != '\0'; p++) {
		char c[2] = {*p, '\0'};

		say(fd, c);
	}
	expect(fd, "one\ntwo\n", false);
	say(fd, "echo three\necho four\necho fi");
	expect(fd, "three\nfour\n", false);
	say(fd, "ve\n");
	expect(fd, "five\n", false);
	(void)close(fd);
	turn();
	assert_int_equal(served.closed, 1);
	stream_server_free(&served.server);
}

static void test_peer_closes_midway(void **state)
{
	int fd;

	(void)state;
	serve("s");
	fd = dial("s");
	say(fd, "echo hal");
	(void)close(fd);
	turn();
	assert_int_equal(served.closed, 1);
	/* With answers unread, and with an answer still coming. */
	fd = dial("s");
	say(fd, "echo x\nbig\n");
	(void)close(fd);
	turn();
	assert_int_equal(served.closed, 2);
	/* Gone before the server looks. */
	fd = dial("s");
	assert_int_equal(send(fd, "big\necho x\nbig\n", 15, MSG_NOSIGNAL), 15);
	(void)close(fd);
	turn();
	assert_int_equal(served.closed, 3);
	assert_int_equal(served.opened, 3);
	stream_server_free(&served.server);
}

/* Sending to a peer that is gone, from outside the stream's callbacks. */
static void test_send_to_the_gone(void **state)
{
	struct stream *stream;
	int fd;

	(void)state;
	serve("s");
	fd = dial("s");
	stream = served.open[0];
	(void)close(fd);
	assert_int_equal(stream_send(stream, "x", 1), -1);
	/* It is dead, but the caller may still touch it until the loop turns. */
	assert_int_equal(served.closed, 0);
	assert_int_equal(stream_send(stream, "x", 1), -1);
	stream_end(stream);
	stream_close(stream);
	turn();
	assert_int_equal(served.closed, 1);
	/* Likewise when the server ends first. */
	fd = dial("s");
	stream = served.open[1];
	(void)close(fd);
	assert_int_equal(stream_send(stream, "x", 1), -1);
	stream_server_free(&served.server);
	assert_int_equal(served.closed, 2);
	turn();
}

static void test_too_much_unread(void **state)
{
	char text[IN_MAX + 2];
	int fd;

	(void)state;
	serve("s");
	fd = dial("s");
	memset(text, 'x', sizeof(text));
	text[IN_MAX - 1] = '\0';
	say(fd, text);
	expect(fd, "", false);
	say(fd, "\necho y\n");
	expect(fd, "y\n", false);
	text[IN_MAX - 1] = 'x';
	text[IN_MAX + 1] = '\0';
	say(fd, text);
	expect(fd, "", true);
	assert_int_equal(served.closed, 1);
	(void)close(fd);
	stream_server_free(&served.server);
}

/* Who has said all and still listens hears all, if the stream ends with that. */
static void test_half_closed_reader(void **state)
{
	bool ended;

	(void)state;
	serve("s");
	for (unsigned int i = 0; i < 2; i++) {
		int fd = dial("s");

		assert_int_equal(send(fd, i == 0 ? "end\n" : "big\n", 4, MSG_NOSIGNAL), 4);
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		turn();
		assert_int_equal(hear(fd, NULL, 0, &ended) == BIG, i == 0);
		(void)close(fd);
	}
	stream_server_free(&served.server);
}

static void test_slow_reader(void **state)
{
	char first[8];
	bool ended;
	int fd;

	(void)state;
	serve("s");
	fd = dial("s");
	say(fd, "big\n");
	assert_false(stream_is_flushed(served.open[0]));
	assert_int_equal(served.flushed, 0);
	/* Requests are still taken; the answers come in order. */
	say(fd, "echo after\n");
	assert_int_equal(hear(fd, first, sizeof(first), &ended), BIG + 6);
	assert_memory_equal(first, "bbbbbbbb", 8);
	assert_false(ended);
	turn();
	assert_int_equal(served.flushed, 1);
	/* Who lets more pile up than out_max is cut off. */
	say(fd, "flood\n");
	assert_int_equal(served.closed, 1);
	(void)close(fd);
	stream_server_free(&served.server);
}

static void test_end_after_output(void **state)
{
	bool ended;
	int fd;

	(void)state;
	serve("s");
	fd = dial("s");
	say(fd, "end\n");
	assert_int_equal(served.closed, 0);
	say(fd, "echo too late\n");
	assert_int_equal(hear(fd, NULL, 0, &ended), BIG);
	assert_true(ended);
	assert_int_equal(served.closed, 1);
	(void)close(fd);
	stream_server_free(&served.server);
}

static void test_close_in_callbacks(void **state)
{
	int a, b;

	(void)state;
	serve("s");
	a = dial("s");
	b = dial("s");
	say(a, "close\n");
	expect(a, "", true);
	assert_int_equal(served.closed, 1);
	(void)close(a);
	a = dial("s");
	/* Both have something to say in the same round; the first closes the other. */
	assert_int_equal(send(a, "kill\n", 5, MSG_NOSIGNAL), 5);
	assert_int_equal(send(b, "kill\n", 5, MSG_NOSIGNAL), 5);
	turn();
	assert_int_equal(served.closed, 2);
	(void)close(a);
	(void)close(b);
	served.send_when_closed = true;
	turn();
	assert_int_equal(served.closed, 3);
	stream_server_free(&served.server);
}

static void test_opened(void **state)
{
	int fd;

	(void)state;
	serve("s");
	served.refuse = 1;
	fd = dial("s");
	expect(fd, "", true);
	(void)close(fd);
	assert_int_equal(served.opened + served.closed, 0);
	served.greet = true;
	fd = dial("s");
	expect(fd, "hello\n", false);
	(void)close(fd);
	turn();
	served.greet_and_close = true;
	fd = dial("s");
	expect(fd, "hello\n", true);
	(void)close(fd);
	assert_int_equal(served.opened, 2);
	assert_int_equal(served.closed, 2);
	stream_server_free(&served.server);
}

static void test_connection_limit(void **state)
{
	int fd[9];

	(void)state;
	serve("s");
	for (size_t i = 0; i < 8; i++)
		fd[i] = dial("s");
	fd[8] = dial("s");
	expect(fd[8], "", true);
	(void)close(fd[8]);
	(void)close(fd[0]);
	turn();
	fd[8] = dial("s");
	say(fd[8], "echo in\n");
	expect(fd[8], "in\n", false);
	assert_int_equal(served.opened, 9);
	stream_server_free(&served.server);
	assert_int_equal(served.closed, 9);
	for (size_t i = 1; i < 9; i++)
		(void)close(fd[i]);
	assert_int_equal(access(temp_path("s"), F_OK), -1);
}

/* ---- sockets ---- */

/* What a daemon that was killed leaves behind: a socket that nobody serves. */
static void leave_stale(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	(void)close(fd);
}

static void test_stale_socket(void **state)
{
	struct err err = ERR_INIT;
	struct stat st;
	int fd;

	(void)state;
	leave_stale(temp_path("s"));
	assert_int_equal(sock_connect(temp_path("s"), &err), -1);
	assert_int_equal(err.class, ERR_TEMP);
	serve("s");
	fd = dial("s");
	assert_int_equal(stat(temp_path("s"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	(void)close(fd);
	stream_server_free(&served.server);
}

/* Runs in a child: 0 when the second daemon is refused as it should be. */
static int second_daemon(void)
{
	struct err err = ERR_INIT;

	if (sock_listen(temp_path("s"), 0600, (gid_t)-1, &err) >= 0)
		return 1;
	return err.class == ERR_PERM && strstr(err.text, "another daemon already serves") != NULL
		       ? 0
		       : 2;
}

static void test_second_daemon(void **state)
{
	int status, fd;
	pid_t pid;

	(void)state;
	serve("s");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(second_daemon());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	/* The first one still serves. */
	fd = dial("s");
	say(fd, "echo here\n");
	expect(fd, "here\n", false);
	(void)close(fd);
	stream_server_free(&served.server);
}

/* A daemon that died by any signal leaves no lock behind. */
static void test_lock_ends_with_its_process(void **state)
{
	int status, fd;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (sock_listen(temp_path("s"), 0600, (gid_t)-1, NULL) >= 0)
			(void)raise(SIGKILL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(access(temp_path("s"), F_OK), 0);
	serve("s");
	fd = dial("s");
	(void)close(fd);
	stream_server_free(&served.server);
}

static void test_folder(void **state)
{
	struct err err = ERR_INIT;
	struct stat st;
	mode_t mask = umask(0077);

	(void)state;
	serve("made/s");
	assert_int_equal(stat(temp_path("made"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 02750);
	assert_int_equal(st.st_gid, getegid());
	stream_server_free(&served.server);
	/* One that is there stays as it is. */
	assert_int_equal(mkdir(temp_path("there"), 0700), 0);
	serve("there/s");
	assert_int_equal(stat(temp_path("there"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	stream_server_free(&served.server);
	assert_null(
		stream_serve(loop, temp_path("no/such/s"), 0600, (gid_t)-1, &ops, &served, &err));
	assert_int_equal(err.class, ERR_CONFIG);
	assert_non_null(strstr(err.text, "no/such"));
	(void)umask(mask);
}

static void test_long_path(void **state)
{
	struct err err = ERR_INIT;
	char path[SOCK_PATH_MAX + 2];

	(void)state;
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[SOCK_PATH_MAX + 1] = '\0';
	assert_int_equal(sock_listen(path, 0600, (gid_t)-1, &err), -1);
	assert_int_equal(err.class, ERR_CONFIG);
	assert_non_null(strstr(err.text, "longer than 107 bytes"));
	assert_int_equal(sock_connect(path, &err), -1);
	assert_non_null(strstr(err.text, "longer than 107 bytes"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOPED(test_partial_messages),
		LOOPED(test_peer_closes_midway),
		LOOPED(test_send_to_the_gone),
		LOOPED(test_too_much_unread),
		LOOPED(test_half_closed_reader),
		LOOPED(test_slow_reader),
		LOOPED(test_end_after_output),
		LOOPED(test_close_in_callbacks),
		LOOPED(test_opened),
		LOOPED(test_connection_limit),
		LOOPED(test_stale_socket),
		LOOPED(test_second_daemon),
		LOOPED(test_lock_ends_with_its_process),
		LOOPED(test_folder),
		LOOPED(test_long_path),
	};

	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
