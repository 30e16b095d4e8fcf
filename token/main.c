/* relay365-tokend: options, start and end. */
#include "base/compat.h"

#include "token/tokend.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "conf/conf_reload.h"
#include "tls/tls.h"

#include <errno.h>

enum { TICK_MS = 10000, CALENDAR_MS = 6 * 3600 * 1000 };

static void on_stop(void *arg)
{
	struct tokend *tokend = arg;

	daemon_notify("STOPPING=1");
	loop_stop(tokend->loop);
}

static void on_reload(void *arg)
{
	struct err err = ERR_INIT;

	(void)tokend_reload(arg, "SIGHUP", &err);
}

static void on_tick(struct loop_timer *timer)
{
	struct tokend *tokend = timer->owner;

	delivered_tick(tokend->delivered);
	for (size_t i = 0; i < tokend->mailboxes; i++)
		mailbox_watch_use(tokend->mailbox[i]);
	alarms_tick();
	tokend_open_missing_sockets(tokend);
	if (clock_boot_ms() >= tokend->calendar_at_boot_ms) {
		calendar_look(tokend->calendar, tokend->conf, tokend->identity,
			      tokend->identities, clock_wall_ms());
		tokend->calendar_at_boot_ms = clock_boot_ms() + CALENDAR_MS;
	}
	loop_timer_in(tokend->loop, timer, TICK_MS);
}

static void clean_up(struct tokend *tokend)
{
	if (tokend->book != NULL)
		lease_book_freeze(tokend->book);
	tokend_close_sockets(tokend);
	for (size_t i = 0; i < tokend->mailboxes; i++)
		mailbox_free(&tokend->mailbox[i]);
	tokend_free_sign_ins(tokend);
	probes_free(&tokend->probes);
	calendar_free(&tokend->calendar);
	for (size_t i = 0; i < tokend->identities; i++)
		identity_free(&tokend->identity[i]);
	free(tokend->mailbox);
	free(tokend->of_conf);
	free(tokend->name);
	free(tokend->token_uid);
	free(tokend->identity);
	lease_book_close(&tokend->book);
	locks_close(&tokend->locks);
	delivered_close(&tokend->delivered);
	memo_close(&tokend->memo);
	http_free(&tokend->http);
	vault_close(&tokend->vault);
	gate_free(&tokend->gate);
	alarms_close();
	if (tokend->loop != NULL)
		loop_timer_stop(tokend->loop, &tokend->tick);
	conf_free(&tokend->conf);
	loop_free(&tokend->loop);
}

/* Open leases, and what else must outlive this process, in the run folder. */
static int open_memory(struct tokend *tokend, const struct conf *conf, struct err *err)
{
	char *leases = xasprintf("%s/leases", conf->run_dir);
	char *memo = xasprintf("%s/memo", conf->run_dir);

	if (sock_make_folder(leases, tokend_control_group(conf), err) == 0)
		tokend->book = lease_book_open(leases, err);
	if (tokend->book != NULL)
		tokend->memo = memo_open(memo, err);
	free(leases);
	free(memo);
	return tokend->memo == NULL ? -1 : 0;
}

static struct vault *open_vault(struct loop *loop, const struct conf *conf, struct err *err)
{
	char *folder = xasprintf("%s/tokens", conf->state_dir);
	struct vault *vault = vault_open(loop, folder, err);

	free(folder);
	return vault;
}

static void open_alarms(const struct conf *conf)
{
	char *folder = xasprintf("%s/alarms", conf->state_dir);

	alarms_open("relay365-tokend", folder, conf);
	free(folder);
}

static struct locks *open_locks(const struct conf *conf, struct err *err)
{
	char *path = xasprintf("%s/locks", conf->state_dir);
	struct locks *locks = locks_open(path, err);

	free(path);
	return locks;
}

static void on_left(void *arg, const struct lease_entry *entry, int page)
{
	struct tokend *tokend = arg;
	struct mailbox *mailbox = tokend_mailbox_by_address(tokend, entry->address);

	if (mailbox != NULL)
		mailbox_add_left(mailbox, entry, page);
	else
		lease_book_strike(tokend->book, page);
}

static int start(struct tokend *tokend, struct conf *conf, struct err *err)
{
	tokend->loop = loop_new();
	if (tokend->loop == NULL ||
	    daemon_on_signal(tokend->loop, on_stop, on_reload, tokend) < 0)
		return err_set(err, ERR_TEMP, "cannot wait for events: %s", err_no(errno));
	tokend->http = http_new(tokend->loop, err);
	if (tokend->http == NULL)
		return -1;
	tokend->calendar = calendar_new();
	tokend->probes = probes_new(tokend->loop, tokend->http);
	tokend->gate = gate_new(tokend->loop);
	tokend->vault = open_vault(tokend->loop, conf, err);
	if (tokend->vault == NULL)
		return -1;
	if (open_memory(tokend, conf, err) < 0)
		return -1;
	tokend->delivered = delivered_open(conf->state_dir, tokend->memo, err);
	if (tokend->delivered == NULL)
		return -1;
	open_alarms(conf);
	tokend->locks = open_locks(conf, err);
	if (tokend->locks == NULL)
		return -1;
	tokend_configure(tokend, conf);
	lease_book_each_left(tokend->book, on_left, tokend);
	if (tokend_open_sockets(tokend, err) < 0)
		return -1;
	tokend->tick.due = on_tick;
	tokend->tick.owner = tokend;
	on_tick(&tokend->tick);
	daemon_watchdog(tokend->loop);
	return 0;
}

int main(int argc, char **argv)
{
	const char *path = CONF_PATH_DEFAULT;
	struct tokend tokend = {.started_wall_ms = clock_wall_ms()};
	struct err err = ERR_INIT;
	struct conf *conf;
	int result = EXIT_SUCCESS;

	if (!daemon_options(argc, argv, "relay365-tokend",
			    "Keeps access tokens for Office 365 and grants sending slots", &path,
			    &result))
		return result;
	daemon_prepare();
	tls_wipe_heap();
	conf = conf_load(path, &err);
	if (conf == NULL) {
		log_say(EV_FAULT, "%s", err.text);
		return DAEMON_EXIT_CONFIG;
	}
	log_open("relay365-tokend", conf->log_to_stderr ? LOG_TO_STDERR : LOG_TO_SYSLOG,
		 conf->log_json, conf->log_debug);
	conf_reload_started(conf, CONF_TOKEND);
	if (start(&tokend, conf, &err) < 0) {
		log_say(EV_FAULT, "%s", err.text);
		if (tokend.conf == NULL)
			conf_free(&conf);
		clean_up(&tokend);
		return err.class == ERR_CONFIG ? DAEMON_EXIT_CONFIG : EXIT_FAILURE;
	}
	log_say(EV_START,
		"relay365-tokend " PACKAGE_VERSION " is ready: %zu tenants, %zu mailboxes",
		tokend.conf->tenants, tokend.conf->mailboxes);
	daemon_notify("READY=1");
	if (loop_run(tokend.loop) < 0) {
		log_say(EV_FAULT, "the event loop ended: %s", err_no(errno));
		result = EXIT_FAILURE;
	}
	log_say(EV_STOP, "relay365-tokend ends");
	clean_up(&tokend);
	return result;
}
