#include "conf/conf_value.h"

#include "base/xalloc.h"

#include <libconfig.h>

enum { LIST_MAX = 1000 };

static void set_number(void *field, size_t size, int64_t value)
{
	if (size == sizeof(bool))
		*(bool *)field = value != 0;
	else
		*(int64_t *)field = value;
}

static void set_string(void *field, const char *text)
{
	char **to = field;

	free(*to);
	*to = xstrdup(text);
}

static void list_add(struct conf_list *list, const char *text)
{
	list->item = xreallocarray(list->item, list->count + 1, sizeof(*list->item));
	list->item[list->count++] = xstrdup(text);
}

void conf_list_clear(struct conf_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->item[i]);
	free(list->item);
	list->item = NULL;
	list->count = 0;
}

/* The place of text in "a|b|c", or -1. */
static int choice_of(const char *choices, const char *text)
{
	size_t len = strlen(text);

	for (int i = 0;; i++) {
		size_t n = strcspn(choices, "|");

		if (n == len && strncmp(choices, text, n) == 0)
			return i;
		if (choices[n] == '\0')
			return -1;
		choices += n + 1;
	}
}

/* "90s", "30m", "24h", "7d" as ms; -1 when it is not a time. */
int64_t conf_time_ms(const char *text)
{
	static const struct {
		char unit;
		int64_t ms;
	} units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
	int64_t n = 0;
	size_t digits = strspn(text, "0123456789");

	if (digits == 0 || digits > 9 || text[digits] == '\0' || text[digits + 1] != '\0')
		return -1;
	for (size_t i = 0; i < digits; i++)
		n = n * 10 + (text[i] - '0');
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (units[i].unit == text[digits])
			return n * units[i].ms;
	return -1;
}

static int check_text(const struct conf_key *key, const char *text, struct err *err)
{
	size_t len = strlen(text);

	if ((int64_t)len < key->min || (int64_t)len > key->max)
		return err_set(err, ERR_CONFIG, "%s must have %lld to %lld characters", key->name,
			       (long long)key->min, (long long)key->max);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 32 || text[i] == 127)
			return err_set(err, ERR_CONFIG, "%s has a control character in it",
				       key->name);
	return 0;
}

static int need_text(const struct conf_key *key, const config_setting_t *setting,
		     const char **text_r, struct err *err)
{
	*text_r = config_setting_get_string(setting);
	if (*text_r == NULL)
		return err_set(err, ERR_CONFIG, "%s must be text in double quotes", key->name);
	return 0;
}

static int read_list(const struct conf_key *key, const config_setting_t *setting,
		     struct conf_list *list, struct err *err)
{
	int n = config_setting_length(setting);

	if (!config_setting_is_array(setting) && !config_setting_is_list(setting))
		return err_set(err, ERR_CONFIG, "%s must be a list: [\"...\", \"...\"]",
			       key->name);
	if (n > LIST_MAX)
		return err_set(err, ERR_CONFIG, "%s has more than %d entries", key->name,
			       LIST_MAX);
	conf_list_clear(list);
	for (int i = 0; i < n; i++) {
		const char *text = config_setting_get_string_elem(setting, i);

		if (text == NULL)
			return err_set(err, ERR_CONFIG,
				       "each entry of %s must be text in double quotes",
				       key->name);
		if (check_text(key, text, err) < 0)
			return -1;
		list_add(list, text);
	}
	return 0;
}

static int read_number(const struct conf_key *key, const config_setting_t *setting, void *field,
		       struct err *err)
{
	int type = config_setting_type(setting);
	long long n = config_setting_get_int64(setting);

	if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64)
		return err_set(err, ERR_CONFIG, "%s must be a whole number without quotes",
			       key->name);
	if (n < key->min || n > key->max)
		return err_set(err, ERR_CONFIG, "%s = %lld is out of range: %lld to %lld",
			       key->name, n, (long long)key->min, (long long)key->max);
	set_number(field, key->size, n);
	return 0;
}

