/* What libconfig does not tell of a file's text. Part of conf_load(). */
#ifndef RELAY365_CONF_CONF_TEXT_H
#define RELAY365_CONF_CONF_TEXT_H

#include "base/err.h"

#define CONF_FILE_MAX (4 << 20) /* bytes */

/*
 * Refuses, with file and line, a byte order mark and a number that libconfig
 * would read as another one; in the files that it includes too. A file that
 * can't be read is well: libconfig says what is wrong with it.
 */
int conf_text_check(const char *path, struct err *err) WARN_UNUSED;

#endif
