#include "conf/conf_reload.h"

#include "base/hash.h"
#include "base/log.h"
#include "conf/conf_table.h"

/* The list in relay365.conf(5). */
static const struct {
	const char *key; /* of the top level */
	unsigned int daemons;
} at_start[] = {
	{"queue_directories", CONF_TOKEND | CONF_MILTER},
	{"state_dir", CONF_TOKEND},
	{"milter_state_dir", CONF_MILTER},
	{"run_dir", CONF_TOKEND},
	{"milter_run_dir", CONF_MILTER},
	{"milter_socket", CONF_MILTER},
	{"submit_run_dir", CONF_SUBMIT},
	{"submit_listen", CONF_SUBMIT},
	{"control_group", CONF_TOKEND | CONF_MILTER | CONF_SUBMIT},
	{"log", CONF_TOKEND | CONF_MILTER | CONF_SUBMIT},
	{"log_format", CONF_TOKEND | CONF_MILTER | CONF_SUBMIT},
	{"log_debug", CONF_TOKEND | CONF_MILTER | CONF_SUBMIT},
};

static struct {
	enum conf_daemon daemon;
	uint64_t value[ARRAY_LEN(at_start)]; /* hashes */
} started;

static uint64_t hash_text(uint64_t h, const char *text)
{
	const uint64_t seed[2] = {h, 0};

	return hash_bytes(seed, text, strlen(text) + 1);
}

static uint64_t hash_value(const struct conf_key *key, const struct conf *conf)
{
	static const uint64_t seed[2] = {0, 0};
	const void *field = (const char *)conf + key->offset;
	const struct conf_list *list = field;
	uint64_t h = 0;

	switch (key->type) {
	case CONF_STRING:
	case CONF_WORD:
		return hash_text(0, *(char *const *)field);
	case CONF_LIST:
		for (size_t i = 0; i < list->count; i++)
			h = hash_text(h, list->item[i]);
		return h;
	case CONF_NUMBER:
	case CONF_TIME:
	case CONF_BOOL:
	case CONF_CHOICE:
		break;
	}
	return hash_bytes(seed, field, key->size);
}

static uint64_t value_of(const struct conf *conf, size_t i)
{
	return hash_value(conf_key_find(CONF_TOP, at_start[i].key), conf);
}

void conf_reload_started(const struct conf *conf, enum conf_daemon daemon)
{
	started.daemon = daemon;
	for (size_t i = 0; i < ARRAY_LEN(at_start); i++)
		started.value[i] = value_of(conf, i);
}

const char *conf_reload_restart_for(const struct conf *conf, char out[CONF_RESTART_MAX])
{
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(at_start); i++)
		if ((at_start[i].daemons & started.daemon) != 0 &&
		    value_of(conf, i) != started.value[i])
			at += (size_t)snprintf(out + at, CONF_RESTART_MAX - at, "%s%s",
					       at == 0 ? "" : ", ", at_start[i].key);
	return out;
}

void conf_reload_log(const struct conf *conf, const char *by, const struct err *err)
{
	char restart[CONF_RESTART_MAX];
	struct log_line line;

	log_begin(&line, EV_RELOAD, NULL);
	log_str(&line, "result", conf == NULL ? "refused" : "ok");
	log_str(&line, "by", by);
	if (conf == NULL)
		log_str(&line, "text", err->text);
	else if (conf_reload_restart_for(conf, restart)[0] != '\0')
		log_str(&line, "restart_for", restart);
	log_end(&line);
}

cJSON *conf_reload_answer(const struct conf *conf)
{
	cJSON *json = cJSON_CreateObject();
	char restart[CONF_RESTART_MAX];

	(void)cJSON_AddBoolToObject(json, "reloaded", 1);
	(void)cJSON_AddStringToObject(json, "restart_for",
				      conf_reload_restart_for(conf, restart));
	return json;
}
