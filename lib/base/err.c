#include "base/err.h"

#include "base/plain.h"

#include <errno.h>
#include <stdarg.h>

int err_set(struct err *err, enum err_class class, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;

	if (err == NULL)
		return -1;
	/* By way of a copy: an argument may be err->text itself. */
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err->class = class;
	memcpy(err->text, plain(text), sizeof(text));
	return -1;
}

int err_add(struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;
	int n;

	if (err == NULL)
		return -1;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(text))
		(void)snprintf(text + n, sizeof(text) - (size_t)n, ": %s", err->text);
	memcpy(err->text, plain(text), sizeof(text));
	return -1;
}

const char *err_no(int errnum)
{
	static _Thread_local char text[128];

	/* GNU's strerror_r, which config.h's _GNU_SOURCE chooses. */
	return strerror_r(errnum, text, sizeof(text));
}
