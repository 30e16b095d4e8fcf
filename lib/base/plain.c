#include "base/plain.h"

size_t plain_length(const char *chars, size_t len)
{
	static const struct {
		unsigned char first, last; /* lead bytes */
		unsigned char least, most; /* of the second byte */
		size_t len;
	} forms[] = {
		{0x20, 0x7e, 0, 0, 1},	     {0xc2, 0xc2, 0xa0, 0xbf, 2},
		{0xc3, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
		{0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
		{0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	const unsigned char *text = (const unsigned char *)chars;

	for (size_t i = 0; len > 0 && i < ARRAY_LEN(forms); i++) {
		if (text[0] < forms[i].first || text[0] > forms[i].last)
			continue;
		if (forms[i].len == 1)
			return 1;
		if (len < forms[i].len || text[1] < forms[i].least || text[1] > forms[i].most)
			return 0;
		for (size_t j = 2; j < forms[i].len; j++)
			if (text[j] < 0x80 || text[j] > 0xbf)
				return 0;
		return forms[i].len;
	}
	return 0;
}

char *plain(char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len;) {
		size_t n = plain_length(text + i, len - i);

		if (n == 0)
			text[i] = strchr("\t\r\n", text[i]) != NULL ? ' ' : '?';
		i += n == 0 ? 1 : n;
	}
	return text;
}
