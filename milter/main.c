/*
 * relay365-milter: options, threads, start and end.
 *
 * Threads: the main one waits for signals; "loop" serves the control socket,
 * sweeps and keeps the watchdog quiet; "disk" does what a slow disk may hold
 * up; "milter" is libmilter's, with workers of its own. libmilter has a thread
 * that waits for SIGTERM and SIGHUP as well; the kernel gives a signal for the
 * process to the main thread first when that waits for it, which is why SIGHUP
 * can reload. Should libmilter get one, it ends, and so does the program.
 */
#include "base/compat.h"

#include "milter/control.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/daemon.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "conf/conf_reload.h"
#include "milter/incidents.h"
#include "quota/limits.h"
#include "milter/milter.h"
#include "milter/session.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	TICK_MS = 1000,
	SWEEP_MS = 60 * 1000,
	WAKE_MS = 20,
	STACK_BYTES = 512 * 1024,
	STOP_MS = 2000, /* for libmilter to end; what is open then was not accepted */
	/* Longer than libmilter keeps a session without a sign of life. */
	FORGOTTEN_MS = (SESSION_TIMEOUT_S + 600) * 1000
};

struct program {
	struct conf *conf; /* until live has it */
	struct quota *quota;
	struct locks *locks;
	struct usage *usage;
	struct live *live;
	struct loop *loop;
	struct incidents *incidents;
	struct milter_control *control;
	struct loop_timer sweep;
	struct loop_fd stop_watch;
	int stop_disk; /* eventfd, readable: end */
	pthread_t loop_thread, disk_thread;
	atomic_bool milter_ended;
};

static void on_sweep(struct loop_timer *timer)
{
	struct program *program = timer->owner;
	size_t n = quota_sweep(program->quota, FORGOTTEN_MS);

	if (n > 0)
		log_say(EV_RELEASE, "gave back what %zu forgotten messages had reserved", n);
	loop_timer_in(program->loop, timer, SWEEP_MS);
}

static void on_stop_watch(struct loop_fd *watch, unsigned int events)
{
	struct program *program = watch->owner;

	(void)events;
	loop_stop(program->loop);
}

static void *run_loop(void *arg)
{
	struct program *program = arg;

	if (loop_run(program->loop) < 0) {
		log_say(EV_FAULT, "cannot wait for events: %s", err_no(errno));
		(void)kill(getpid(), SIGTERM);
	}
	return NULL;
}

static void *run_disk(void *arg)
{
	struct program *program = arg;
	struct pollfd stop = {.fd = program->stop_disk, .events = POLLIN};

	do {
		quota_tick(program->quota);
		usage_save(program->usage, false);
	} while (poll(&stop, 1, TICK_MS) <= 0);
	usage_save(program->usage, true);
	return NULL;
}

/*
 * libmilter hands each step of a session from thread to thread. As usual, who is woken
 * preempts who wakes, and that costs 5 to 8 % of the messages per second; in a batch
 * (sched(7)) the waker goes on and sleeps by itself. The share of the processor is the same.
 * Its threads inherit this. What somebody chose outside stays, and where a sandbox forbids
 * it, the unit chooses.
 */
