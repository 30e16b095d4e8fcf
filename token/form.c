#include "token/form.h"

static int add_encoded(struct buf *form, const char *value, size_t len)
{
	static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					 "0123456789-._~";

	for (size_t i = 0; i < len; i++) {
		char hex[4];

		if (value[i] != '\0' && strchr(unreserved, value[i]) != NULL) {
			if (buf_add(form, &value[i], 1) < 0)
				return -1;
			continue;
		}
		(void)snprintf(hex, sizeof(hex), "%%%02X", (unsigned char)value[i]);
		if (buf_add(form, hex, 3) < 0)
			return -1;
	}
	return 0;
}

int form_add(struct buf *form, const char *name, const char *value, size_t len)
{
	if (form->len > 0 && buf_add(form, "&", 1) < 0)
		return -1;
	if (buf_adds(form, name) < 0 || buf_add(form, "=", 1) < 0)
		return -1;
	return add_encoded(form, value, len);
}

int form_add_text(struct buf *form, const char *name, const char *value)
{
	return form_add(form, name, value, strlen(value));
}

static int hex_of(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c == '\0' ? NULL : strchr(digits, c | 0x20);

	return at == NULL ? -1 : (int)(at - digits);
}

static int decode(const char *from, size_t len, char *to, size_t cap)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = from[i];

		if (c == '+') {
			c = ' ';
		} else if (c == '%') {
			int high = i + 2 < len ? hex_of(from[i + 1]) : -1;
			int low = high < 0 ? -1 : hex_of(from[i + 2]);

			if (low < 0)
				return -1;
			c = (char)(high * 16 + low);
			i += 2;
		}
		if (c == '\0' || n + 1 >= cap)
			return -1;
		to[n++] = c;
	}
	to[n] = '\0';
	return (int)n;
}

int form_get(const char *query, const char *name, char *value_r, size_t cap)
{
	size_t name_len = strlen(name);

	for (const char *pair = query; *pair != '\0';) {
		size_t len = strcspn(pair, "&#");

		if (len > name_len && pair[name_len] == '=' && strncmp(pair, name, name_len) == 0)
			return decode(pair + name_len + 1, len - name_len - 1, value_r, cap);
		if (pair[len] != '&')
			break;
		pair += len + 1;
	}
	return -1;
}
