/*
 * relay365 metrics: what the daemons answer to status, as OpenMetrics text or as
 * JSON. Prometheus' older text format reads it too, since the types and escapes
 * are those that both have.
 */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/clock.h"
#include "base/plain.h"
#include "base/xalloc.h"
#include "ctl/reach.h"

#include <time.h>

enum {
	ROWS_MAX = 100, /* locks, alarms and the like: each is a time series to who scrapes */
	KEYS_MAX = 10,	/* of all keys of a limit's name, the fullest */
	TEXT_MAX = 4096 /* bytes of a sample's labels */
};

enum { TOKEND = 1, MILTER = 2, SUBMIT = 4, BOTH = TOKEND | MILTER, ALL = BOTH | SUBMIT };

static const struct {
	const char *name;
	unsigned int bit;
} daemons[] = {{"tokend", TOKEND}, {"milter", MILTER}, {"submit", SUBMIT}};

enum type { GAUGE, COUNTER };

enum how {
	IS_UP,	     /* whether the daemon answers */
	ONE,	     /* 1: the labels say it */
	NUMBER,	     /* the member, if it is there */
	NUMBER_OR_0, /* 0 when it is not */
	TRUTH,	     /* whether it is there, and not false */
	EQUALS,	     /* whether it is this text, if it is there */
	COUNT,	     /* how many a list has */
	TIME,	     /* a time, in seconds since 1970 */
	UNTIL,	     /* seconds until then, if it is there */
	LEFT	     /* likewise, 0 when it is not, or over */
};

static const struct metric {
	const char *name;
	enum type type;
	const char *unit;
	unsigned int daemons;
	const char *list, *member;
	enum how how;
	const char *labels, *help;
} metrics[] = {
#define METRIC(name, type, unit, daemons, list, member, how, labels, help) \
	{name, type, unit, daemons, list, member, how, labels, help},
#include "ctl/metrics.def"
#undef METRIC
};

struct sample {
	cJSON *labels;
	char *text; /* the same, as OpenMetrics writes it */
	double value;
};

/* The samples of one metric, in the order of their labels, each once. */
struct family {
	const struct metric *metric;
	int64_t now_s;
	struct sample *sample;
	size_t count;
};

/* ---- values ---- */

/* A member by its path, up to the end or "="; NULL when it is not there or null. */
static const cJSON *member_of(const cJSON *row, const char *path)
{
	char name[64];

	for (;;) {
		size_t len = strcspn(path, ".=");

		(void)snprintf(name, sizeof(name), "%.*s", (int)len, path);
		row = cJSON_GetObjectItemCaseSensitive(row, name);
		if (row == NULL || cJSON_IsNull(row) || path[len] != '.')
			return cJSON_IsNull(row) ? NULL : row;
		path += len + 1;
	}
}

/* json_add_time()'s text. */
static bool read_time(const cJSON *item, double *at_s_r)
{
	struct tm tm = {.tm_isdst = 0};
	const char *text = cJSON_GetStringValue(item);
	const char *end = text == NULL ? NULL : strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);

	if (end == NULL || *end != '\0')
		return false;
	*at_s_r = (double)timegm(&tm);
	return true;
}

static bool read_number(const cJSON *item, double *value_r)
{
	if (cJSON_IsNumber(item))
		*value_r = item->valuedouble;
	return cJSON_IsNumber(item);
}

/* false: there is nothing to tell. */
static bool value_of(const struct family *family, const cJSON *row, double *value_r)
{
	const struct metric *metric = family->metric;
	const cJSON *item = member_of(row, metric->member);
	bool is_time;

	*value_r = 0;
	if (metric->how == IS_UP)
		*value_r = cJSON_IsObject(row);
	else if (!cJSON_IsObject(row))
		return false;
	switch (metric->how) {
	case IS_UP:
		return true;
	case ONE:
		*value_r = 1;
		return true;
	case NUMBER:
		return read_number(item, value_r);
	case NUMBER_OR_0:
		(void)read_number(item, value_r);
		return true;
	case TRUTH:
		*value_r = item != NULL && !cJSON_IsFalse(item);
		return true;
	case EQUALS:
		*value_r = cJSON_IsString(item) &&
			   strcmp(item->valuestring, strchr(metric->member, '=') + 1) == 0;
		return item != NULL;
	case COUNT:
		*value_r = cJSON_GetArraySize(item);
		return cJSON_IsArray(item);
	case TIME:
		return read_time(item, value_r);
	case UNTIL:
	case LEFT:
		break;
	}
	is_time = read_time(item, value_r);
	if (is_time)
		*value_r -= (double)family->now_s;
	if (metric->how == LEFT && *value_r < 0)
		*value_r = 0;
	return is_time || metric->how == LEFT;
}

