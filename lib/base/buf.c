#include "base/buf.h"

#include "base/xalloc.h"

#include <stdarg.h>

char *buf_reserve(struct buf *buf, size_t want, size_t *room_r)
{
	size_t cap = buf->cap;
	char *data;

	if (buf->len > buf->max || want > buf->max - buf->len) {
		buf->overflowed = true;
		return NULL;
	}
	if (cap < buf->len + want + 1) {
		cap = cap < 256 ? 256 : cap;
		while (cap < buf->len + want + 1)
			cap *= 2;
		if (cap > buf->max + 1)
			cap = buf->max + 1;
		/* Not realloc: the old block may have held a secret. */
		data = xmalloc(cap);
		if (buf->len > 0)
			memcpy(data, buf->data, buf->len);
		data[buf->len] = '\0';
		if (buf->data != NULL)
			explicit_bzero(buf->data, buf->cap);
		free(buf->data);
		buf->data = data;
		buf->cap = cap;
	}
	if (room_r != NULL)
		*room_r = buf->cap - buf->len - 1;
	return buf->data + buf->len;
}

int buf_add(struct buf *buf, const void *data, size_t len)
{
	char *to = buf_reserve(buf, len, NULL);

	if (to == NULL)
		return -1;
	if (len > 0)
		memcpy(to, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
	return 0;
}

int buf_adds(struct buf *buf, const char *text)
{
	return buf_add(buf, text, strlen(text));
}

int buf_addf(struct buf *buf, const char *fmt, ...)
{
	va_list ap;
	char *to;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || (to = buf_reserve(buf, (size_t)n, NULL)) == NULL)
		return -1;
	va_start(ap, fmt);
	(void)vsnprintf(to, (size_t)n + 1, fmt, ap);
	va_end(ap);
	buf->len += (size_t)n;
	return 0;
}

void buf_consume(struct buf *buf, size_t n)
{
	size_t left;

	if (n == 0)
		return;
	left = buf->len - n;
	if (left > 0)
		memmove(buf->data, buf->data + n, left);
	explicit_bzero(buf->data + left, n);
	buf->len = left;
}

void buf_clear(struct buf *buf)
{
	if (buf->data != NULL)
		explicit_bzero(buf->data, buf->cap);
	free(buf->data);
	buf->data = NULL;
	buf->len = buf->cap = 0;
	buf->overflowed = false;
}

const char *buf_text(const struct buf *buf)
{
	return buf->data == NULL ? "" : buf->data;
}
