/* relay365 setup tenant: what was answered, and where things go. */
#ifndef RELAY365_CTL_SETUP_TENANT_H
#define RELAY365_CTL_SETUP_TENANT_H

#include "ctl/setup.h"

/* Stands in relay365.conf until the application's id is known; Entra knows no such one. */
#define TENANT_NO_CLIENT "00000000-0000-0000-0000-000000000000"

/* Texts as given; lists with commas. "" for what was not given. */
struct tenant_answers {
	const char *id, *mailboxes, *client_id, *domains, *send_as, *postmaster, *address;
	const char *secret_file, *object_id, *licences;
};

enum { TENANT_QUESTIONS = 10 };

struct tenant {
	struct tenant_answers answers;
	char *typed[TENANT_QUESTIONS]; /* those of the answers that came from a terminal */
	char name[CONF_NAME_MAX + 1];
	char *conf_path;
	char *folder, *handover, *secret_file;
	char *certificate, *key;
	char *domains;
};

/* The next word of "a, b"; false at the end. */
bool tenant_next_word(const char **list, char *word, size_t cap);

/* Writes handover.md, grant.ps1, audit.ps1 and a copy of the certificate. */
int tenant_handover(const struct tenant *tenant, struct err *err);

#endif
