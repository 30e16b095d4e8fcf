#include "conf/conf.h"

#include "conf/conf_check.h"
#include "conf/conf_table.h"
#include "conf/conf_text.h"
#include "conf/conf_value.h"

#include "base/xalloc.h"

#include <errno.h>
#include <libconfig.h>
#include <sys/stat.h>

enum { SECTION_MAX = 5000 };

static int at_line(struct err *err, const char *path, const config_setting_t *setting)
{
	const char *file = config_setting_source_file(setting);

	err->class = ERR_CONFIG;
	return err_add(err, "%s:%u", file == NULL ? path : file,
		       config_setting_source_line(setting));
}

/* ---- sections ---- */

static void set_defaults(enum conf_section section, void *base)
{
	for (size_t i = 0; i < conf_keys_count; i++)
		if (conf_keys[i].section == section)
			conf_value_default(&conf_keys[i], base);
}

static int unknown_key(enum conf_section section, const char *name, struct err *err)
{
	const char *alike = conf_key_alike(section, name);

	if (alike != NULL)
		return err_set(err, ERR_CONFIG, "unknown key \"%s\" in %s; did you mean \"%s\"?",
			       name, conf_sections[section].article, alike);
	return err_set(err, ERR_CONFIG, "unknown key \"%s\" in %s; see relay365.conf(5)", name,
		       conf_sections[section].article);
}

static bool is_section(const char *name)
{
	for (size_t i = 0; i < conf_sections_count; i++)
		if (conf_sections[i].name != NULL && strcmp(conf_sections[i].name, name) == 0)
			return true;
	return false;
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
		if (conf_value_read(key, setting, base, err) < 0)
			return at_line(err, path, setting);
	}
	for (size_t i = 0; i < conf_keys_count; i++) {
		const struct conf_key *key = &conf_keys[i];

		if (key->section != section || key->fallback != NULL ||
		    config_setting_get_member(group, key->name) != NULL)
			continue;
		err_set(err, ERR_CONFIG, "%s \"%s\" has no %s: %s", conf_sections[section].entry,
			config_setting_name(group), key->name, key->doc);
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
	return err_set(err, ERR_CONFIG,
		       "the name of %s \"%s\" must have at most %d of a-z, 0-9 and \"-\"", what,
		       name, CONF_NAME_MAX);
}

static int read_entry(const char *path, enum conf_section section, const config_setting_t *group,
		      char *entry, struct err *err)
{
	const char *what = conf_sections[section].entry;
	const char *name = config_setting_name(group);

	if (!config_setting_is_group(group)) {
		err_set(err, ERR_CONFIG, "%s \"%s\" must be a group: { ... }", what, name);
		return at_line(err, path, group);
	}
	if (check_name(what, name, err) < 0)
		return at_line(err, path, group);
	(void)snprintf(entry, CONF_NAME_MAX + 1, "%s", name);
	*(unsigned int *)(entry + conf_sections[section].line) =
		config_setting_source_line(group);
	return read_group(path, section, group, entry, err);
}

/* Reads "tenants", "mailboxes", ... into the array that the table of sections names. */
static int read_section(const char *path, const config_t *file, enum conf_section section,
			struct conf *conf, struct err *err)
{
	const struct conf_section_info *info = &conf_sections[section];
	const config_setting_t *groups = config_lookup(file, info->name);
	int n = groups == NULL ? 0 : config_setting_length(groups);
	char *entries;

	if (groups != NULL && !config_setting_is_group(groups)) {
		err_set(err, ERR_CONFIG, "%s must be a group: %s: { name: { ... } }", info->name,
			info->name);
		return at_line(err, path, groups);
	}
	if (n == 0 && info->needed)
		return err_set(err, ERR_CONFIG, "%s: there is no %s; add one under \"%s\"", path,
			       info->entry, info->name);
	if (n > SECTION_MAX)
		return err_set(err, ERR_CONFIG, "%s: more than %d %s", path, SECTION_MAX,
			       info->name);
	entries = xcalloc((size_t)n, info->size);
	*(char **)((char *)conf + info->array) = entries;
	*(size_t *)((char *)conf + info->count) = (size_t)n;
	for (int i = 0; i < n; i++)
		if (read_entry(path, section, config_setting_get_elem(groups, (unsigned int)i),
			       entries + (size_t)i * info->size, err) < 0)
			return -1;
	return 0;
}

/* ---- the file ---- */

static int parse(const char *path, config_t *file, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_set(err, ERR_CONFIG, "cannot read %s: %s", path, err_no(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > CONF_FILE_MAX)
		return err_set(err, ERR_CONFIG, "%s is not a plain file of at most %d bytes",
			       path, CONF_FILE_MAX);
	if (conf_text_check(path, err) < 0)
		return -1;
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
	for (size_t i = CONF_TENANT; i < conf_sections_count && result == 0; i++)
		result = read_section(path, &file, (enum conf_section)i, conf, err);
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
		if (conf_keys[i].type == CONF_STRING || conf_keys[i].type == CONF_WORD)
			free(*(char **)field);
		else if (conf_keys[i].type == CONF_LIST)
			conf_list_clear(field);
	}
}

void conf_free(struct conf **conf)
{
	struct conf *c = *conf;

	if (c == NULL)
		return;
	conf_check_free(c);
	for (size_t i = CONF_TENANT; i < conf_sections_count; i++) {
		const struct conf_section_info *info = &conf_sections[i];
		char *entries = *(char **)((char *)c + info->array);
		size_t n = *(size_t *)((char *)c + info->count);

		for (size_t j = 0; j < n; j++) {
			free_fields((enum conf_section)i, entries + j * info->size);
		}
		free(entries);
	}
	free_fields(CONF_TOP, c);
	free(c->path);
	free(c);
	*conf = NULL;
}
