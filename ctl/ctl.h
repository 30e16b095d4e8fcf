/*
 * The relay365 command: what its sub-commands share. Each is a function that
 * gets the loaded configuration and its own arguments and returns the exit
 * status.
 */
#ifndef RELAY365_CTL_CTL_H
#define RELAY365_CTL_CTL_H

#include "conf/conf.h"

#include "base/buf.h"

#include <cjson/cJSON.h>

enum ctl_exit {
	CTL_OK = 0,
	CTL_PROBLEM = 1, /* the command worked and found something wrong */
	CTL_USAGE = 2,
	CTL_TRY_LATER = 75,
	CTL_CONFIG = 78
};

#define CTL_TIMEOUT_MS 15000 /* a daemon that does not answer a control verb by then is stuck */

struct ctl {
	const char *conf_path;
	const struct conf *conf; /* NULL for a command that needs none */
	bool json;		 /* print JSON instead of text */
	int argc;		 /* what follows the sub-command */
	char **argv;
};

int ctl_alarm(const struct ctl *ctl);
int ctl_authorize(const struct ctl *ctl);
int ctl_backup(const struct ctl *ctl);
int ctl_check(const struct ctl *ctl);
int ctl_doctor(const struct ctl *ctl);
int ctl_explain(const struct ctl *ctl);
int ctl_hold(const struct ctl *ctl);
int ctl_limits(const struct ctl *ctl);
int ctl_lock(const struct ctl *ctl);
int ctl_metrics(const struct ctl *ctl);
int ctl_probe(const struct ctl *ctl);
int ctl_queue(const struct ctl *ctl);
int ctl_reload(const struct ctl *ctl);
int ctl_release(const struct ctl *ctl);
int ctl_reset(const struct ctl *ctl);
int ctl_setup(const struct ctl *ctl);
int ctl_status(const struct ctl *ctl);
int ctl_token(const struct ctl *ctl);
int ctl_unlock(const struct ctl *ctl);
int ctl_why(const struct ctl *ctl);

/* Reads the configuration and runs a command with it, or says what is wrong with it. */
int ctl_with_conf(const struct ctl *without, int (*run)(const struct ctl *ctl));

/* An option of a command: exactly one of flag and value is there to be set. */
struct ctl_option {
	const char *name; /* "--reason" */
	bool *flag;
	const char **value;
};

/*
 * Takes the options from a command's arguments: "--name", "--name VALUE" or
 * "--name=VALUE", in any place before "--". The others go to rest, which has
 * room for ctl->argc; returns how many, or -1 when an error was printed.
 */
int ctl_options(const struct ctl *ctl, const struct ctl_option *options, size_t count,
		const char **rest);

/* Control sockets of the two daemons; the caller frees. */
char *ctl_tokend_socket(const struct conf *conf);
char *ctl_milter_socket(const struct conf *conf);
/* relay365-submit's; NULL when there is none: only Sendmail needs that daemon. */
char *ctl_submit_socket(const struct conf *conf);

/* Members of a daemon's answer: "" and 0 when they are not there or of another type. */
const char *ctl_text(const cJSON *object, const char *name);
long long ctl_number(const cJSON *object, const char *name);

/* Makes its strings plain (base/plain.h), for what is printed as text; JSON escapes by itself. */
void ctl_plain(cJSON *json);

/* Prints and frees json; returns status. main() sees to an output that can't be written. */
int ctl_print_json(cJSON *json, int status);
/* Tells why a command can't do its work, as {"error": ...} or a sentence; returns status. */
int ctl_print_error(const struct ctl *ctl, const struct err *err, int status);
/* The same of what a daemon refused or did not answer: its name comes first. */
int ctl_print_daemon_error(const struct ctl *ctl, const char *daemon, const struct err *err,
			   int status);

/*
 * probe.c: tokend signs in with a mailbox's token; its verdict as
 * relay365-control(7) has it, the caller's. NULL when there is none.
 */
cJSON *probe_ask(const char *socket, const char *mailbox, struct err *err);

/* status.c: both daemons' answers and the problems in them; the caller's. */
cJSON *status_read(const struct conf *conf);
/* watch.c: shows the status again and again; returns when it can't. */
int status_watch(const struct ctl *ctl);

/* status_text.c: the JSON of ctl_status() for reading. */
void ctl_status_text(const cJSON *status, struct buf *text);

#endif
