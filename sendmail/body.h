/* Where a message ends, as it comes piece by piece. Pure. */
#ifndef RELAY365_SENDMAIL_BODY_H
#define RELAY365_SENDMAIL_BODY_H

#include "base/compat.h"

#include <stdbool.h>

/* How far the end, CR LF "." CR LF, has been seen. Behind the reply to DATA: BODY_LINE_START. */
enum body_at { BODY_IN_LINE, BODY_CR, BODY_LINE_START, BODY_DOT, BODY_DOT_CR };

/*
 * How much of data belongs to the message, with its end; *end_r: it has ended.
 * Only CR LF "." CR LF ends a message: what a server and its client take for
 * the end must be the same (RFC 5321, section 4.1.1.4).
 */
size_t body_part(enum body_at *at, const char *data, size_t len, bool *end_r);

#endif
