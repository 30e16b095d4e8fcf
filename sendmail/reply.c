#include "base/compat.h"

#include "sendmail/reply.h"

#include "explain/explain.h"
#include "proto/printable.h"

enum { CODE_LEN = 3, LINE_MAX = 1024 };

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A line's length with its end; 0: it has none yet. */
static size_t line_len(const char *data, size_t len)
{
	const char *end = memchr(data, '\n', len);

	return end == NULL ? 0 : (size_t)(end - data) + 1;
}

/* "250", "250 text", "250-text" with CRLF or LF. */
static bool is_reply_line(const char *line, size_t len)
{
	return len > CODE_LEN && line[0] >= '2' && line[0] <= '5' && is_digit(line[1]) &&
	       is_digit(line[2]) && memchr(" -\r\n", line[CODE_LEN], 4) != NULL;
}

int reply_parse(char *data, size_t len, struct reply *reply_r)
{
	size_t at = 0;

	for (;;) {
		size_t n = line_len(data + at, len - at);

		if (n == 0)
			return 0;
		if (!is_reply_line(data + at, n))
			return -1;
		at += n;
		if (data[at - n + CODE_LEN] != '-')
			break;
	}
	reply_r->text = data;
	reply_r->len = at;
	reply_r->code = (data[0] - '0') * 100 + (data[1] - '0') * 10 + data[2] - '0';
	return 1;
}

static bool must_wait(const struct reply *reply)
{
	size_t at = 0;

	switch (reply->code) {
	case 530:
	case 534:
	case 535:
	case 538:
		return true;
	}
	while (at < reply->len) {
		size_t n = line_len(reply->text + at, reply->len - at);
		char line[LINE_MAX];
		size_t text = n;

		while (text > 0 &&
		       (reply->text[at + text - 1] == '\n' || reply->text[at + text - 1] == '\r'))
			text--;
		printable(reply->text + at, text, line, sizeof(line));
		if (explain_is_softened(line))
			return true;
		at += n;
	}
	return false;
}

bool reply_soften(struct reply *reply)
{
	size_t at = 0;

	if (reply->code < 500 || !must_wait(reply))
		return false;
	while (at < reply->len) {
		char *line = reply->text + at;
		size_t n = line_len(line, reply->len - at);

		line[0] = '4';
		if (n > CODE_LEN + 2 && line[CODE_LEN + 1] == '5' && line[CODE_LEN + 2] == '.')
			line[CODE_LEN + 1] = '4';
		at += n;
	}
	reply->code -= 100;
	return true;
}

void reply_line(const struct reply *reply, char *to, size_t cap)
{
	char text[LINE_MAX];
	size_t at = 0, used = 0;

	while (at < reply->len && used < sizeof(text)) {
		size_t n = line_len(reply->text + at, reply->len - at);
		size_t skip = at == 0 || n < CODE_LEN + 1 ? 0 : CODE_LEN;

		for (size_t i = skip; i < n && used < sizeof(text); i++) {
			char c = reply->text[at + i];

			if (c == '\r' || c == '\n')
				break;
			text[used++] = at > 0 && i == skip ? ' ' : c;
		}
		at += n;
	}
	printable(text, used, to, cap);
}
