#include "base/compat.h"

#include "sendmail/body.h"

size_t body_part(enum body_at *at, const char *data, size_t len, bool *end_r)
{
	*end_r = false;
	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		if (*at == BODY_IN_LINE) {
			const char *cr = memchr(data + i, '\r', len - i);

			if (cr == NULL)
				return len;
			i = (size_t)(cr - data);
			*at = BODY_CR;
		} else if (c == '\r') {
			*at = *at == BODY_DOT ? BODY_DOT_CR : BODY_CR;
		} else if (c == '\n' && *at == BODY_DOT_CR) {
			*end_r = true;
			return i + 1;
		} else if (c == '\n' && *at == BODY_CR) {
			*at = BODY_LINE_START;
		} else {
			*at = c == '.' && *at == BODY_LINE_START ? BODY_DOT : BODY_IN_LINE;
		}
	}
	return len;
}
