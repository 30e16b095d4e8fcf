/*
 * A growing byte buffer with a maximum. data is NULL or NUL-terminated, so
 * text in it can be used as a string. What is added beyond the maximum is not
 * there: the call returns -1 and the buffer stays marked as overflowed, so a
 * writer may look once at the end.
 */
#ifndef RELAY365_BASE_BUF_H
#define RELAY365_BASE_BUF_H

#include "base/compat.h"

#include <stdbool.h>

struct buf {
	char *data;
	size_t len;
	size_t cap;
	size_t max; /* bytes that len may reach */
	bool overflowed;
};

#define BUF_INIT(maximum)        \
	{                        \
		.max = (maximum) \
	}

int buf_add(struct buf *buf, const void *data, size_t len);
int buf_adds(struct buf *buf, const char *text);
int buf_addf(struct buf *buf, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Room for at least want more bytes at data + len (bounded by max); NULL when there is none. */
char *buf_reserve(struct buf *buf, size_t want, size_t *room_r);

/* Forgets the first n bytes and overwrites them. */
void buf_consume(struct buf *buf, size_t n);

/* Overwrites and frees the content; max stays. */
void buf_clear(struct buf *buf);

/* The text, "" when nothing was added. Valid until the next change. */
const char *buf_text(const struct buf *buf);

#endif
