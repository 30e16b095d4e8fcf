#include "conf/conf.h"

#include "conf/conf_check.h"
#include "conf/conf_table.h"

#include "base/xalloc.h"

#include <errno.h>
#include <libconfig.h>
#include <sys/stat.h>

enum { FILE_MAX = 4 << 20, LIST_MAX = 1000, SECTION_MAX = 5000 };

/* ---- values ---- */

static int at_line(struct err *err, const char *path, const config_setting_t *setting)
{
	const char *file = config_setting_source_file(setting);

	err->class = ERR_CONFIG;
	return err_add(err, "%s:%u", file == NULL ? path : file,
		       config_setting_source_line(setting));
}

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

static void list_clear(struct conf_list *list)
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
static int64_t time_of(const char *text)
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
	list_clear(list);
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
	int64_t ms = text == NULL ? -1 : time_of(text);

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

static int read_value(const struct conf_key *key, const config_setting_t *setting, void *base,
		      struct err *err)
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
	}
	return 0;
}

/* ---- sections ---- */

static void set_default(const struct conf_key *key, void *base)
{
	void *field = (char *)base + key->offset;
	const char *text = key->fallback == NULL ? "" : key->fallback;

	switch (key->type) {
	case CONF_STRING:
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
		set_number(field, key->size, time_of(text));
		break;
	case CONF_BOOL:
		set_number(field, key->size, strcmp(text, "true") == 0);
		break;
	case CONF_CHOICE:
		set_number(field, key->size, choice_of(key->choices, text));
		break;
	}
}

static void set_defaults(enum conf_section section, void *base)
{
	for (size_t i = 0; i < conf_keys_count; i++)
		if (conf_keys[i].section == section)
			set_default(&conf_keys[i], base);
}

static int unknown_key(enum conf_section section, const char *name, struct err *err)
{
	const char *alike = conf_key_alike(section, name);

	if (alike != NULL)
		return err_set(err, ERR_CONFIG, "unknown key \"%s\" in %s; did you mean \"%s\"?",
			       name, conf_section_name(section), alike);
	return err_set(err, ERR_CONFIG, "unknown key \"%s\" in %s; see relay365.conf(5)", name,
		       conf_section_name(section));
}

static bool is_section(const char *name)
{
	return strcmp(name, "tenants") == 0 || strcmp(name, "mailboxes") == 0;
}

/* Reads the keys of one group into base. */
static int read_group(const char *path, enum conf_section section, const config_setting_t *group,
		      void *base, struct err *err)
{
	int n = config_setting_length(group);

	set_defaults(section, base);
	for (int i = 0; i < n; i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned int)i);
		const char *name = config_setting_name(setting);
		const struct conf_key *key = conf_key_find(section, name);

		if (key == NULL && section == CONF_TOP && is_section(name))
			continue;
		if (key == NULL) {
			unknown_key(section, name, err);
			return at_line(err, path, setting);
		}
		if (read_value(key, setting, base, err) < 0)
			return at_line(err, path, setting);
	}
	for (size_t i = 0; i < conf_keys_count; i++) {
		const struct conf_key *key = &conf_keys[i];

		if (key->section != section || key->fallback != NULL ||
		    config_setting_get_member(group, key->name) != NULL)
			continue;
		err_set(err, ERR_CONFIG, "%s \"%s\" has no %s: %s",
			section == CONF_TENANT ? "tenant" : "mailbox", config_setting_name(group),
			key->name, key->doc);
		return at_line(err, path, group);
	}
	return 0;
}

static int check_name(const char *what, const char *name, struct err *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

	if (strlen(name) <= CONF_NAME_MAX && name[strspn(name, allowed)] == '\0' &&
	    name[0] != '-')
		return 0;
	return err_set(
		err, ERR_CONFIG,
		"the name of %s \"%s\" must have at most %d of a-z, 0-9 and \"-\": a Postfix "
		"transport carries it",
		what, name, CONF_NAME_MAX);
}

/* Walks "tenants" or "mailboxes", giving each named group to read. */
static int each_group(const char *path, const config_t *file, const char *section,
		      const char *what,
		      int (*read)(struct conf *conf, const char *path,
				  const config_setting_t *group, size_t i, struct err *err),
		      struct conf *conf, void *(*make)(struct conf *conf, size_t n),
		      struct err *err)
{
	const config_setting_t *groups = config_lookup(file, section);
	int n = groups == NULL ? 0 : config_setting_length(groups);

