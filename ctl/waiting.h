/*
 * How much mail waits in the MTA's queues, and when the first of it would be
 * returned to its sender: postqueue(1) tells for each instance, or where there is
 * no Postfix, Sendmail's mailq(1), which knows the number only.
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
	size_t unread;		 /* queue directories that are not in these numbers */
};

/* Of these queue directories. Returns -1 when there is no MTA, or none could be read. */
int waiting_count(const char *const *queue_dirs, size_t count, struct waiting *waiting_r);

/* One of Postfix's times ("5d") in seconds; 0 when it is none. */
int64_t waiting_time_s(const char *text);

#endif