static void schedule_as_batch(void)
{
	struct sched_param none;
	int policy;

	if (pthread_getschedparam(pthread_self(), &policy, &none) == 0 && policy == SCHED_OTHER)
		(void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
}

static void *run_milter(void *arg)
{
	struct program *program = arg;

	schedule_as_batch();
	if (milter_run(program->live, program->quota, program->usage) < 0)
		log_say(EV_FAULT, "libmilter gave up; its own message says why");
	atomic_store(&program->milter_ended, true);
	(void)kill(getpid(),
		   SIGTERM); /* if it ended by itself: the main thread must hear of it */
	return NULL;
}

static void *do_nothing(void *arg)
{
	return arg;
}

/*
 * libmilter starts and ends a worker for nearly every message. The C library
 * keeps the stacks of ended threads for the next ones only up to a total that
 * five of the usual size use up.
 */
static void small_stacks(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	size_t usual;

	if (pthread_getattr_default_np(&attr) != 0)
		return;
	if (pthread_attr_getstacksize(&attr, &usual) == 0 &&
	    pthread_attr_setstacksize(&attr, STACK_BYTES) == 0 &&
	    pthread_setattr_default_np(&attr) == 0) {
		/* A sanitizer keeps much on each stack, and no thread starts on a small one. */
		if (pthread_create(&thread, NULL, do_nothing, NULL) == 0)
			(void)pthread_join(thread, NULL);
		else if (pthread_attr_setstacksize(&attr, usual) == 0)
			(void)pthread_setattr_default_np(&attr);
	}
	(void)pthread_attr_destroy(&attr);
}

static int start_threads(struct program *program, struct err *err)
{
	pthread_t milter;
	int rc;

	small_stacks();
	program->stop_disk = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	program->stop_watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	program->stop_watch.want = LOOP_READ;
	program->stop_watch.ready = on_stop_watch;
	program->stop_watch.owner = program;
	if (program->stop_disk < 0 || program->stop_watch.fd < 0 ||
	    loop_add(program->loop, &program->stop_watch) < 0)
		return err_set(err, ERR_TEMP, "cannot wait for events: %s", err_no(errno));
	program->sweep.due = on_sweep;
	program->sweep.owner = program;
	loop_timer_in(program->loop, &program->sweep, SWEEP_MS);
	daemon_watchdog(program->loop);
	rc = pthread_create(&program->loop_thread, NULL, run_loop, program);
	if (rc == 0)
		rc = pthread_create(&program->disk_thread, NULL, run_disk, program);
	if (rc == 0)
		rc = pthread_create(&milter, NULL, run_milter, program);
	if (rc == 0)
		(void)pthread_detach(milter); /* milter_ended tells its end */
	return rc == 0 ? 0 : err_set(err, ERR_TEMP, "cannot start a thread: %s", err_no(rc));
}

static int open_quota(struct program *program, struct err *err)
{
	char *path = xasprintf("%s/ledger.db", program->conf->milter_state_dir);
	size_t count;
	struct quota_limit *limits = limits_from_conf(program->conf, &count);

	if (file_make_folder(program->conf->milter_state_dir, err) == 0 &&
	    sock_lock(path, err) == 0)
		program->quota = quota_open(path, limits, count, err);
	free(limits);
	free(path);
	return program->quota == NULL ? -1 : 0;
}

static int open_locks(struct program *program, struct err *err)
{
	char *path = xasprintf("%s/locks", program->conf->milter_state_dir);

	program->locks = locks_open(path, err);
	free(path);
	return program->locks == NULL ? -1 : 0;
}

/* What helps people and decides nothing, kept beside the ledger. */
static void open_rest(struct program *program)
{
	char *sources = xasprintf("%s/sources", program->conf->milter_state_dir);
	char *alarms = xasprintf("%s/alarms", program->conf->milter_state_dir);

	program->usage = usage_open(sources);
	alarms_open("relay365-milter", alarms, program->conf);
	free(sources);
	free(alarms);
}

static int start(struct program *program, struct err *err)
{
	const char *socket;

	if (open_quota(program, err) < 0 || open_locks(program, err) < 0 ||
	    milter_listen(program->conf, &socket, err) < 0)
		return -1;
	open_rest(program);
	program->live = live_new(program->conf, program->quota, program->locks);
	program->loop = loop_new();
	if (program->loop == NULL)
		return err_set(err, ERR_TEMP, "cannot wait for events: %s", err_no(errno));
	program->incidents =
		incidents_watch(program->loop, program->live, program->quota, program->usage);
	program->control = milter_control_serve(program->loop, program->live, program->quota,
						program->incidents, socket, err);
	if (program->control == NULL || start_threads(program, err) < 0)
		return -1;
	log_say(EV_START, "relay365-milter " PACKAGE_VERSION " listens at %s", socket);
	daemon_notify("READY=1");
	return 0;
}

/* All signals that anybody waits for; blocked before the first thread starts. */
static void block_signals(sigset_t *set)
{
	(void)sigemptyset(set);
	(void)sigaddset(set, SIGTERM);
	(void)sigaddset(set, SIGINT);
	(void)sigaddset(set, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, set, NULL);
}

static void serve(struct program *program, const sigset_t *signals)
{
	struct err err = ERR_INIT;
	int sig;

	for (;;) {
		if (sigwait(signals, &sig) != 0)
			continue;
		if (sig != SIGHUP)
			return;
		(void)milter_control_reload(program->live, "SIGHUP", &err);
	}
}

static void wake(int fd)
{
	static const uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

static void stop(struct program *program)
{
	struct timespec until;

	daemon_notify("STOPPING=1");
	wake(program->stop_watch.fd);
	wake(program->stop_disk);
	(void)pthread_join(program->loop_thread, NULL);
	/* This thread waits no more, so it is libmilter's that gets the signal. */
	if (!atomic_load(&program->milter_ended))
		(void)kill(getpid(), SIGTERM);
	for (int ms = 0; ms < STOP_MS && !atomic_load(&program->milter_ended); ms += WAKE_MS) {
		(void)poll(NULL, 0, WAKE_MS);
		milter_wake();
	}
	milter_control_free(&program->control);
	incidents_free(&program->incidents);
	alarms_close();
	milter_cleanup();
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_MS / 1000;
	/* If the disk hangs: what was accepted is written, and the rest can be done without. */
	if (pthread_timedjoin_np(program->disk_thread, NULL, &until) == 0)
		quota_shut(program->quota);
}

static NORETURN void run(const char *path)
{
	static struct program program;
	struct err err = ERR_INIT;
	sigset_t signals;

	daemon_prepare();
	block_signals(&signals);
	program.conf = conf_load(path, &err);
	if (program.conf == NULL) {
		(void)fprintf(stderr, "relay365-milter: %s\n", err.text);
		_exit(DAEMON_EXIT_CONFIG);
	}
	log_open("relay365-milter", program.conf->log_to_stderr ? LOG_TO_STDERR : LOG_TO_SYSLOG,
		 program.conf->log_json, program.conf->log_debug);
	conf_reload_started(program.conf, CONF_MILTER);
	log_start_writer();
	if (start(&program, &err) < 0) {
		log_say(EV_FAULT, "%s", err.text);
		if (!program.conf->log_to_stderr)
			(void)fprintf(stderr, "relay365-milter: %s\n", err.text);
		log_stop_writer();
		/* Threads may run already, so no tidying. */
		_exit(err.class == ERR_CONFIG ? DAEMON_EXIT_CONFIG : EXIT_FAILURE);
	}
	serve(&program, &signals);
	log_say(EV_STOP, "relay365-milter ends");
	stop(&program);
	log_stop_writer();
	/*
	 * Nothing is freed, not even by libmilter's own exit handler: a worker of
	 * its pool may still be in a callback. What that does fails well, and its
	 * message was not accepted.
	 */
	_exit(EXIT_SUCCESS);
}

int main(int argc, char **argv)
{
	const char *path = CONF_PATH_DEFAULT;
	int status;

	if (!daemon_options(argc, argv, "relay365-milter",
			    "Keeps senders within Office 365's limits", &path, &status))
		return status;
	run(path);
}