	if (groups != NULL && !config_setting_is_group(groups)) {
		err_set(err, ERR_CONFIG, "%s must be a group: %s: { name: { ... } }", section,
			section);
		return at_line(err, path, groups);
	}
	if (n == 0)
		return err_set(err, ERR_CONFIG, "%s: there is no %s; add one under \"%s\"", path,
			       what, section);
	if (n > SECTION_MAX)
		return err_set(err, ERR_CONFIG, "%s: more than %d %s", path, SECTION_MAX,
			       section);
	(void)make(conf, (size_t)n);
	for (int i = 0; i < n; i++) {
		const config_setting_t *group = config_setting_get_elem(groups, (unsigned int)i);

		if (!config_setting_is_group(group)) {
			err_set(err, ERR_CONFIG, "%s \"%s\" must be a group: { ... }", what,
				config_setting_name(group));
			return at_line(err, path, group);
		}
		if (check_name(what, config_setting_name(group), err) < 0)
			return at_line(err, path, group);
		if (read(conf, path, group, (size_t)i, err) < 0)
			return -1;
	}
	return 0;
}

static void *make_tenants(struct conf *conf, size_t n)
{
	conf->tenant = xcalloc(n, sizeof(*conf->tenant));
	conf->tenants = n;
	return conf->tenant;
}

static void *make_mailboxes(struct conf *conf, size_t n)
{
	conf->mailbox = xcalloc(n, sizeof(*conf->mailbox));
	conf->mailboxes = n;
	return conf->mailbox;
}

static int read_tenant(struct conf *conf, const char *path, const config_setting_t *group,
		       size_t i, struct err *err)
{
	struct conf_tenant *tenant = &conf->tenant[i];

	(void)snprintf(tenant->name, sizeof(tenant->name), "%s", config_setting_name(group));
	tenant->line = config_setting_source_line(group);
	return read_group(path, CONF_TENANT, group, tenant, err);
}

static int read_mailbox(struct conf *conf, const char *path, const config_setting_t *group,
			size_t i, struct err *err)
{
	struct conf_mailbox *mailbox = &conf->mailbox[i];

	(void)snprintf(mailbox->name, sizeof(mailbox->name), "%s", config_setting_name(group));
	mailbox->line = config_setting_source_line(group);
	return read_group(path, CONF_MAILBOX, group, mailbox, err);
}

/* ---- the file ---- */

static int parse(const char *path, config_t *file, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_set(err, ERR_CONFIG, "cannot read %s: %s", path, err_no(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return err_set(err, ERR_CONFIG, "%s is not a plain file of at most %d bytes",
			       path, FILE_MAX);
	if (config_read_file(file, path) == CONFIG_TRUE)
		return 0;
	if (config_error_type(file) == CONFIG_ERR_FILE_IO)
		return err_set(err, ERR_CONFIG, "cannot read %s: %s", path, err_no(errno));
	return err_set(err, ERR_CONFIG, "%s:%d: %s",
		       config_error_file(file) == NULL ? path : config_error_file(file),
		       config_error_line(file), config_error_text(file));
}

struct conf *conf_load(const char *path, struct err *err)
{
	struct conf *conf = xcalloc(1, sizeof(*conf));
	struct err local = ERR_INIT;
	config_t file;
	int result;

	if (err == NULL)
		err = &local;
	conf->path = xstrdup(path);
	config_init(&file);
	result = parse(path, &file, err);
	if (result == 0)
		result = read_group(path, CONF_TOP, config_root_setting(&file), conf, err);
	if (result == 0)
		result = each_group(path, &file, "tenants", "tenant", read_tenant, conf,
				    make_tenants, err);
	if (result == 0)
		result = each_group(path, &file, "mailboxes", "mailbox", read_mailbox, conf,
				    make_mailboxes, err);
	config_destroy(&file);
	if (result == 0)
		result = conf_check(conf, err);
	if (result < 0)
		conf_free(&conf);
	return conf;
}

static void free_fields(enum conf_section section, void *base)
{
	for (size_t i = 0; i < conf_keys_count; i++) {
		void *field = (char *)base + conf_keys[i].offset;

		if (conf_keys[i].section != section)
			continue;
		if (conf_keys[i].type == CONF_STRING)
			free(*(char **)field);
		else if (conf_keys[i].type == CONF_LIST)
			list_clear(field);
	}
}

void conf_free(struct conf **conf)
{
	struct conf *c = *conf;

	if (c == NULL)
		return;
	for (size_t i = 0; i < c->tenants; i++)
		free_fields(CONF_TENANT, &c->tenant[i]);
	for (size_t i = 0; i < c->mailboxes; i++)
		free_fields(CONF_MAILBOX, &c->mailbox[i]);
	free_fields(CONF_TOP, c);
	free(c->tenant);
	free(c->mailbox);
	free(c->path);
	free(c);
	*conf = NULL;
}
