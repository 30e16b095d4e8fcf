/*
 * What went wrong, in a sentence for the admin. Functions that can fail for a
 * reason worth telling take a struct err last and return -1; the caller adds
 * what it knows and the layer that decides logs it, once.
 */
#ifndef RELAY365_BASE_ERR_H
#define RELAY365_BASE_ERR_H

#include "base/compat.h"

#define ERR_TEXT_MAX 1024 /* bytes with the NUL; longer texts are cut */

enum err_class {
	ERR_NONE,
	ERR_TEMP,  /* may go by itself: try again */
	ERR_PERM,  /* will not go by itself */
	ERR_CONFIG /* an admin must change a setting, here or at Microsoft */
};

struct err {
	enum err_class class;
	char text[ERR_TEXT_MAX];
};

#define ERR_INIT             \
	{                    \
		ERR_NONE, "" \
	}

/* Sets class and text, which is made plain (base/plain.h). err may be NULL. Returns -1, always.
 */
int err_set(struct err *err, enum err_class class, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "context: " before the text that is there. Returns -1, always. */
int err_add(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* strerror() that is safe in threads; the text lives until the thread's next call. */
const char *err_no(int errnum);

#endif
