#include "base/daemon.h"

#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct {
	struct loop_fd watch;
	void (*stop)(void *arg);
	void (*reload)(void *arg);
	void *arg;
	struct loop *loop;
	struct loop_timer watchdog;
	int64_t watchdog_ms;
} self;

static int usage(FILE *to, const char *program, const char *doc, int status)
{
	(void)fprintf(to, "usage: %s [-c FILE] [-hV]\n%s; %s(8).\n", program, doc, program);
	return status;
}

bool daemon_options(int argc, char **argv, const char *program, const char *doc,
		    const char **path_r, int *status_r)
{
	int c;

	while ((c = getopt(argc, argv, "c:hV")) != -1) {
		switch (c) {
		case 'c':
			*path_r = optarg;
			break;
		case 'h':
			*status_r = usage(stdout, program, doc, EXIT_SUCCESS);
			return false;
		case 'V':
			(void)printf("%s " PACKAGE_VERSION "\n", program);
			*status_r = EXIT_SUCCESS;
			return false;
		default:
			*status_r = usage(stderr, program, doc, DAEMON_EXIT_USAGE);
			return false;
		}
	}
	if (optind == argc)
		return true;
	*status_r = usage(stderr, program, doc, DAEMON_EXIT_USAGE);
	return false;
}

static void our_signals(sigset_t *set)
{
	(void)sigemptyset(set);
	(void)sigaddset(set, SIGTERM);
	(void)sigaddset(set, SIGINT);
	(void)sigaddset(set, SIGHUP);
}

/* Descriptors: a thousand clients wait for a token at once; select(2) is not used. */
enum { FILES = 16384 };

void daemon_prepare(void)
{
	struct rlimit none = {0, 0}, files;
	sigset_t set;

	(void)setrlimit(RLIMIT_CORE, &none);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)umask(0027);
	(void)signal(SIGPIPE, SIG_IGN);
	our_signals(&set);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static void on_signal(struct loop_fd *watch, unsigned int events)
{
	struct signalfd_siginfo info;

	(void)events;
	if (read(watch->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP)
		self.reload(self.arg);
	else
		self.stop(self.arg);
}

int daemon_on_signal(struct loop *loop, void (*stop)(void *arg), void (*reload)(void *arg),
		     void *arg)
{
	sigset_t set;

	our_signals(&set);
	self.stop = stop;
	self.reload = reload;
	self.arg = arg;
	self.watch.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	self.watch.want = LOOP_READ;
	self.watch.ready = on_signal;
	return self.watch.fd < 0 ? -1 : loop_add(loop, &self.watch);
}

void daemon_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	size_t len = path == NULL ? 0 : strlen(path);
	int fd;

	if (len == 0 || len >= sizeof(sun.sun_path))
		return;
	memcpy(sun.sun_path, path, len);
	if (sun.sun_path[0] == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&sun,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	(void)close(fd);
}

static void on_watchdog(struct loop_timer *timer)
{
	daemon_notify("WATCHDOG=1");
	loop_timer_in(self.loop, timer, self.watchdog_ms);
}

void daemon_watchdog(struct loop *loop)
{
	const char *usec = getenv("WATCHDOG_USEC");
	long long n = usec == NULL ? 0 : strtoll(usec, NULL, 10);

	if (n <= 0)
		return;
	self.loop = loop;
	self.watchdog_ms = n / 1000 / 3;
	self.watchdog.due = on_watchdog;
	loop_timer_in(loop, &self.watchdog, 0);
}
