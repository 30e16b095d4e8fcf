/* The Postfix instance that a queue directory belongs to. */
#ifndef RELAY365_CTL_INSTANCE_H
#define RELAY365_CTL_INSTANCE_H

#include "base/buf.h"
#include "base/err.h"

#include <cjson/cJSON.h>

#define INSTANCE_TIMEOUT_MS 30000 /* a command of Postfix's that takes longer is stuck */

/*
 * Its configuration folder, to be freed: the running master's, else one that
 * Postfix knows of. NULL with the reason when there is none.
 */
char *instance_config_dir(const char *queue_dir, struct err *err);

/* Whether both name one folder, by whatever path: a slash at the end or a link changes nothing.
 */
bool instance_same_folder(const char *a, const char *b);

/* A parameter's expanded value, to be freed; NULL when postconf(1) does not tell, with the
 * reason. */
char *instance_parameter(const char *config_dir, const char *name, struct err *err);

/*
 * Runs one of Postfix's commands there ("postqueue", "-j"); args ends with
 * NULL. Returns 0 and its output, or -1 with what it said.
 */
int instance_run(const char *config_dir, const char *command, const char *const *args,
		 const char *input, struct buf *output, struct err *err);

/* Calls each for every message in the queue, as postqueue -j tells it. */
int instance_queue(const char *config_dir, void (*each)(void *arg, const cJSON *message),
		   void *arg, struct err *err);

#endif
