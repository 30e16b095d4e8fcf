#include "base/compat.h"

#include "proto/base64.h"

#include <stdint.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encode(const void *data, size_t len, char *to)
{
	const unsigned char *from = data;
	size_t n = 0;

	for (size_t i = 0; i < len; i += 3) {
		size_t left = len - i;
		uint32_t three = (uint32_t)from[i] << 16;

		if (left > 1)
			three |= (uint32_t)from[i + 1] << 8;
		if (left > 2)
			three |= from[i + 2];
		to[n++] = digits[three >> 18];
		to[n++] = digits[three >> 12 & 63];
		to[n++] = left > 1 ? digits[three >> 6 & 63] : '=';
		to[n++] = left > 2 ? digits[three & 63] : '=';
	}
	return n;
}
