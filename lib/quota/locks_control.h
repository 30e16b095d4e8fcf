/*
 * The control verbs "lock" and "unlock", and locks in the answer of "status",
 * the same in both daemons (relay365-control(7)).
 */
#ifndef RELAY365_QUOTA_LOCKS_CONTROL_H
#define RELAY365_QUOTA_LOCKS_CONTROL_H

#include "proto/control.h"
#include "quota/locks.h"

/* Keys of the request: key, reason, and seconds (left out: until it is unlocked). */
int locks_control_lock(struct locks *locks, const struct conf *conf,
		       const struct kv_message *request, cJSON **json_r, struct err *err);

/* Key of the request: key. A key that is not locked is no error. */
int locks_control_unlock(struct locks *locks, const struct conf *conf,
			 const struct kv_message *request, cJSON **json_r, struct err *err);

/* Adds "locks" and, if there is one, "locks_problem" to an object. */
void locks_control_status(struct locks *locks, cJSON *to);

/* Writes the line of the log that tells of a new lock. */
void locks_log(const struct lock *lock);

#endif
