#include "maillog/logline.h"

#include <time.h>

enum { DAY_S = 86400, QUEUE_ID_MIN = 5, QUEUE_ID_MAX = 40 };

/* ---- pieces ---- */

bool logtext_is(const struct logtext *text, const char *other)
{
	return strlen(other) == text->len && memcmp(other, text->data, text->len) == 0;
}

bool logtext_begins(const struct logtext *text, const char *other)
{
	size_t len = strlen(other);

	return len <= text->len && memcmp(other, text->data, len) == 0;
}

char *logtext_copy(const struct logtext *text, char *to, size_t cap)
{
	size_t n = text->len < cap - 1 ? text->len : cap - 1;

	memcpy(to, text->data, n);
	to[n] = '\0';
	return to;
}

static void skip(struct logtext *text, size_t n)
{
	text->data += n;
	text->len -= n;
}

static size_t span_until(const struct logtext *text, const char *ends)
{
	size_t n = 0;

	while (n < text->len && strchr(ends, text->data[n]) == NULL)
		n++;
	return n;
}

/* Takes what stands before the next byte of ends, and that byte too. */
static struct logtext take_until(struct logtext *text, const char *ends)
{
	struct logtext taken = {text->data, span_until(text, ends)};

	skip(text, taken.len < text->len ? taken.len + 1 : taken.len);
	return taken;
}

/* A number of just so many digits; -1: there is none. */
static int take_number(struct logtext *text, size_t digits)
{
	int n = 0;

	if (text->len < digits)
		return -1;
	for (size_t i = 0; i < digits; i++) {
		if (text->data[i] < '0' || text->data[i] > '9')
			return -1;
		n = n * 10 + (text->data[i] - '0');
	}
	skip(text, digits);
	return n;
}

static bool take_byte(struct logtext *text, char byte)
{
	if (text->len == 0 || text->data[0] != byte)
		return false;
	skip(text, 1);
	return true;
}

/* ---- times ---- */

static bool is_time(const struct tm *tm)
{
	return tm->tm_mon >= 0 && tm->tm_mon < 12 && tm->tm_mday >= 1 && tm->tm_mday <= 31 &&
	       tm->tm_hour >= 0 && tm->tm_hour < 24 && tm->tm_min >= 0 && tm->tm_min < 60 &&
	       tm->tm_sec >= 0 && tm->tm_sec < 60;
}

/* "10:38:14" */
static bool take_clock(struct logtext *text, struct tm *tm)
{
	tm->tm_hour = take_number(text, 2);
	if (!take_byte(text, ':'))
		return false;
	tm->tm_min = take_number(text, 2);
	if (!take_byte(text, ':'))
		return false;
	tm->tm_sec = take_number(text, 2);
	if (tm->tm_sec == 60) /* a leap second must not change the day */
		tm->tm_sec = 59;
	return is_time(tm);
}

/* ".123456", if it is there. */
static int take_fraction_ms(struct logtext *text)
{
	int ms = 0, scale = 100;

	if (!take_byte(text, '.') && !take_byte(text, ','))
		return 0;
	while (text->len > 0 && text->data[0] >= '0' && text->data[0] <= '9') {
		ms += (text->data[0] - '0') * scale;
		scale /= 10;
		skip(text, 1);
	}
	return ms;
}

/* "Z", "+01:00" or "+0100", in seconds; local is set when there is none. */
static bool take_zone(struct logtext *text, int *offset_s_r, bool *local_r)
{
	int sign = take_byte(text, '+') ? 1 : take_byte(text, '-') ? -1 : 0, hours, minutes;

	*offset_s_r = 0;
	*local_r = false;
	if (sign == 0) {
		*local_r = !take_byte(text, 'Z');
		return true;
	}
	hours = take_number(text, 2);
	(void)take_byte(text, ':');
	minutes = take_number(text, 2);
	*offset_s_r = sign * (hours * 3600 + minutes * 60);
	return hours >= 0 && hours < 24 && minutes >= 0 && minutes < 60;
}

/* "2026-11-26T10:38:14.123456+01:00" */
static bool take_iso(struct logtext *text, int64_t *at_ms_r)
{
	struct tm tm = {.tm_isdst = -1};
	int year, ms, offset_s;
	bool local;

	year = take_number(text, 4);
	if (year < 1970 || !take_byte(text, '-'))
		return false;
	tm.tm_year = year - 1900;
	tm.tm_mon = take_number(text, 2) - 1;
	if (!take_byte(text, '-'))
		return false;
	tm.tm_mday = take_number(text, 2);
	if (!take_byte(text, 'T') && !take_byte(text, ' '))
		return false;
	if (!take_clock(text, &tm))
		return false;
	ms = take_fraction_ms(text);
	if (!take_zone(text, &offset_s, &local))
		return false;
	*at_ms_r = ((local ? mktime(&tm) : timegm(&tm)) - offset_s) * 1000LL + ms;
	return take_byte(text, ' ');
}

