#include "ctl/child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_MS = 50 };

/* Where a child's output goes: the buffer, by way of the pipe. */
struct pump {
	struct buf *to; /* NULL: the child has our own descriptor */
	int end[2];
};

static void run_program(const char *const argv[], int in, int out, int errors)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	/* execvp() does not write to what its type lets it. */
	union {
		const char *const *given;
		char *const *wanted;
	} args = {argv};

	(void)setpgid(0, 0);
	(void)signal(SIGPIPE, SIG_DFL);
	if (dup2(in >= 0 ? in : null, STDIN_FILENO) < 0 ||
	    (out >= 0 && dup2(out, STDOUT_FILENO) < 0) ||
	    (errors >= 0 && dup2(errors, STDERR_FILENO) < 0))
		_exit(127);
	(void)execvp(argv[0], args.wanted);
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

/* Takes what comes within the time; false when nothing more will come from either. */
static bool take_some(struct pollfd pfd[2], struct pump pump[2], int wait_ms)
{
	if (pfd[0].fd < 0 && pfd[1].fd < 0) {
		(void)poll(NULL, 0, wait_ms);
		return false;
	}
	if (poll(pfd, 2, wait_ms) <= 0)
		return wait_ms > 0;
	for (int i = 0; i < 2; i++)
		if (pfd[i].fd >= 0 && pfd[i].revents != 0 && !take(pfd[i].fd, pump[i].to))
			pfd[i].fd = -1;
	return true;
}

/* Until it has ended or its time is over; then it is killed with all that it started. */
static int wait_for(pid_t pid, struct pump pump[2], int64_t until_ms)
{
	struct pollfd pfd[2] = {{.fd = pump[0].end[0], .events = POLLIN},
				{.fd = pump[1].end[0], .events = POLLIN}};
	int status;

	for (;;) {
		(void)take_some(pfd, pump, LOOK_MS);
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		if (clock_boot_ms() < until_ms)
			continue;
		(void)kill(-pid, SIGKILL);
		(void)waitpid(pid, &status, 0);
		return -1;
	}
	while (take_some(pfd, pump, 0))
		;
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

static void close_end(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

int child_exec(const char *const argv[], const char *input, struct buf *output,
	       struct buf *errors, int timeout_ms)
{
	int64_t until_ms = clock_boot_ms() + timeout_ms;
	struct pump pump[2] = {{output, {-1, -1}}, {errors, {-1, -1}}};
	int in = input == NULL ? -1 : pipe_with(input), status = -1;
	bool ready = input == NULL || in >= 0;
	pid_t pid;

	for (int i = 0; i < 2; i++)
		if (pump[i].to != NULL && pipe2(pump[i].end, O_CLOEXEC) < 0)
			ready = false;
	pid = ready ? fork() : -1;
	if (pid == 0)
		run_program(argv, in, pump[0].end[1], pump[1].end[1]);
	close_end(&in);
	close_end(&pump[0].end[1]);
	close_end(&pump[1].end[1]);
	if (pid > 0)
		status = wait_for(pid, pump, until_ms);
	close_end(&pump[0].end[0]);
	close_end(&pump[1].end[0]);
	return status;
}

int child_run(const char *command, const char *input, struct buf *output, int timeout_ms)
{
	const char *const argv[] = {"/bin/sh", "-c", command, NULL};

	return child_exec(argv, input, output, NULL, timeout_ms);
}

const char *child_complaint(const char *said)
{
	const char *line = strstr(said, "fatal: ");

	if (line == NULL)
		line = strstr(said, "error: ");
	if (line == NULL) /* the last one */
		line = said + strlen(said) - (said[0] != '\0');
	while (line > said && line[-1] != '\n')
		line--;
	return line;
}
