/*
 * Postfix's socketmap protocol (socketmap_table(5)): requests "NAME KEY" and
 * answers, each a netstring "LENGTH:DATA,". A codec only: no I/O, no state.
 */
#ifndef RELAY365_POSTFIX_SOCKETMAP_H
#define RELAY365_POSTFIX_SOCKETMAP_H

#include "base/buf.h"

#define SOCKETMAP_REQUEST_MAX 100000 /* bytes: Postfix's own limit for an answer */

enum socketmap_result {
	SOCKETMAP_OK,
	SOCKETMAP_MORE,
	SOCKETMAP_BAD /* not the protocol: close the connection */
};

struct socketmap_request {
	const char *name; /* both point into the data */
	size_t name_len;
	const char *key;
	size_t key_len;
};

/* Parses the first request; *used_r is its length. */
enum socketmap_result socketmap_parse(const char *data, size_t len,
				      struct socketmap_request *request_r, size_t *used_r);

/* Appends an answer: word is "OK", "NOTFOUND", "TEMP", "PERM" or "TIMEOUT". */
int socketmap_answer(struct buf *to, const char *word, const char *text);

#endif