static int month_of(const char *name)
{
	static const char *const months = "JanFebMarAprMayJunJulAugSepOctNovDec";

	for (int i = 0; i < 12; i++)
		if (memcmp(months + (size_t)i * 3, name, 3) == 0)
			return i;
	return -1;
}

/* "Nov 26 10:38:14", in local time; a day below ten has a blank before it. */
static bool take_syslog(struct logtext *text, int64_t now_wall_ms, int64_t *at_ms_r)
{
	time_t now = (time_t)(now_wall_ms / 1000), at;
	struct tm tm = {0}, today, copy;

	if (text->len < 16 || (tm.tm_mon = month_of(text->data)) < 0)
		return false;
	skip(text, 3);
	if (!take_byte(text, ' '))
		return false;
	tm.tm_mday = take_byte(text, ' ') ? take_number(text, 1) : take_number(text, 2);
	if (!take_byte(text, ' ') || !take_clock(text, &tm) || localtime_r(&now, &today) == NULL)
		return false;
	for (tm.tm_year = today.tm_year + 1;; tm.tm_year--) {
		copy = tm;
		copy.tm_isdst = -1;
		at = mktime(&copy);
		/* The 29th of February is not in each year. */
		if (at <= now + DAY_S && copy.tm_mon == tm.tm_mon)
			break;
		if (tm.tm_year < today.tm_year - 8)
			return false;
	}
	*at_ms_r = (int64_t)at * 1000 + take_fraction_ms(text);
	return take_byte(text, ' ');
}

/* ---- the queue id ---- */

static bool is_id(const struct logtext *text)
{
	if (text->len < QUEUE_ID_MIN || text->len > QUEUE_ID_MAX)
		return false;
	for (size_t i = 0; i < text->len; i++) {
		char c = text->data[i];

		if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')))
			return false;
	}
	/* A word in small letters is none, such as "warning:". */
	if (logtext_is(text, "NOQUEUE"))
		return false;
	for (size_t i = 0; i < text->len; i++)
		if (text->data[i] < 'a' || text->data[i] > 'z')
			return true;
	return false;
}

/* ---- an event of relay365's in JSON ---- */

static bool take_word(struct logtext *text, const char *word)
{
	if (!logtext_begins(text, word))
		return false;
	skip(text, strlen(word));
	return true;
}

/* A string's inside, as it is escaped, or a number; log.h writes nothing else. */
static bool take_value(struct logtext *text, struct logtext *value_r)
{
	size_t n = 0;

	if (!take_byte(text, '"')) {
		*value_r = (struct logtext){text->data, span_until(text, ",}")};
		skip(text, value_r->len);
		return value_r->len > 0;
	}
	while (n < text->len && text->data[n] != '"')
		n += text->data[n] == '\\' && n + 1 < text->len ? 2 : 1;
	*value_r = (struct logtext){text->data, n};
	skip(text, n);
	return take_byte(text, '"');
}

static bool take_pair(struct logtext *text, struct logtext *key_r, struct logtext *value_r)
{
	return take_value(text, key_r) && take_byte(text, ':') && take_value(text, value_r);
}

static bool is_event(const struct logtext *name)
{
	for (int i = 0; i < EV_COUNT; i++)
		if (logtext_is(name, log_event_name((enum log_event)i)))
			return true;
	return false;
}

static bool is_bare(const struct logtext *value)
{
	for (size_t i = 0; i < value->len; i++)
		if (value->data[i] <= ' ' || value->data[i] > '~' || value->data[i] == '\\')
			return false;
	return value->len > 0;
}

static void append(struct logline *line, const char *data, size_t len)
{
	size_t room = sizeof(line->own) - line->text.len;

	len = len < room ? len : room;
	memcpy(line->own + line->text.len, data, len);
	line->text.len += len;
}

static void append_pair(struct logline *line, const struct logtext *key,
			const struct logtext *value)
{
	bool bare = is_bare(value);

	append(line, " ", 1);
	append(line, key->data, key->len);
	append(line, bare ? "=" : "=\"", bare ? 1 : 2);
	append(line, value->data, value->len);
	append(line, "\"", bare ? 0 : 1);
}

/*
 * {"time":"...","queue_id":"4XyZ","event":"accept",...}: sets id and text, which
 * is always shorter, and gives the time. False: it is no such event, line_r is as it was.
 */
