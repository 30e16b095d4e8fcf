#include "base/compat.h"
#include "proto/kv.h"

#include <string.h>

#define NUMBER_DIGITS_MAX 15

static bool is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static size_t key_span(const char *text, size_t len)
{
	size_t n = 0;

	while (n < len && is_key_char(text[n]))
		n++;
	return n;
}

static bool is_value(const char *text, size_t len)
{
	return memchr(text, '\0', len) == NULL && memchr(text, '\r', len) == NULL &&
	       memchr(text, '\n', len) == NULL;
}

static const struct kv_pair *find(const struct kv_message *message, const char *key,
				  size_t key_len)
{
	for (size_t i = 0; i < message->count; i++) {
		const struct kv_pair *pair = &message->pair[i];

		if (pair->key_len == key_len && memcmp(pair->key, key, key_len) == 0)
			return pair;
	}
	return NULL;
}

/* One line without its LF. It may be cut short when it is the last of the data. */
static enum kv_result parse_line(const char *line, size_t len, bool whole,
				 struct kv_message *message)
{
	struct kv_pair pair = {.key = line, .key_len = key_span(line, len)};

	if (message->count == KV_PAIRS_MAX)
		return KV_BAD;
	if (pair.key_len == len)
		return whole ? KV_BAD : KV_MORE;
	if (pair.key_len == 0 || line[pair.key_len] != '=')
		return KV_BAD;
	pair.value = line + pair.key_len + 1;
	pair.value_len = len - pair.key_len - 1;
	if (!is_value(pair.value, pair.value_len) ||
	    find(message, pair.key, pair.key_len) != NULL)
		return KV_BAD;
	if (!whole)
		return KV_MORE;
	message->pair[message->count++] = pair;
	return KV_OK;
}

enum kv_result kv_parse(const char *data, size_t len, struct kv_message *message_r,
			size_t *used_r)
{
	size_t limit = len < KV_MESSAGE_MAX ? len : KV_MESSAGE_MAX;
	size_t at = 0;

	message_r->count = 0;
	*used_r = 0;
	while (at < limit) {
		const char *line = data + at;
		const char *end = memchr(line, '\n', limit - at);
		size_t line_len = end != NULL ? (size_t)(end - line) : limit - at;
		enum kv_result result;

		if (end == line) {
			*used_r = at + 1;
			return KV_OK;
		}
		result = parse_line(line, line_len, end != NULL, message_r);
		if (result == KV_BAD)
			return KV_BAD;
		at += line_len + (end != NULL);
	}
	return limit < KV_MESSAGE_MAX ? KV_MORE : KV_BAD;
}

const struct kv_pair *kv_find(const struct kv_message *message, const char *key)
{
	return find(message, key, strlen(key));
}

bool kv_is(const struct kv_message *message, const char *key, const char *value)
{
	const struct kv_pair *pair = kv_find(message, key);
	size_t len = strlen(value);

	return pair != NULL && pair->value_len == len && memcmp(pair->value, value, len) == 0;
}

int kv_copy(const struct kv_message *message, const char *key, char *to, size_t cap)
{
	const struct kv_pair *pair = kv_find(message, key);

	if (pair == NULL)
		return -1;
	if (pair->value_len >= cap)
		return -2;
	memcpy(to, pair->value, pair->value_len);
	to[pair->value_len] = '\0';
	return (int)pair->value_len;
}

int kv_number(const struct kv_message *message, const char *key, long long *number_r)
{
	const struct kv_pair *pair = kv_find(message, key);
	long long number = 0;

	if (pair == NULL)
		return -1;
	if (pair->value_len == 0 || pair->value_len > NUMBER_DIGITS_MAX)
		return -2;
	for (size_t i = 0; i < pair->value_len; i++) {
		if (pair->value[i] < '0' || pair->value[i] > '9')
			return -2;
		number = number * 10 + (pair->value[i] - '0');
	}
	*number_r = number;
	return 0;
}

int kv_put(char *to, size_t cap, size_t *at, const char *key, const char *value, size_t value_len)
{
	size_t key_len = strlen(key);
	size_t room = cap > *at ? cap - *at : 0;

	if (key_len == 0 || key_span(key, key_len) != key_len || !is_value(value, value_len))
		return -1;
	if (room < 2 || key_len > room - 2 || value_len > room - 2 - key_len)
		return -1;
	to += *at;
	memcpy(to, key, key_len);
	to[key_len] = '=';
	memcpy(to + key_len + 1, value, value_len);
	to[key_len + 1 + value_len] = '\n';
	*at += key_len + value_len + 2;
	return 0;
}

int kv_end(char *to, size_t cap, size_t *at)
{
	if (cap <= *at)
		return -1;
	to[(*at)++] = '\n';
	return 0;
}
