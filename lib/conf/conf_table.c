#include "conf/conf_table.h"

#include "conf/conf.h"

#define IN_TOP struct conf
#define IN_TENANT struct conf_tenant
#define IN_MAILBOX struct conf_mailbox

#define IN_SOURCE struct conf_source
#define IN_LIMIT struct conf_limit

#define ENTRIES(type, array, count)                                                     \
	sizeof(struct type), offsetof(struct type, line), offsetof(struct conf, array), \
		offsetof(struct conf, count)

const struct conf_section_info conf_sections[] = {
	[CONF_TOP] = {NULL, NULL, "the top level", 0, 0, 0, 0, false},
	[CONF_TENANT] = {"tenants", "tenant", "a tenant", ENTRIES(conf_tenant, tenant, tenants),
			 true},
	[CONF_MAILBOX] = {"mailboxes", "mailbox", "a mailbox",
			  ENTRIES(conf_mailbox, mailbox, mailboxes), true},
	[CONF_SOURCE] = {"sources", "source", "a source", ENTRIES(conf_source, source, sources),
			 false},
	[CONF_LIMIT] = {"limits", "limit", "a limit", ENTRIES(conf_limit, limit, limits), false},
};
const size_t conf_sections_count = ARRAY_LEN(conf_sections);

const struct conf_key conf_keys[] = {
#define KEY(section, key, type, field, min, max, fallback, choices, doc) \
	{CONF_##section,                                                 \
	 key,                                                            \
	 CONF_##type,                                                    \
	 offsetof(IN_##section, field),                                  \
	 sizeof(((IN_##section *)0)->field),                             \
	 min,                                                            \
	 max,                                                            \
	 fallback,                                                       \
	 choices,                                                        \
	 doc},
#include "conf/conf.def"
#undef KEY
};
const size_t conf_keys_count = ARRAY_LEN(conf_keys);

const struct conf_key *conf_key_find(enum conf_section section, const char *name)
{
	for (size_t i = 0; i < conf_keys_count; i++)
		if (conf_keys[i].section == section && strcmp(conf_keys[i].name, name) == 0)
			return &conf_keys[i];
	return NULL;
}

enum { NAME_MAX_ALIKE = 40 };

/* Levenshtein's distance; names longer than the row are as far as can be. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_ALIKE + 1];
	size_t m = strlen(a), n = strlen(b);

	if (m > NAME_MAX_ALIKE || n > NAME_MAX_ALIKE)
		return NAME_MAX_ALIKE;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; i <= m; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[n];
}

/* Keeps candidate as *found when it is nearer to name than what was found before. */
static void nearer(const char *candidate, const char *name, size_t *best, const char **found)
{
	size_t d = distance(candidate, name);

	if (d > *best)
		return;
	*best = d - (d > 0);
	*found = candidate;
}

const char *conf_key_alike(enum conf_section section, const char *name)
{
	size_t best = strlen(name) / 3 + 1;
	const char *found = NULL;

	for (size_t i = 0; i < conf_keys_count; i++)
		if (conf_keys[i].section == section)
			nearer(conf_keys[i].name, name, &best, &found);
	if (section == CONF_TOP) {
		nearer("tenants", name, &best, &found);
		nearer("mailboxes", name, &best, &found);
	}
	return found;
}