static bool take_event(struct logtext json, struct logline *line, struct logtext *time_r)
{
	struct logtext key, value, id = {json.data, 0}, name;

	if (!take_word(&json, "{\"time\":") || !take_value(&json, time_r))
		return false;
	if (take_word(&json, ",\"queue_id\":") && !take_value(&json, &id))
		return false;
	if (!take_word(&json, ",\"event\":") || !take_value(&json, &name) || !is_event(&name))
		return false;
	line->id = (struct logtext){id.data, is_id(&id) ? id.len : 0};
	line->text = (struct logtext){line->own, 0};
	append(line, name.data, name.len);
	while (take_byte(&json, ',') && take_pair(&json, &key, &value))
		append_pair(line, &key, &value);
	return true;
}

/* A line that is nothing but the event, as on standard error. */
static bool parse_bare_event(const struct logtext *text, struct logline *line)
{
	static const char program[] = "relay365";
	struct logtext time;
	char stamp[64];

	line->program = (struct logtext){program, sizeof(program) - 1};
	line->pid = (struct logtext){text->data, 0};
	if (!take_event(*text, line, &time) || time.len > sizeof(stamp) - 2)
		return false;
	(void)snprintf(stamp, sizeof(stamp), "%.*s ", (int)time.len, time.data);
	time = (struct logtext){stamp, strlen(stamp)};
	return take_iso(&time, &line->at_ms);
}

/* ---- the line ---- */

/* Behind the program's name: the queue id, if there is one, and the text. */
static void parse_message(struct logtext rest, struct logline *line)
{
	struct logtext message = rest, time;

	if (logtext_begins(&line->program, "relay365") && take_event(rest, line, &time))
		return;
	line->id = take_until(&rest, ":");
	if (is_id(&line->id) && take_byte(&rest, ' ')) {
		line->text = rest;
	} else {
		line->id.len = 0;
		line->text = message;
	}
}

bool logline_parse(const char *data, size_t len, int64_t now_wall_ms, struct logline *line_r)
{
	struct logtext rest = {data, len < LOGLINE_MAX ? len : LOGLINE_MAX}, name;

	if (memchr(rest.data, '\0', rest.len) != NULL)
		return false;
	if (logtext_begins(&rest, "{"))
		return parse_bare_event(&rest, line_r);
	if (rest.len > 0 && rest.data[0] == '<') /* syslog's priority, where it is written */
		(void)take_until(&rest, ">");
	if (rest.len > 0 && rest.data[0] >= '0' && rest.data[0] <= '9') {
		if (!take_iso(&rest, &line_r->at_ms))
			return false;
	} else if (!take_syslog(&rest, now_wall_ms, &line_r->at_ms)) {
		return false;
	}
	/* Between them is the machine's name, but not on standard error. */
	name = take_until(&rest, " ");
	if (name.len > 0 && name.data[name.len - 1] != ':')
		name = take_until(&rest, " ");
	if (name.len < 2 || name.data[name.len - 1] != ':')
		return false;
	name.len--;
	line_r->program = take_until(&name, "[");
	line_r->pid = take_until(&name, "]");
	parse_message(rest, line_r);
	return true;
}

static struct logtext value_at(struct logtext at)
{
	struct logtext value;

	if (take_byte(&at, '<'))
		return take_until(&at, ">");
	if (!take_byte(&at, '"'))
		return take_until(&at, ", ");
	value = at;
	value.len = 0;
	while (value.len < at.len && at.data[value.len] != '"')
		value.len += at.data[value.len] == '\\' && value.len + 1 < at.len ? 2 : 1;
	return value;
}

bool logline_behind(const struct logline *line, const char *key, struct logtext *rest_r)
{
	size_t len = strlen(key);
	struct logtext at = line->text;

	for (; at.len > len; skip(&at, 1)) {
		bool starts =
			at.data == line->text.data || at.data[-1] == ' ' || at.data[-1] == ',';

		if (!starts || at.data[len] != '=' || memcmp(at.data, key, len) != 0)
			continue;
		skip(&at, len + 1);
		*rest_r = at;
		return true;
	}
	return false;
}

bool logline_value(const struct logline *line, const char *key, struct logtext *value_r)
{
	struct logtext rest;

	if (!logline_behind(line, key, &rest))
		return false;
	*value_r = value_at(rest);
	return true;
}

bool logline_next_address(struct logtext *list, struct logtext *address_r)
{
	(void)take_byte(list, ',');
	if (list->len == 0 || list->data[0] == ' ')
		return false;
	*address_r = value_at(*list);
	if (list->data[0] == '<')
		skip(list, address_r->len + 2 < list->len ? address_r->len + 2 : list->len);
	else
		skip(list, address_r->len);
	return address_r->len > 0;
}
