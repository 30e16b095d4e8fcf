/* TCP connections to a named server. Blocks; any thread. */
#ifndef RELAY365_SENDMAIL_DIAL_H
#define RELAY365_SENDMAIL_DIAL_H

#include "base/err.h"

#include <stdint.h>

/*
 * Tries each address of host in turn, each for at most 30 seconds, and none
 * after until_ms (boot clock). Looking up the name takes as long as
 * resolv.conf(5) lets it. Returns a non-blocking descriptor, or -1.
 */
int dial(const char *host, int64_t port, int64_t until_ms, struct err *err);

#endif
