/* The machine's mail log, wherever it is kept. */
#ifndef RELAY365_CTL_MAILLOG_H
#define RELAY365_CTL_MAILLOG_H

#include "base/err.h"
#include "conf/conf.h"
#include "maillog/logline.h"

/*
 * Calls each for every line that can be read of these files, packed or not, from
 * the file that begins first; without files, of each Postfix instance's
 * maillog_file, and of /var/log/mail.log or maillog, else of the journal, with what
 * they were rotated to. Returns -1 when there is nothing to read, or a file can't be;
 * lines that are none of a log are left out. conf names the queue directories.
 */
int maillog_read(const char *const *files, size_t count, const struct conf *conf,
		 void (*each)(void *arg, const struct logline *line), void *arg, struct err *err);

#endif
