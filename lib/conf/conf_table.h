/* conf.def as data, for the loader, the checker of the manual page and nobody else. */
#ifndef RELAY365_CONF_CONF_TABLE_H
#define RELAY365_CONF_CONF_TABLE_H

#include "base/compat.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum conf_section { CONF_TOP, CONF_TENANT, CONF_MAILBOX, CONF_SOURCE, CONF_LIMIT };

enum conf_type {
	CONF_STRING,
	CONF_LIST,
	CONF_NUMBER,
	CONF_TIME,
	CONF_BOOL,
	CONF_CHOICE,
	CONF_WORD
};

struct conf_key {
	enum conf_section section;
	const char *name;
	enum conf_type type;
	size_t offset; /* of the field in the section's struct */
	size_t size;   /* of the field: a choice of two may be kept in a bool */
	int64_t min, max;
	const char *fallback; /* NULL: the key must be there */
	const char *choices;
	const char *doc;
};

/* A section of named entries: "tenants: { contoso: { ... } }". */
struct conf_section_info {
	const char *name;    /* NULL: the top level */
	const char *entry;   /* what one entry is called */
	const char *article; /* "a tenant" */
	size_t size;	     /* of an entry's struct, which begins with its name */
	size_t line;	     /* offset of its line */
	size_t array, count; /* offsets in struct conf */
	bool needed;	     /* there must be one */
};

extern const struct conf_section_info conf_sections[];
extern const size_t conf_sections_count;

extern const struct conf_key conf_keys[];
extern const size_t conf_keys_count;

/* The key with this name in a section, or NULL. */
const struct conf_key *conf_key_find(enum conf_section section, const char *name);

/* The name of the key most like this one, or NULL when none is alike. */
const char *conf_key_alike(enum conf_section section, const char *name);

#endif
