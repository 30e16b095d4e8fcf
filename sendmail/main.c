/*
 * relay365-submit: options, sockets, start and end. The main thread runs a
 * loop (signals, new connections, control socket); each session has a thread
 * of its own, since it mostly waits: for a name, a lease, TLS, a reply.
 */
#include "base/compat.h"

#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "conf/conf_reload.h"
#include "sendmail/control.h"
#include "sendmail/session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <pwd.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	SESSIONS_MAX = 200, /* 300 KB each */
	STACK_BYTES = 512 * 1024,
	STOP_WORDS_MS = 2000,  /* for the answer to reach the MTA */
	REPORT_MS = 85 * 1000, /* since the stop, to tell relay365-tokend of what is over */
	STOP_LOOK_MS = 50
};

enum slot_state { SLOT_FREE, SLOT_RUNS, SLOT_ENDED };

struct submit;

/* A session's thread. What is no more running is joined by the main thread. */
struct slot {
	struct submit *submit;
	int fd;
	pthread_t thread;
	atomic_int state; /* enum slot_state */
};

struct submit {
	struct live *live;
	struct loop *loop;
	struct loop_fd unix_watch, tcp_watch;
	char *unix_path;
	struct session_parts parts;
	struct slot slot[SESSIONS_MAX];
	atomic_int sessions, unanswered;
	struct submit_control *control;
};

/* ---- who may come in ---- */

/* The MTA's users: root, Sendmail's own, and those who may take a token anyway. */
static bool is_mta(const struct conf *conf, uid_t uid)
{
	struct passwd *pw = getpwuid(uid);

	if (uid == 0 || uid == getuid())
		return true;
	if (pw == NULL)
		return false;
	if (strcmp(pw->pw_name, "smmsp") == 0)
		return true;
	for (size_t i = 0; i < conf->token_users.count; i++)
		if (strcmp(pw->pw_name, conf->token_users.item[i]) == 0)
			return true;
	return false;
}

static bool may_enter_unix(const struct conf *conf, int fd)
{
	struct sock_peer peer = {.uid = (uid_t)-1};

	if (sock_peer(fd, &peer) == 0 && is_mta(conf, peer.uid))
		return true;
	log_say(EV_WARNING,
		"user id %ld wanted to send and was turned away; token_users in %s says who may",
		(long)peer.uid, conf->path);
	return false;
}

static bool may_enter_tcp(const struct conf *conf, int fd)
{
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof(address);
	char written[INET6_ADDRSTRLEN] = "", text[INET6_ADDRSTRLEN];

	if (getpeername(fd, (struct sockaddr *)&address, &len) < 0)
		return false;
	if (address.ss_family == AF_INET)
		(void)inet_ntop(AF_INET, &((struct sockaddr_in *)&address)->sin_addr, written,
				sizeof(written));
	else
		(void)inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&address)->sin6_addr, written,
				sizeof(written));
	conf_client_text(written, text, sizeof(text)); /* IPv4 at a socket for both */
	if (conf_is_submit_client(conf, text))
		return true;
	log_say(EV_WARNING,
		"a client at %s wanted to send and was turned away; submit_clients in %s says "
		"who "
		"may",
		text, conf->path);
	return false;
}

/* ---- sessions ---- */

static void *run_session(void *arg)
{
	struct slot *slot = arg;

	session_run(&slot->submit->parts, slot->fd);
	atomic_store(&slot->state, SLOT_ENDED);
	(void)atomic_fetch_sub(&slot->submit->sessions, 1);
	return NULL;
}

/* Joins what has ended; a free slot, or NULL. */
static struct slot *find_slot(struct submit *submit)
{
	struct slot *found = NULL;

	for (size_t i = 0; i < SESSIONS_MAX; i++) {
		struct slot *slot = &submit->slot[i];

		if (atomic_load(&slot->state) == SLOT_ENDED) {
			(void)pthread_join(slot->thread, NULL);
			atomic_store(&slot->state, SLOT_FREE);
		}
		if (found == NULL && atomic_load(&slot->state) == SLOT_FREE)
			found = slot;
	}
	return found;
}

