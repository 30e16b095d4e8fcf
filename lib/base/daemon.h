/*
 * What every daemon here does the same way: no core dumps, signals as events,
 * and telling systemd (sd_notify(3)'s protocol) when it is ready.
 */
#ifndef RELAY365_BASE_DAEMON_H
#define RELAY365_BASE_DAEMON_H

#include "base/loop.h"

/* What a daemon's exit status tells its supervisor, beside EXIT_SUCCESS and EXIT_FAILURE. */
enum daemon_exit {
	DAEMON_EXIT_USAGE = 2,
	DAEMON_EXIT_CONFIG = 78 /* sysexits.h's: starting again does not help */
};

/*
 * The options of every daemon: -c FILE (*path_r, which has the default), -h and
 * -V. program is its name, doc a sentence for -h. Returns false when the program
 * is to end with *status_r: something was asked for and printed, or misspelt.
 */
bool daemon_options(int argc, char **argv, const char *program, const char *doc,
		    const char **path_r, int *status_r);

/*
 * Before threads start: no core dump and no ptrace by the same user (they hold
 * secrets), as many descriptors as a crowd of clients needs, umask 0027, SIGPIPE ignored,
 * SIGTERM, SIGINT and SIGHUP blocked so that only daemon_on_signal() sees them.
 */
void daemon_prepare(void);

/* Calls stop on SIGTERM or SIGINT and reload on SIGHUP, from the loop. One loop per program. */
int daemon_on_signal(struct loop *loop, void (*stop)(void *arg), void (*reload)(void *arg),
		     void *arg);

/* Tells the supervisor "READY=1", "STOPPING=1", ... when there is one. */
void daemon_notify(const char *state);

/* Keeps the supervisor's watchdog quiet from the loop, when it asked for that. */
void daemon_watchdog(struct loop *loop);

#endif