/* ---- labels ---- */

/* One that is empty is the same as none, so it is left out. */
static cJSON *labels_of(const struct metric *metric, const char *daemon, const cJSON *row)
{
	cJSON *labels = cJSON_CreateObject();
	char name[64], *text;

	for (const char *at = metric->labels; at[0] != '\0';) {
		size_t len = strcspn(at, ","), name_len = strcspn(at, ",=");
		size_t from = name_len < len ? name_len + 1 : 0;
		const char *value = daemon;

		(void)snprintf(name, sizeof(name), "%.*s", (int)(len - from), at + from);
		if (strcmp(name, "daemon") != 0)
			value = ctl_text(row, name);
		(void)snprintf(name, sizeof(name), "%.*s", (int)name_len, at);
		text = plain(xstrdup(value));
		if (text[0] != '\0')
			(void)cJSON_AddStringToObject(labels, name, text);
		free(text);
		at += len + (at[len] == ',');
	}
	return labels;
}

static char *labels_text(const cJSON *labels)
{
	struct buf text = BUF_INIT(TEXT_MAX);
	const cJSON *label;
	char *copy;

	cJSON_ArrayForEach (label, labels) {
		(void)buf_addf(&text, "%s%s=\"", text.len == 0 ? "{" : ",", label->string);
		for (const char *at = label->valuestring; *at != '\0'; at++)
			(void)buf_addf(&text, "%s%c", *at == '"' || *at == '\\' ? "\\" : "", *at);
		(void)buf_adds(&text, "\"");
	}
	if (text.len > 0)
		(void)buf_adds(&text, "}");
	copy = text.overflowed ? NULL : xstrdup(buf_text(&text));
	buf_clear(&text);
	return copy;
}

/* ---- samples ---- */

static void add_sample(struct family *family, const char *daemon, const cJSON *row)
{
	struct sample sample;

	if (!value_of(family, row, &sample.value))
		return;
	sample.labels = labels_of(family->metric, daemon, row);
	sample.text = labels_text(sample.labels);
	if (sample.text == NULL) {
		cJSON_Delete(sample.labels);
		return;
	}
	if ((family->count & (family->count - 1)) == 0)
		family->sample =
			xreallocarray(family->sample, family->count == 0 ? 1 : family->count * 2,
				      sizeof(sample));
	family->sample[family->count++] = sample;
}

/* By the limit's name, of that the fullest first. */
static int compare_keys(const void *a, const void *b)
{
	const cJSON *one = *(const cJSON *const *)a, *other = *(const cJSON *const *)b;
	int order = strcmp(ctl_text(one, "limit"), ctl_text(other, "limit"));
	double used = (double)ctl_number(one, "used") * (double)ctl_number(other, "max");
	double others = (double)ctl_number(other, "used") * (double)ctl_number(one, "max");

	if (order == 0)
		order = (used < others) - (used > others);
	return order != 0 ? order : strcmp(ctl_text(one, "key"), ctl_text(other, "key"));
}

static void add_keys(struct family *family, const char *daemon, const cJSON *list)
{
	size_t count = (size_t)cJSON_GetArraySize(list), n = 0, same = 0;
	const cJSON **rows = xcalloc(count + 1, sizeof(*rows)), *row;

	cJSON_ArrayForEach (row, list)
		rows[n++] = row;
	qsort(rows, count, sizeof(*rows), compare_keys);
	for (size_t i = 0; i < count; i++) {
		if (i > 0 && strcmp(ctl_text(rows[i], "limit"), ctl_text(rows[i - 1], "limit")))
			same = 0;
		if (same++ < KEYS_MAX)
			add_sample(family, daemon, rows[i]);
	}
	free(rows);
}

/* There are as many tenants and mailboxes as there are; of what others cause, not too many. */
static void add_rows(struct family *family, const char *daemon, const cJSON *answer)
{
	static const char *const whole[] = {"tokens", "mailboxes", "calendar"};
	const char *name = family->metric->list;
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(answer, name), *row;
	size_t most = ROWS_MAX;

	if (name[0] == '\0') {
		add_sample(family, daemon, answer);
		return;
	}
	if (strcmp(name, "limits") == 0) {
		add_keys(family, daemon, list);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(whole); i++)
		if (strcmp(name, whole[i]) == 0)
			most = SIZE_MAX;
	cJSON_ArrayForEach (row, list)
		if (most-- > 0)
			add_sample(family, daemon, row);
		else
			break;
}