static void start_session(struct submit *submit, struct slot *slot, int fd)
{
	pthread_attr_t attr;
	int rc;

	slot->submit = submit;
	slot->fd = fd;
	atomic_store(&slot->state, SLOT_RUNS);
	(void)atomic_fetch_add(&submit->sessions, 1);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, STACK_BYTES);
	rc = pthread_create(&slot->thread, &attr, run_session, slot);
	(void)pthread_attr_destroy(&attr);
	if (rc == 0)
		return;
	log_say(EV_FAULT, "cannot start a thread: %s", err_no(rc));
	(void)atomic_fetch_sub(&submit->sessions, 1);
	atomic_store(&slot->state, SLOT_FREE);
	(void)close(fd);
}

static void on_connection(struct loop_fd *watch, unsigned int events)
{
	struct submit *submit = watch->owner;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct live_conf *live;
	struct slot *slot;
	bool welcome;

	(void)events;
	if (fd < 0)
		return; /* the loop says again when somebody is there */
	live = live_get(submit->live);
	welcome = watch == &submit->unix_watch ? may_enter_unix(live->conf, fd)
					       : may_enter_tcp(live->conf, fd);
	live_put(submit->live, &live);
	slot = welcome ? find_slot(submit) : NULL;
	if (slot != NULL) {
		start_session(submit, slot, fd);
		return;
	}
	if (welcome)
		(void)send(fd, SESSION_TOO_MANY, strlen(SESSION_TOO_MANY), MSG_NOSIGNAL);
	(void)close(fd);
}

/* ---- start and end ---- */

static int watch_socket(struct submit *submit, struct loop_fd *watch, struct err *err)
{
	if (watch->fd < 0)
		return -1;
	watch->want = LOOP_READ;
	watch->ready = on_connection;
	watch->owner = submit;
	if (loop_add(submit->loop, watch) < 0)
		return err_set(err, ERR_TEMP, "cannot wait for connections: %s", err_no(errno));
	return 0;
}

/* For Sendmail, which connects as root with the group smmsp. */
static int listen_unix(struct submit *submit, const struct conf *conf, struct err *err)
{
	gid_t group = sock_group_to_give("smmsp");

	submit->unix_path = xasprintf("%s/submit", conf->submit_run_dir);
	if (sock_make_folder(submit->unix_path, group, err) < 0)
		return -1;
	submit->unix_watch.fd = sock_listen(submit->unix_path, 0660, group, err);
	return watch_socket(submit, &submit->unix_watch, err);
}

static int listen_tcp(struct submit *submit, const struct conf *conf, struct err *err)
{
	struct sockaddr_storage address;
	socklen_t len;
	int on = 1, fd;

	if (conf_submit_address(conf, &address, &len, err) < 0)
		return -1;
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
	    bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, SESSIONS_MAX) == 0) {
		submit->tcp_watch.fd = fd;
		return watch_socket(submit, &submit->tcp_watch, err);
	}
	err_set(err, ERR_CONFIG, "cannot listen at %s (submit_listen): %s", conf->submit_listen,
		err_no(errno));
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

static void on_stop(void *arg)
{
	struct submit *submit = arg;

	daemon_notify("STOPPING=1");
	loop_stop(submit->loop);
}

static void on_reload(void *arg)
{
	struct submit *submit = arg;
	struct err err = ERR_INIT;

	(void)submit_control_reload(submit->live, "SIGHUP", &err);
}

