/*
 * A configuration that is read again: what of it counts only when the daemon
 * starts, and what is said of it. One daemon a process.
 */
#ifndef RELAY365_CONF_CONF_RELOAD_H
#define RELAY365_CONF_CONF_RELOAD_H

#include "base/err.h"
#include "conf/conf.h"

#include <cjson/cJSON.h>

/* Daemons, as bits. */
enum conf_daemon { CONF_TOKEND = 1, CONF_MILTER = 2, CONF_SUBMIT = 4 };

/* Notes what this daemon starts with. Once, before there are threads. */
void conf_reload_started(const struct conf *conf, enum conf_daemon daemon);

#define CONF_RESTART_MAX 256

/*
 * Names the keys in which conf differs from what this daemon started with and which it reads
 * at its start only: "queue_directories, log"; "" if there are none. Returns out.
 */
const char *conf_reload_restart_for(const struct conf *conf, char out[CONF_RESTART_MAX]);

/* Logs the event: conf is in force, or NULL: refused for err. by: "control" or "SIGHUP". */
void conf_reload_log(const struct conf *conf, const char *by, const struct err *err);

/* What the control socket answers when conf is in force: {"reloaded", "restart_for"}. */
cJSON *conf_reload_answer(const struct conf *conf);

#endif