static int read_time(const struct conf_key *key, const config_setting_t *setting, void *field,
		     struct err *err)
{
	const char *text = config_setting_get_string(setting);
	int64_t ms = text == NULL ? -1 : conf_time_ms(text);

	if (ms < 0)
		return err_set(err, ERR_CONFIG,
			       "%s must be a time with its unit in quotes: \"90s\", \"30m\", "
			       "\"4h\" or \"2d\"",
			       key->name);
	if (ms < key->min || ms > key->max)
		return err_set(err, ERR_CONFIG, "%s = \"%s\" is out of range: %llds to %llds",
			       key->name, text, (long long)(key->min / 1000),
			       (long long)(key->max / 1000));
	set_number(field, key->size, ms);
	return 0;
}

static int read_choice(const struct conf_key *key, const config_setting_t *setting, void *field,
		       struct err *err)
{
	const char *text;
	int place;

	if (need_text(key, setting, &text, err) < 0)
		return -1;
	place = choice_of(key->choices, text);
	if (place < 0)
		return err_set(err, ERR_CONFIG, "%s = \"%s\" is not one of %s", key->name, text,
			       key->choices);
	set_number(field, key->size, place);
	return 0;
}

/* A number without quotes or text with them; kept as text. */
static int read_word(const struct conf_key *key, const config_setting_t *setting, void *field,
		     struct err *err)
{
	int type = config_setting_type(setting);
	const char *text;
	char number[24];

	if (type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64) {
		(void)snprintf(number, sizeof(number), "%lld", config_setting_get_int64(setting));
		text = number;
	} else if (need_text(key, setting, &text, err) < 0) {
		return -1;
	}
	if (check_text(key, text, err) < 0)
		return -1;
	set_string(field, text);
	return 0;
}

int conf_value_read(const struct conf_key *key, const struct config_setting_t *setting,
		    void *base, struct err *err)
{
	void *field = (char *)base + key->offset;
	const char *text;

	switch (key->type) {
	case CONF_STRING:
		if (need_text(key, setting, &text, err) < 0 || check_text(key, text, err) < 0)
			return -1;
		set_string(field, text);
		return 0;
	case CONF_LIST:
		return read_list(key, setting, field, err);
	case CONF_NUMBER:
		return read_number(key, setting, field, err);
	case CONF_TIME:
		return read_time(key, setting, field, err);
	case CONF_BOOL:
		if (config_setting_type(setting) != CONFIG_TYPE_BOOL)
			return err_set(err, ERR_CONFIG,
				       "%s must be true or false, without quotes", key->name);
		set_number(field, key->size, config_setting_get_bool(setting));
		return 0;
	case CONF_CHOICE:
		return read_choice(key, setting, field, err);
	case CONF_WORD:
		return read_word(key, setting, field, err);
	}
	return 0;
}

void conf_value_default(const struct conf_key *key, void *base)
{
	void *field = (char *)base + key->offset;
	const char *text = key->fallback == NULL ? "" : key->fallback;

	switch (key->type) {
	case CONF_STRING:
	case CONF_WORD:
		set_string(field, text);
		break;
	case CONF_LIST:
		while (*text != '\0') {
			size_t n = strcspn(text, ",");
			char *item = xstrndup(text, n);

			list_add(field, item);
			free(item);
			text += n + (text[n] == ',');
		}
		break;
	case CONF_NUMBER:
		set_number(field, key->size, strtoll(text, NULL, 10));
		break;
	case CONF_TIME:
		set_number(field, key->size, conf_time_ms(text));
		break;
	case CONF_BOOL:
		set_number(field, key->size,
			   strcmp(text, "unset") == 0 ? -1 : strcmp(text, "true") == 0);
		break;
	case CONF_CHOICE:
		set_number(field, key->size, choice_of(key->choices, text));
		break;
	}
}
