/*
 * The only home of tokens, client secrets and keys: pages of their own, kept
 * out of core dumps and (as far as RLIMIT_MEMLOCK allows) out of swap, wiped
 * when freed. Nothing prints a struct secret.
 */
#ifndef RELAY365_BASE_SECRET_H
#define RELAY365_BASE_SECRET_H

#include "base/compat.h"

#include <stdbool.h>

#define SECRET_MAX 65536 /* bytes; a token has 2 to 12 KB, a PEM key with chain less than 64 */

struct secret {
	char *data; /* NULL or NUL-terminated */
	size_t len;
	size_t mapped; /* bytes of the mapping */
};

#define SECRET_INIT        \
	{                  \
		NULL, 0, 0 \
	}

/* Replaces the content by a copy. Returns -1 when len is over SECRET_MAX or no page is left. */
int secret_set(struct secret *secret, const char *data, size_t len) WARN_UNUSED;

/* Moves from's content to to, whose old content is wiped; from is empty afterwards. */
void secret_move(struct secret *to, struct secret *from);

/* Wipes and unmaps. */
void secret_clear(struct secret *secret);

/* Cuts white space at the end: what editors leave in secret files. */
void secret_trim(struct secret *secret);

bool secret_is_set(const struct secret *secret);

#endif