static int compare_samples(const void *a, const void *b)
{
	const struct sample *one = a, *other = b;

	return strcmp(one->text, other->text);
}

/* Keys that differ only in what can't be shown look the same, and no sample may come twice. */
static void drop_doubles(struct family *family)
{
	size_t n = 0;

	if (family->count > 0)
		qsort(family->sample, family->count, sizeof(*family->sample), compare_samples);
	for (size_t i = 0; i < family->count; i++) {
		if (n > 0 && compare_samples(&family->sample[n - 1], &family->sample[i]) == 0) {
			cJSON_Delete(family->sample[i].labels);
			free(family->sample[i].text);
		} else {
			family->sample[n++] = family->sample[i];
		}
	}
	family->count = n;
}

static void fill(struct family *family, const cJSON *status)
{
	for (size_t i = 0; i < ARRAY_LEN(daemons); i++) {
		const cJSON *answer = cJSON_GetObjectItemCaseSensitive(status, daemons[i].name);

		if (answer != NULL && (family->metric->daemons & daemons[i].bit) != 0)
			add_rows(family, daemons[i].name, answer);
	}
	drop_doubles(family);
}

/* ---- output ---- */

static void print_family(const struct family *family)
{
	const struct metric *metric = family->metric;

	if (family->count == 0)
		return;
	(void)printf("# TYPE %s %s\n", metric->name,
		     metric->type == COUNTER ? "counter" : "gauge");
	if (metric->unit[0] != '\0')
		(void)printf("# UNIT %s %s\n", metric->name, metric->unit);
	(void)printf("# HELP %s %s.\n", metric->name, metric->help);
	for (size_t i = 0; i < family->count; i++)
		(void)printf("%s%s%s %.0f\n", metric->name,
			     metric->type == COUNTER ? "_total" : "", family->sample[i].text,
			     family->sample[i].value);
}

static void add_to_json(const struct family *family, cJSON *list)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "%s%s", family->metric->name,
		       family->metric->type == COUNTER ? "_total" : "");
	for (size_t i = 0; i < family->count; i++) {
		cJSON *json = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(json, "name", name);
		(void)cJSON_AddItemToObject(json, "labels",
					    cJSON_Duplicate(family->sample[i].labels, true));
		(void)cJSON_AddNumberToObject(json, "value", family->sample[i].value);
		(void)cJSON_AddItemToArray(list, json);
	}
}

/* Of the whole table; json is NULL or gets the samples. */
static void tell(const cJSON *status, cJSON *json)
{
	int64_t now_s = clock_wall_ms() / 1000;

	for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
		struct family family = {.metric = &metrics[i], .now_s = now_s};

		fill(&family, status);
		if (json != NULL)
			add_to_json(&family, json);
		else
			print_family(&family);
		for (size_t k = 0; k < family.count; k++) {
			cJSON_Delete(family.sample[k].labels);
			free(family.sample[k].text);
		}
		free(family.sample);
	}
}

/* Who may not ask can't tell an alarm from its absence. */
static int check_access(const struct conf *conf, const cJSON *status, struct err *err)
{
	const cJSON *how;

	cJSON_ArrayForEach (how, cJSON_GetObjectItemCaseSensitive(status, "daemons")) {
		char *advice;

		if (strcmp(how->valuestring, reach_name(REACH_DENIED)) != 0)
			continue;
		advice = reach_advice(REACH_DENIED, how->string, conf);
		(void)err_set(err, ERR_PERM, "this user may not ask relay365-%s; %s", how->string,
			      advice);
		free(advice);
		return -1;
	}
	return 0;
}

int ctl_metrics(const struct ctl *ctl)
{
	struct err err = ERR_INIT;
	cJSON *status, *json;

	if (ctl->argc != 0) {
		(void)fputs("usage: relay365 [-c FILE] [--json] metrics\n", stderr);
		return CTL_USAGE;
	}
	status = status_read(ctl->conf);
	if (check_access(ctl->conf, status, &err) < 0) {
		cJSON_Delete(status);
		return ctl_print_error(ctl, &err, CTL_PROBLEM);
	}
	json = ctl->json ? cJSON_CreateObject() : NULL;
	tell(status, json == NULL ? NULL : cJSON_AddArrayToObject(json, "samples"));
	cJSON_Delete(status);
	if (json != NULL)
		return ctl_print_json(json, CTL_OK);
	(void)puts("# EOF");
	return CTL_OK;
}
