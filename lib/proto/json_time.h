/* Times in JSON, the same way in every answer of a daemon and every output of the command. */
#ifndef RELAY365_PROTO_JSON_TIME_H
#define RELAY365_PROTO_JSON_TIME_H

#include "base/compat.h"

#include <cjson/cJSON.h>
#include <stdint.h>

/* Adds a wall time in milliseconds as RFC 3339 text; 0, which says "no time", as null. */
void json_add_time(cJSON *to, const char *name, int64_t wall_ms);

#endif
