#include "base/compat.h"
#include "proto/printable.h"

#include <string.h>

void printable(const char *text, size_t len, char *to, size_t cap)
{
	size_t n = len < cap ? len : cap - 1;

	for (size_t i = 0; i < n; i++)
		to[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	if (n < len)
		memcpy(to + n - 3, "...", 3);
	to[n] = '\0';
}
