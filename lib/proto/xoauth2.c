#include "base/compat.h"
#include "proto/xoauth2.h"

#include <stdbool.h>
#include <string.h>

static const char user_key[] = "user=";
static const char auth_key[] = "\001auth=Bearer ";
static const char tail[] = "\001\001";

static bool is_user(const char *user, size_t len)
{
	if (len == 0 || len > XOAUTH2_USER_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)user[i] < ' ' || user[i] == 0x7f)
			return false;
	}
	return true;
}

static bool is_token_char(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("-._~+/", c) != NULL);
}

static bool is_token(const char *token, size_t len)
{
	size_t n = 0;

	if (len > XOAUTH2_TOKEN_MAX)
		return false;
	while (n < len && is_token_char(token[n]))
		n++;
	if (n == 0)
		return false;
	while (n < len && token[n] == '=')
		n++;
	return n == len;
}

static char *append(char *to, const char *text, size_t len)
{
	memcpy(to, text, len);
	return to + len;
}

enum xoauth2_result xoauth2_compose(const char *user, size_t user_len, const char *token,
				    size_t token_len, char *to, size_t cap, size_t *len_r)
{
	char *at = to;

	if (!is_user(user, user_len))
		return XOAUTH2_BAD_USER;
	if (!is_token(token, token_len))
		return XOAUTH2_BAD_TOKEN;
	if (strlen(user_key) + user_len + strlen(auth_key) + token_len + strlen(tail) > cap)
		return XOAUTH2_NO_ROOM;
	at = append(at, user_key, strlen(user_key));
	at = append(at, user, user_len);
	at = append(at, auth_key, strlen(auth_key));
	at = append(at, token, token_len);
	at = append(at, tail, strlen(tail));
	*len_r = (size_t)(at - to);
	return XOAUTH2_OK;
}
