/*
 * The C library's heap for a library that has secrets in its hands and does not
 * wipe them: what is freed, or left behind by a reallocation, is wiped first.
 * As malloc(3): NULL when there is no memory. From any thread. What one of these
 * gave goes to wiped_realloc() or wiped_free() and nowhere else.
 */
#ifndef RELAY365_BASE_WIPED_HEAP_H
#define RELAY365_BASE_WIPED_HEAP_H

#include "base/compat.h"

#include <stddef.h>

void *wiped_malloc(size_t size);
void *wiped_calloc(size_t count, size_t size);
void *wiped_realloc(void *block, size_t size);
char *wiped_strdup(const char *text);
void wiped_free(void *block);

#endif
