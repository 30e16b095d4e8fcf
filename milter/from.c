#include "milter/from.h"

#include "base/compat.h"

enum { COMMENT_DEPTH_MAX = 32 };

struct scan {
	const char *at, *end;
	const char *comment; /* what was in the last one that was skipped; NULL: none */
	size_t comment_len;
	bool envelope; /* an MTA's envelope, not a field: more is understood, see from_envelope()
			*/
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* atext of RFC 5322, and bytes beyond ASCII (RFC 6532). */
static bool is_atext(char c)
{
	return (unsigned char)c > 32 && c != 127 && strchr("()<>[]:;@\\,.\"", c) == NULL;
}

static bool is_next(const struct scan *scan, char c)
{
	return scan->at < scan->end && *scan->at == c;
}

/* Whether the scan stands at a byte that means itself, behind a backslash if need be. */
static bool is_plain(struct scan *scan)
{
	if (*scan->at != '\\')
		return false;
	if (scan->at + 1 < scan->end)
		scan->at++;
	return true;
}

static int skip_comment(struct scan *scan)
{
	const char *begin = scan->at + 1;
	int depth = 0;

	for (; scan->at < scan->end && *scan->at != '\0'; scan->at++) {
		if (is_plain(scan))
			continue;
		if (*scan->at == '(' && ++depth > COMMENT_DEPTH_MAX && !scan->envelope)
			return -1;
		if (*scan->at != ')' || --depth > 0)
			continue;
		scan->comment = begin;
		scan->comment_len = (size_t)(scan->at++ - begin);
		return 0;
	}
	return -1;
}

/* White space, folds and comments. */
static int skip_space(struct scan *scan)
{
	while (scan->at < scan->end) {
		if (*scan->at == '(') {
			if (skip_comment(scan) < 0)
				return -1;
		} else if (is_space(*scan->at)) {
			scan->at++;
		} else {
			break;
		}
	}
	return 0;
}

static int skip_quoted(struct scan *scan)
{
	for (scan->at++; scan->at < scan->end && *scan->at != '\0'; scan->at++) {
		if (is_plain(scan))
			continue;
		if (*scan->at == '"') {
			scan->at++;
			return 0;
		}
	}
	return -1;
}

static bool is_in_atoms(const struct scan *scan)
{
	return is_atext(*scan->at) || *scan->at == '.' ||
	       (scan->envelope && *scan->at == '\\' && scan->at + 1 < scan->end);
}

static int skip_atoms(struct scan *scan)
{
	const char *begin = scan->at;

	for (; scan->at < scan->end && is_in_atoms(scan); scan->at++)
		scan->at += *scan->at == '\\';
	return scan->at > begin ? 0 : -1;
}

static int put(char *out, const char *text, size_t len)
{
	size_t at = strlen(out);

	if (len > FROM_ADDRESS_MAX - at)
		return -1;
	for (size_t i = 0; i < len; i++, at++)
		out[at] =
			text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
	out[at] = '\0';
	return 0;
}

/* A word, quoted or not: what it means. */
static int put_word(char *out, const char *text, size_t len)
{
	size_t edge = text[0] == '"' ? 1 : 0;

	for (size_t i = edge; i < len - edge; i++) {
		i += text[i] == '\\' && i + 1 < len - edge;
		if (put(out, text + i, 1) < 0)
			return -1;
	}
	return 0;
}

/*
 * Words with dots between them, which loose white space may surround, into out.
 * Returns 1 when no word follows the last dot, or there is none at all.
 */
static int read_words(struct scan *scan, char *out)
{
	bool joined = true; /* to the word before by a dot */

	for (;;) {
		const char *begin;

		if (skip_space(scan) < 0)
			return -1;
		begin = scan->at;
		if (begin == scan->end || (*begin != '"' && !is_in_atoms(scan)))
			return joined ? 1 : 0;
		if (!joined && *begin != '.')
			return -1; /* two words side by side */
		if ((*begin == '"' ? skip_quoted(scan) : skip_atoms(scan)) < 0 ||
		    put_word(out, begin, (size_t)(scan->at - begin)) < 0)
			return -1;
		joined = scan->at[-1] == '.';
	}
}

static bool is_atoms(const char *text)
{
	for (; *text != '\0'; text++)
		if (!is_atext(*text) && *text != '.')
			return false;
	return true;
}

/* In quotes where it needs them. */
static int put_local(char *out, const char *local)
{
	size_t len = strlen(local);

	if (len > 0 && local[0] != '.' && local[len - 1] != '.' && is_atoms(local))
		return put(out, local, len);
	if (put(out, "\"", 1) < 0)
		return -1;
	for (; *local != '\0'; local++)
		if (((*local == '"' || *local == '\\') && put(out, "\\", 1) < 0) ||
		    put(out, local, 1) < 0)
			return -1;
	return put(out, "\"", 1);
}

static int read_local(struct scan *scan, char *out)
{
	char local[FROM_ADDRESS_MAX + 1] = "";
	bool nothing = !is_next(scan, '"') && !is_next(scan, '@');
	int result = read_words(scan, local);

	nothing = nothing && local[0] == '\0';
	if (result < 0 || nothing || ((result > 0 || local[0] == '\0') && !scan->envelope))
		return -1;
	return put_local(out, local);
}

static int read_literal(struct scan *scan, char *out)
{
	const char *begin = scan->at;

	while (scan->at < scan->end && *scan->at != ']') {
		if ((unsigned char)*scan->at < 33 || *scan->at == '\\')
			return -1;
		scan->at++;
	}
	if (scan->at == scan->end)
		return -1;
	scan->at++;
	return put(out, begin, (size_t)(scan->at - begin));
}

/* From "@" on. */
static int read_domain(struct scan *scan, char *out)
{
	char domain[FROM_ADDRESS_MAX + 1] = "";
	const char *at = scan->at++;
	size_t len;
	int result;

	if (skip_space(scan) < 0)
		return -1;
	if (scan->envelope && (scan->at == scan->end || is_next(scan, '>')))
		return 0; /* "a@" is "a" */
	if (put(out, at, 1) < 0)
		return -1;
	if (is_next(scan, '['))
		return read_literal(scan, out);
	if (is_next(scan, '"') && !scan->envelope)
		return -1;
	result = read_words(scan, domain);
	len = strlen(domain);
	if (result > 0 && scan->envelope && len > 0) {
		domain[--len] = '\0'; /* the root's dot */
		result = 0;
	}
	if (result != 0 || len == 0 || domain[len - 1] == '.' || !is_atoms(domain))
		return -1;
	return put(out, domain, len);
}

/* "a@b", with routes before it perhaps: "@x,@y:a@b". */
static int read_path(struct scan *scan, char *out)
{
	if (skip_space(scan) < 0)
		return -1;
	while (is_next(scan, '@') && memchr(scan->at, ':', (size_t)(scan->end - scan->at))) {
		while (!is_next(scan, ':') && !is_next(scan, '>'))
			scan->at++;
		if (*scan->at++ == '>' || skip_space(scan) < 0)
			return -1;
	}
	if (read_local(scan, out) < 0)
		return -1;
	do {
		if (is_next(scan, '@') && read_domain(scan, out) < 0)
			return -1;
	} while (scan->envelope && is_next(scan, '@')); /* "a@b@c" is "a@b" at c */
	return skip_space(scan);
}

/* What stands between "<" and ">". */
static int read_angle(struct scan *scan, char *out)
{
	scan->at++;
	if (read_path(scan, out) < 0 || !is_next(scan, '>'))
		return -1;
	scan->at++;
	return 0;
}

static void set_name(struct from_address *address, const char *name, const char *end)
{
	while (name < end && is_space(*name))
		name++;
	while (end > name && is_space(end[-1]))
		end--;
	if (name < end) {
		address->name = name;
		address->name_len = (size_t)(end - name);
	}
}

/* Up to what tells a name from an address: '<', ':', or the end of the item. */
static int skip_item(struct scan *scan)
{
	while (scan->at < scan->end && strchr("<:,;", *scan->at) == NULL) {
		int result = 0;

		if (*scan->at == '"')
			result = skip_quoted(scan);
		else if (*scan->at == '(')
			result = skip_comment(scan);
		else if (*scan->at == '[')
			while (scan->at < scan->end && *scan->at != ']')
				scan->at++;
		else
			scan->at++;
		if (result < 0)
			return -1;
	}
	return scan->at < scan->end && *scan->at == '\0' ? -1 : 0;
}

/* One address, up to the "," or ";" behind it. */
static int read_address(struct scan *scan, const char *item, bool angle,
			struct from_address *address)
{
	memset(address, 0, sizeof(*address));
	if (angle) {
		set_name(address, item, scan->at);
		if (read_angle(scan, address->address) < 0)
			return -1;
		scan->comment = NULL;
	} else {
		scan->at = item;
		scan->comment = NULL;
		if (read_path(scan, address->address) < 0)
			return -1;
	}
	if (skip_space(scan) < 0)
		return -1;
	if (address->name == NULL && scan->comment != NULL) {
		set_name(address, scan->comment, scan->comment + scan->comment_len);
		address->is_comment = address->name != NULL;
	}
	return scan->at == scan->end || *scan->at == ',' || *scan->at == ';' ? 0 : -1;
}

int from_parse(const char *value, size_t len, struct from *from_r)
{
	struct scan scan = {.at = value, .end = value + len};
	bool in_group = false, was_group = false;

	from_r->count = 0;
	if (len > FROM_MAX)
		return -1;
	for (;;) {
		const char *item;

		if (skip_space(&scan) < 0)
			return -1;
		if (scan.at == scan.end)
			break;
		item = scan.at;
		if (*item == ',' || (*item == ';' && in_group)) {
			in_group = in_group && *item != ';';
			scan.at++;
			continue;
		}
		if (skip_item(&scan) < 0)
			return -1;
		if (is_next(&scan, ':')) {
			if (in_group)
				return -1;
			in_group = was_group = true;
			scan.at++;
			continue;
		}
		if (from_r->count == FROM_ADDRESSES_MAX ||
		    read_address(&scan, item, is_next(&scan, '<'),
				 &from_r->address[from_r->count]) < 0)
			return -1;
		from_r->count++;
	}
	return in_group || (from_r->count == 0 && !was_group) ? -1 : 0;
}

int from_envelope(const char *path, size_t len, char address_r[FROM_ADDRESS_MAX + 1])
{
	struct scan scan = {.at = path, .end = path + len, .envelope = true};
	bool named;

	address_r[0] = '\0';
	/* "Name <a@b>", in spite of RFC 5321. */
	named = (len == 0 || *path != '@') && skip_item(&scan) == 0 && is_next(&scan, '<');
	scan.at = named ? scan.at + 1 : path;
	if (read_path(&scan, address_r) < 0)
		return -1;
	if (named && is_next(&scan, '>'))
		scan.at++;
	return skip_space(&scan) == 0 && scan.at == scan.end ? 0 : -1;
}

/* ---- a name, to be written again ---- */

/* Whether it is words, quoted or not, that may stand before "<" as they are. */
static bool is_phrase(const char *name, size_t len)
{
	struct scan scan = {.at = name, .end = name + len};

	while (scan.at < scan.end) {
		if (is_space(*scan.at))
			scan.at++;
		else if ((*scan.at == '"' ? skip_quoted(&scan) : skip_atoms(&scan)) < 0)
			return false;
	}
	return true;
}

/* One byte of a name; line ends only where they fold. */
static void add_byte(struct buf *text, const char *at, const char *end)
{
	bool folds = *at == '\n' && at + 1 < end && (at[1] == ' ' || at[1] == '\t');

	if (folds || *at == '\t' || ((unsigned char)*at >= 32 && *at != 127))
		(void)buf_add(text, at, 1);
	else if (*at == '\n')
		(void)buf_adds(text, " ");
}

void from_add_name(const struct from_address *address, struct buf *text)
{
	const char *end = address->name + address->name_len;
	bool quote;

	if (address->name == NULL)
		return;
	quote = !is_phrase(address->name, address->name_len);
	if (quote)
		(void)buf_adds(text, "\"");
	for (const char *at = address->name; at < end; at++) {
		if (address->is_comment && *at == '\\' && at + 1 < end)
			at++;
		if (quote && (*at == '"' || *at == '\\'))
			(void)buf_adds(text, "\\");
		add_byte(text, at, end);
	}
	if (quote)
		(void)buf_adds(text, "\"");
}
