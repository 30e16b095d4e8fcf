/* The machine's mail log, wherever it is kept. */
#ifndef RELAY365_CTL_MAILLOG_H
#define RELAY365_CTL_MAILLOG_H

#include "base/err.h"
#include "maillog/logline.h"

/*
 * Calls each for every line that can be read of these files, packed or not, from
 * the file that begins first; without files, of /var/log/mail.log or maillog and
 * what they were rotated to, else of the journal. Returns -1 when there is nothing
 * to read, or a file can't be; lines that are none of a log are left out.
 */
int maillog_read(const char *const *files, size_t count,
		 void (*each)(void *arg, const struct logline *line), void *arg, struct err *err);

#endif
