/*
 * How much mail waits in the MTA's queue, and when the first of it would be
 * returned to its sender: postqueue(1) tells, or where there is no Postfix,
 * Sendmail's mailq(1), which knows the number only.
 */
#ifndef RELAY365_CTL_WAITING_H
#define RELAY365_CTL_WAITING_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

struct waiting {
	long long messages; /* in all queues but hold */
	long long held;
	long long recipients;
	int64_t oldest_s;	 /* since 1970; 0: no mail waits */
	int64_t first_expires_s; /* likewise; 0: not known */
};

/*
 * Asks Postfix's configuration folder in MAIL_CONFIG, else its default.
 * Returns -1 when there is no MTA or it does not tell within timeout_ms.
 */
int waiting_count(struct waiting *waiting_r, int timeout_ms);

/* One of Postfix's times ("5d") in seconds; 0 when it is none. */
int64_t waiting_time_s(const char *text);

#endif
