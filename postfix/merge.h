/*
 * How what generate.h made goes into a Postfix that is there: lists keep what
 * they hold, and a route that leads elsewhere stays. Pure: the facts are those
 * of the configuration without relay365.
 */
#ifndef RELAY365_POSTFIX_MERGE_H
#define RELAY365_POSTFIX_MERGE_H

#include "conf/conf.h"
#include "postfix/edit.h"
#include "postfix/facts.h"

struct merge {
	struct edit_parameter *parameter;
	size_t count;
	/* Sentences for the admin, one a line: what becomes of what was there. */
	struct buf notes;
};

void merge_main(const struct conf *conf, const struct postfix_facts *facts, struct merge *merge);
/* Whether a next hop ("[host]:587", "smtp:[host]") is Office 365 or a tenant's own server. */
bool merge_leads_to_office365(const struct conf *conf, const char *route);

void merge_clear(struct merge *merge);

#endif
