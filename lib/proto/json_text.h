/* Text of strangers in JSON: a sender, a login, and keys made of them. */
#ifndef RELAY365_PROTO_JSON_TEXT_H
#define RELAY365_PROTO_JSON_TEXT_H

#include "base/compat.h"

#include <cjson/cJSON.h>

/* Adds text as base/plain.h makes it. */
void json_add_text(cJSON *to, const char *name, const char *text);

#endif
