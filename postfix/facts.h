/*
 * What postconf(1) has printed, looked up. Texts are not changed; a value that
 * is not there is "". Callers free what they get.
 */
#ifndef RELAY365_POSTFIX_FACTS_H
#define RELAY365_POSTFIX_FACTS_H

#include "base/compat.h"

#include <stdbool.h>

struct postfix_facts {
	const char *raw;      /* postconf: every parameter as written */
	const char *expanded; /* postconf -x: with $name replaced */
	const char *set;      /* postconf -n: only those that main.cf sets */
	const char *services; /* postconf -M */
	const char *options;  /* postconf -P: service/type/name = value */
};

/* The value behind "name = ". */
char *facts_value(const char *text, const char *name) WARN_UNUSED;

/* Whether "name =" stands there, be its value empty. */
bool facts_has(const char *text, const char *name);

/* The chroot column of a service ('y', 'n' or '-'); 'n' when there is no such service. */
char facts_chroot(const char *services, const char *name, const char *type);

/* Each line of postconf -P that sets this parameter for a service: "smtp/inet", and the value. */
void facts_each_option(const char *options, const char *name,
		       void (*each)(void *arg, const char *service, const char *value),
		       void *arg);

/* Whether a list ("a, b" or "a b") has this word. */
bool facts_lists(const char *list, const char *word);

#endif
