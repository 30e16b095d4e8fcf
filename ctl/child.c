#include "ctl/child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_MS = 50 };

static void run_shell(const char *command, int in, int out)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)setpgid(0, 0);
	(void)signal(SIGPIPE, SIG_DFL);
	if (dup2(in >= 0 ? in : null, STDIN_FILENO) < 0 ||
	    (out >= 0 && dup2(out, STDOUT_FILENO) < 0))
		_exit(127);
	(void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

/* Reads what is there; false at the end, or when it is more than the buffer may hold. */
static bool take(int fd, struct buf *output)
{
	size_t room;
	char *to = buf_reserve(output, 1, &room);
	ssize_t n = to == NULL ? 0 : read(fd, to, room);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (n == 0)
		return false;
	output->len += (size_t)n;
	output->data[output->len] = '\0';
	return true;
}

/* Until it has ended or its time is over; then it is killed with all that it started. */
static int wait_for(pid_t pid, int fd, struct buf *output, int64_t until_ms)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	int status;

	for (;;) {
		pid_t ended;

		if (pfd.fd < 0)
			(void)poll(NULL, 0, LOOK_MS);
		else if (poll(&pfd, 1, LOOK_MS) > 0 && !take(fd, output))
			pfd.fd = -1;
		ended = waitpid(pid, &status, WNOHANG);
		if (ended == pid && pfd.fd < 0)
			break;
		if (ended == pid) {
			while (poll(&pfd, 1, 0) > 0 && take(fd, output))
				;
			break;
		}
		if (clock_boot_ms() < until_ms)
			continue;
		(void)kill(-pid, SIGKILL);
		(void)waitpid(pid, &status, 0);
		return -1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A pipe that already holds text: it must fit, which 64 KB do. */
static int pipe_with(const char *text)
{
	int end[2];
	size_t len = strlen(text);

	if (pipe2(end, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	if (write(end[1], text, len) != (ssize_t)len) {
		(void)close(end[0]);
		end[0] = -1;
	}
	(void)close(end[1]);
	if (end[0] >= 0)
		(void)fcntl(end[0], F_SETFL, 0);
	return end[0];
}

int child_run(const char *command, const char *input, struct buf *output, int timeout_ms)
{
	int64_t until_ms = clock_boot_ms() + timeout_ms;
	int out[2] = {-1, -1}, in = -1, status = -1;
	pid_t pid;

	if (output != NULL && pipe2(out, O_CLOEXEC) < 0)
		return -1;
	if (input != NULL)
		in = pipe_with(input);
	pid = input != NULL && in < 0 ? -1 : fork();
	if (pid == 0)
		run_shell(command, in, out[1]);
	if (in >= 0)
		(void)close(in);
	if (out[1] >= 0)
		(void)close(out[1]);
	if (pid > 0)
		status = wait_for(pid, out[0], output, until_ms);
	if (out[0] >= 0)
		(void)close(out[0]);
	return status;
}
