/*
 * Allocation that either succeeds or ends the program. A daemon out of memory
 * can't do its work; its supervisor starts it again and the MTA defers mail
 * meanwhile. Sizes that come from outside are bounded before they get here.
 */
#ifndef RELAY365_BASE_XALLOC_H
#define RELAY365_BASE_XALLOC_H

#include "base/compat.h"

void *xmalloc(size_t size) WARN_UNUSED;
void *xcalloc(size_t count, size_t size) WARN_UNUSED; /* zeroed; checks the product */
void *xreallocarray(void *old, size_t count, size_t size) WARN_UNUSED;
char *xstrdup(const char *text) WARN_UNUSED;
char *xstrndup(const char *text, size_t len) WARN_UNUSED;
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2) WARN_UNUSED;

#endif
