#include "postfix/socketmap.h"

enum { LENGTH_DIGITS_MAX = 6 };

enum socketmap_result socketmap_parse(const char *data, size_t len,
				      struct socketmap_request *request_r, size_t *used_r)
{
	size_t n = 0, digits = 0;
	const char *space;

	while (digits < len && data[digits] >= '0' && data[digits] <= '9') {
		if (digits == LENGTH_DIGITS_MAX)
			return SOCKETMAP_BAD;
		n = n * 10 + (size_t)(data[digits++] - '0');
	}
	if (digits == len)
		return SOCKETMAP_MORE;
	if (digits == 0 || data[digits] != ':' || n > SOCKETMAP_REQUEST_MAX)
		return SOCKETMAP_BAD;
	if (len < digits + 1 + n + 1)
		return SOCKETMAP_MORE;
	data += digits + 1;
	if (data[n] != ',')
		return SOCKETMAP_BAD;
	space = memchr(data, ' ', n);
	if (space == NULL || memchr(data, '\0', n) != NULL)
		return SOCKETMAP_BAD;
	request_r->name = data;
	request_r->name_len = (size_t)(space - data);
	request_r->key = space + 1;
	request_r->key_len = n - request_r->name_len - 1;
	*used_r = digits + 1 + n + 1;
	return SOCKETMAP_OK;
}

int socketmap_answer(struct buf *to, const char *word, const char *text)
{
	return buf_addf(to, "%zu:%s %s,", strlen(word) + 1 + strlen(text), word, text);
}
