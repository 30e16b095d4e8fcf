/* A program or shell command, run to its end within a time, with what it prints bounded. */
#ifndef RELAY365_CTL_CHILD_H
#define RELAY365_CTL_CHILD_H

#include "base/buf.h"

/*
 * Runs command by sh(1) in a process group of its own. input (NULL: none) is
 * its standard input; output (NULL: ours) gets its standard output up to the
 * buffer's maximum. Returns its exit status, or -1 when it can't be started,
 * was killed, or had to be after timeout_ms.
 */
int child_run(const char *command, const char *input, struct buf *output, int timeout_ms);

/*
 * The same for a program, found by PATH and given its arguments (the last is
 * NULL). errors (NULL: ours) gets its standard error.
 */
int child_exec(const char *const argv[], const char *input, struct buf *output,
	       struct buf *errors, int timeout_ms);

/*
 * The line of a program's messages that says why it failed, within said and up to its
 * line feed. One of Postfix's commands warns of what it dislikes before, and its scripts
 * complain after it.
 */
const char *child_complaint(const char *said);

#endif
