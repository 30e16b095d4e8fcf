/*
 * The control protocol: how the relay365 command talks to the daemons
 * (relay365-control(7)). One request a connection:
 *
 *   C: relay365=1            S: status=ok          | status=error
 *   C: verb=status           S: length=1234        | class=config
 *   C:                       S:                    | reason=...
 *                            S: {JSON}             |
 *
 * The daemons' side runs on their loop; the caller's side blocks.
 */
#ifndef RELAY365_PROTO_CONTROL_H
#define RELAY365_PROTO_CONTROL_H

#include "base/err.h"
#include "base/loop.h"
#include "proto/kv.h"

#include <cjson/cJSON.h>
#include <sys/types.h>

#define CONTROL_ANSWER_MAX (64u << 20) /* bytes of JSON: status of 100,000 keys */

/*
 * A verb of a daemon. run() answers 0 with *json_r set (the server frees it) or
 * left NULL for an empty object, or -1 with err, which goes to the caller.
 */
struct control_verb {
	const char *name;
	int (*run)(void *context, const struct kv_message *request, cJSON **json_r,
		   struct err *err);
};

struct control_server;

/* verbs ends with a NULL name; verbs and context must outlive the server. */
struct control_server *control_serve(struct loop *loop, const char *path, gid_t group,
				     const struct control_verb *verbs, void *context,
				     struct err *err);
void control_server_free(struct control_server **server);

/*
 * Calls a daemon and waits at most timeout_ms for the whole answer. pairs go
 * with the request, behind its verb; NUL-terminated texts. Returns 0 with
 * *json_r (the caller's to cJSON_Delete) or -1: err->class is ERR_TEMP when the
 * daemon could not be reached, else what the daemon said.
 */
struct control_pair {
	const char *key;
	const char *value;
};

int control_ask(const char *path, const char *verb, const struct control_pair *pairs,
		size_t count, int timeout_ms, cJSON **json_r, struct err *err);

/* The same with one pair, or none: key and value may be NULL. */
int control_call(const char *path, const char *verb, const char *key, const char *value,
		 int timeout_ms, cJSON **json_r, struct err *err);

#endif
