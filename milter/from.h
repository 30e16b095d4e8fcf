/*
 * The From field of a message: RFC 5322 section 3.6.2, groups as RFC 6854
 * allows them, and what mail programs write beside: routes and loose white
 * space (RFC 5322 section 4.4), a name in a comment behind the address, a name
 * with an "@" in it that nobody quoted, a local part alone. Pure.
 *
 * And the addresses of an envelope, which have the same forms and more.
 *
 * It reads who a message says it is from, and does not judge form. What can't
 * be told for certain is an error, which callers take for an unknown sender.
 */
#ifndef RELAY365_MILTER_FROM_H
#define RELAY365_MILTER_FROM_H

#include "base/buf.h"

#define FROM_MAX 8192	      /* bytes of a value; a longer one is not read */
#define FROM_ADDRESSES_MAX 16 /* addresses in one field; more are not read */
#define FROM_ADDRESS_MAX 320  /* bytes of one: 64 + 1 + 255 */

struct from_address {
	/* ASCII in lower case, without comments, route and needless quotes. */
	char address[FROM_ADDRESS_MAX + 1];
	/* As it stands in the value, with quotes, encoded words and folds; NULL: none. */
	const char *name;
	size_t name_len;
	bool is_comment; /* the name stood behind the address, in parentheses */
};

struct from {
	struct from_address address[FROM_ADDRESSES_MAX];
	size_t count; /* 0: a group with nobody in it */
};

/* Reads a field's value, which from_r points into. 0, or -1 when it can't be read. */
int from_parse(const char *value, size_t len, struct from *from_r);

/*
 * Reads the address of MAIL or RCPT, which stands between "<" and ">", as MTAs
 * do: in whatever way it is spelled, address_r says the same, in the form of
 * struct from_address. Beside what a field may have, there may be a backslash
 * before any byte, a quoted domain and the root's dot behind one, more routes,
 * and a name with angle brackets. 0, or -1 when it can't be read.
 */
int from_envelope(const char *path, size_t len, char address_r[FROM_ADDRESS_MAX + 1]);

/*
 * Adds the address's name to text, fit to stand before "<": as it was if that
 * is well-formed, else quoted. Nothing when there is no name.
 */
void from_add_name(const struct from_address *address, struct buf *text);

#endif
