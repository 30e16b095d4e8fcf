/* TCP connections to a named server. Blocks; any thread. */
#ifndef RELAY365_TLS_DIAL_H
#define RELAY365_TLS_DIAL_H

#include "base/err.h"

#include <stdint.h>

/*
 * Tries each address of host in turn, each for at most 30 seconds, and none
 * after until_ms (boot clock). Looking up the name takes as long as
 * resolv.conf(5) lets it. Returns a non-blocking descriptor, or -1; then
 * *error_r (which may be NULL) is what the last address gave, ETIMEDOUT or
 * ECONNREFUSED for example, or 0 when the name was not found.
 */
int dial(const char *host, int64_t port, int64_t until_ms, int *error_r, struct err *err);

#endif
