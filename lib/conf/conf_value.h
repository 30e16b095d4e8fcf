/*
 * One value of the configuration: from libconfig into the field that the table
 * of keys names. Part of conf_load().
 */
#ifndef RELAY365_CONF_CONF_VALUE_H
#define RELAY365_CONF_CONF_VALUE_H

#include "conf/conf.h"
#include "conf/conf_table.h"

struct config_setting_t;

/* Reads a value into its field of base, the section's struct; err names the key. */
int conf_value_read(const struct conf_key *key, const struct config_setting_t *setting,
		    void *base, struct err *err);

/* Sets the default. */
void conf_value_default(const struct conf_key *key, void *base);

void conf_list_clear(struct conf_list *list);

#endif
