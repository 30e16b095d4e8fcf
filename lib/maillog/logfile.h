/*
 * The lines of a log file, plain or packed by gzip. Only logfile.c includes
 * zlib.h.
 */
#ifndef RELAY365_MAILLOG_LOGFILE_H
#define RELAY365_MAILLOG_LOGFILE_H

#include "base/err.h"
#include "maillog/logline.h"

struct logfile;

/* "-" is the standard input. Returns NULL with the reason. */
struct logfile *logfile_open(const char *path, struct err *err);
void logfile_close(struct logfile **file);

/*
 * The next line without its line end; valid until the next call. What is over
 * LOGLINE_MAX bytes of a line is left out. Returns 1, 0 at the end, or -1 when
 * the file can't be read on (a packed file that was cut, for example).
 */
int logfile_next(struct logfile *file, struct logtext *line_r, struct err *err);

#endif