static int start(struct submit *submit, struct conf *conf, struct err *err)
{
	submit->parts.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	submit->loop = loop_new();
	if (submit->loop == NULL || submit->parts.stop_fd < 0 ||
	    daemon_on_signal(submit->loop, on_stop, on_reload, submit) < 0)
		return err_set(err, ERR_TEMP, "cannot wait for events: %s", err_no(errno));
	submit->parts.live = submit->live;
	submit->parts.unanswered = &submit->unanswered;
	submit->parts.reporter = reporter_start(err);
	if (submit->parts.reporter == NULL)
		return -1;
	if (listen_unix(submit, conf, err) < 0 ||
	    (conf->submit_listen[0] != '\0' && listen_tcp(submit, conf, err) < 0))
		return -1;
	submit->control = submit_control_serve(submit->loop, conf, submit->live,
					       submit->unix_path, &submit->sessions, err);
	if (submit->control == NULL)
		return -1;
	daemon_watchdog(submit->loop);
	log_say(EV_START, "relay365-submit " PACKAGE_VERSION " listens at %s%s%s",
		submit->unix_path, conf->submit_listen[0] == '\0' ? "" : " and ",
		conf->submit_listen);
	daemon_notify("READY=1");
	return 0;
}

static void wait_for_sessions(struct submit *submit, int64_t since_ms)
{
	int64_t until_ms = since_ms + SESSION_STOP_MS;

	while (atomic_load(&submit->sessions) > 0) {
		int64_t now_ms = clock_boot_ms();

		if (atomic_load(&submit->unanswered) > 0 &&
		    now_ms < since_ms + SESSION_STOP_MOST_MS && until_ms < now_ms + STOP_WORDS_MS)
			until_ms = now_ms + STOP_WORDS_MS;
		if (now_ms >= until_ms)
			break;
		(void)usleep(STOP_LOOK_MS * 1000);
	}
	(void)find_slot(submit);
}

/* No new sessions; the open ones end by themselves when their message is through. */
static void stop(struct submit *submit)
{
	static const uint64_t one = 1;
	int64_t since_ms = clock_boot_ms();

	submit_control_free(&submit->control);
	if (submit->unix_watch.fd >= 0) {
		(void)close(submit->unix_watch.fd);
		(void)unlink(submit->unix_path);
	}
	if (submit->tcp_watch.fd >= 0)
		(void)close(submit->tcp_watch.fd);
	(void)!write(submit->parts.stop_fd, &one, sizeof(one));
	wait_for_sessions(submit, since_ms);
	if (submit->parts.reporter != NULL)
		reporter_stop(submit->parts.reporter, since_ms + REPORT_MS);
}

static int run(struct submit *submit, struct conf *conf)
{
	struct err err = ERR_INIT;
	int status = EXIT_SUCCESS;

	if (start(submit, conf, &err) < 0) {
		log_say(EV_FAULT, "%s", err.text);
		return err.class == ERR_CONFIG ? DAEMON_EXIT_CONFIG : EXIT_FAILURE;
	}
	if (loop_run(submit->loop) < 0) {
		log_say(EV_FAULT, "the event loop ended: %s", err_no(errno));
		status = EXIT_FAILURE;
	}
	log_say(EV_STOP, "relay365-submit ends");
	return status;
}

int main(int argc, char **argv)
{
	struct submit submit = {.unix_watch.fd = -1, .tcp_watch.fd = -1};
	const char *path = CONF_PATH_DEFAULT;
	struct err err = ERR_INIT;
	struct conf *conf;
	int status;

	if (!daemon_options(argc, argv, "relay365-submit",
			    "Signs in to Office 365 for MTAs that can't", &path, &status))
		return status;
	daemon_prepare();
	conf = conf_load(path, &err);
	if (conf != NULL)
		log_open("relay365-submit", conf->log_to_stderr ? LOG_TO_STDERR : LOG_TO_SYSLOG,
			 conf->log_json, conf->log_debug);
	if (conf != NULL)
		conf_reload_started(conf, CONF_SUBMIT);
	submit.live = conf == NULL ? NULL : live_new(conf, &err);
	if (submit.live == NULL) {
		log_say(EV_FAULT, "%s", err.text);
		return DAEMON_EXIT_CONFIG;
	}
	status = run(&submit, conf);
	stop(&submit);
	free(submit.unix_path);
	if (atomic_load(&submit.sessions) > 0)
		return status; /* they still use what would be freed */
	reporter_free(&submit.parts.reporter);
	live_free(&submit.live);
	loop_free(&submit.loop);
	return status;
}
