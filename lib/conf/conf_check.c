#include "conf/conf_check.h"

#include "base/xalloc.h"

#include <math.h>
#include <strings.h>

static int tenant_error(const struct conf *conf, const struct conf_tenant *tenant,
			struct err *err)
{
	return err_add(err, "%s:%u: tenant \"%s\"", conf->path, tenant->line, tenant->name);
}

static int mailbox_error(const struct conf *conf, const struct conf_mailbox *mailbox,
			 struct err *err)
{
	return err_add(err, "%s:%u: mailbox \"%s\"", conf->path, mailbox->line, mailbox->name);
}

static void fold(char *text)
{
	for (; *text != '\0'; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text - 'A' + 'a');
}

void conf_fold_list(struct conf_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		fold(list->item[i]);
}

static bool is_set(const char *text)
{
	return text[0] != '\0';
}

/* ---- tenants ---- */

/* Exchange Online's tenant external recipient rate limit: 500 x licences^0.7 + 9,500 a day. */
static int fill_external(struct conf_tenant *tenant, struct err *err)
{
	enum { TRIAL = 5000 };
	char *end;
	long n;

	if (!is_set(tenant->licences))
		return 0;
	if (tenant->external_recipients_per_day != 0)
		return err_set(err, ERR_CONFIG,
			       "sets both licences and external_recipients_per_day; keep one");
	if (strcmp(tenant->licences, "trial") == 0) {
		tenant->external_recipients_per_day = TRIAL;
		return 0;
	}
	n = strtol(tenant->licences, &end, 10);
	if (*end != '\0' || n < 1 || n > 10000000)
		return err_set(err, ERR_CONFIG,
			       "licences = %s is neither a number of licences nor \"trial\"",
			       tenant->licences);
	tenant->external_recipients_per_day = (int64_t)(500 * pow((double)n, 0.7)) + 9500;
	return 0;
}

static int check_tenant(struct conf_tenant *tenant, struct err *err)
{
	if (tenant->id[strcspn(tenant->id, "/?#% ")] != '\0')
		return err_set(err, ERR_CONFIG, "id \"%s\" is neither a tenant id nor a domain",
			       tenant->id);
	if (strcasecmp(tenant->id, "common") == 0 ||
	    strcasecmp(tenant->id, "organizations") == 0 ||
	    strcasecmp(tenant->id, "consumers") == 0)
		return err_set(err, ERR_CONFIG,
			       "id \"%s\" is no tenant; write the tenant's id or domain",
			       tenant->id);
	conf_fold_list(&tenant->accepted_domains);
	if (fill_external(tenant, err) < 0)
		return -1;
	return conf_check_grant(tenant, err);
}

/* ---- mailboxes ---- */

static bool is_address(const char *text)
{
	const char *at = strrchr(text, '@');

	return at != NULL && at != text && at[1] != '\0' && strchr(at + 1, '*') == NULL &&
	       text[strcspn(text, " \t\"<>,:")] == '\0';
}

bool conf_is_pattern(const char *text)
{
	const char *star = strchr(text, '*');

	return is_address(text) && (star == NULL || (star == text && star[1] == '@'));
}

static int check_senders(const struct conf_list *senders, const char *name, struct err *err)
{
	for (size_t i = 0; i < senders->count; i++)
		if (!conf_is_pattern(senders->item[i]))
			return err_set(err, ERR_CONFIG,
				       "%s: \"%s\" is neither user@domain nor *@domain", name,
				       senders->item[i]);
	return 0;
}

/* Whose mail goes first must be a sender of this mailbox, and its transport nobody else's. */
static int check_priority(const struct conf *conf, const struct conf_mailbox *mailbox,
			  struct err *err)
{
	char name[CONF_NAME_MAX + sizeof(CONF_TRANSPORT_PRIORITY)];

	for (size_t i = 0; i < mailbox->priority_senders.count; i++) {
		const char *sender = mailbox->priority_senders.item[i];

		if (conf_mailbox_by_sender(conf, sender) != mailbox)
			return err_set(
				err, ERR_CONFIG,
				"priority_senders: \"%s\" is no sender of the mailbox; add "
				"it to its senders",
				sender);
	}
	(void)snprintf(name, sizeof(name), "%s" CONF_TRANSPORT_PRIORITY, mailbox->name);
	if (mailbox->priority_senders.count > 0 &&
	    conf_mailbox_by_name(conf, name, strlen(name)) != NULL)
		return err_set(
			err, ERR_CONFIG,
			"has priority_senders, whose transport is called as that of mailbox "
			"\"%s\"; rename one of the two",
			name);
	return 0;
}

static int link_tenant(const struct conf *conf, struct conf_mailbox *mailbox, struct err *err)
{
	if (!is_set(mailbox->tenant_name) && conf->tenants == 1) {
		mailbox->tenant = &conf->tenant[0];
		return 0;
	}
	if (!is_set(mailbox->tenant_name))
		return err_set(err, ERR_CONFIG,
			       "has no tenant; there are %zu: set tenant = \"NAME\"",
			       conf->tenants);
	for (size_t i = 0; i < conf->tenants; i++)
		if (strcmp(conf->tenant[i].name, mailbox->tenant_name) == 0) {
			mailbox->tenant = &conf->tenant[i];
			return 0;
		}
	return err_set(err, ERR_CONFIG, "names tenant \"%s\", which is not under \"tenants\"",
		       mailbox->tenant_name);
}

static int check_mailbox(const struct conf *conf, struct conf_mailbox *mailbox, struct err *err)
{
	fold(mailbox->address);
	conf_fold_list(&mailbox->senders);
	conf_fold_list(&mailbox->priority_senders);
	if (!is_address(mailbox->address) || mailbox->address[0] == '*')
		return err_set(err, ERR_CONFIG, "address \"%s\" is not of the form user@domain",
			       mailbox->address);
	if (check_senders(&mailbox->senders, "senders", err) < 0 ||
	    check_senders(&mailbox->priority_senders, "priority_senders", err) < 0)
		return -1;
	if (mailbox->recipients_per_message > mailbox->recipients_per_day)
		mailbox->recipients_per_message = mailbox->recipients_per_day;
	return link_tenant(conf, mailbox, err);
}

/* A mailbox is a sender of its own, and of no other's. */
static int claims_address(const struct conf_mailbox *a, const struct conf_mailbox *b,
			  struct err *err)
{
	for (size_t i = 0; i < a->senders.count; i++)
		if (strcmp(a->senders.item[i], b->address) == 0)
			return err_set(
				err, ERR_CONFIG,
				"mailbox \"%s\" claims sender \"%s\", which is the address "
				"of mailbox \"%s\"; remove it from senders",
				a->name, b->address, b->name);
	return 0;
}

/* Two mailboxes may not have the same address, the same sender pattern or both be the default. */
static int check_pair(const struct conf *conf, const struct conf_mailbox *a,
		      const struct conf_mailbox *b, struct err *err)
{
	if (strcmp(a->address, b->address) == 0)
		return err_set(err, ERR_CONFIG, "has the address of mailbox \"%s\" (%s:%u)",
			       a->name, conf->path, a->line);
	if (claims_address(a, b, err) < 0 || claims_address(b, a, err) < 0)
		return -1;
	if (a->is_default && b->is_default)
		return err_set(err, ERR_CONFIG,
			       "is a second default beside mailbox \"%s\" (%s:%u); keep one",
			       a->name, conf->path, a->line);
	for (size_t i = 0; i < a->senders.count; i++)
		for (size_t j = 0; j < b->senders.count; j++)
			if (strcmp(a->senders.item[i], b->senders.item[j]) == 0)
				return err_set(
					err, ERR_CONFIG,
					"claims sender \"%s\" as mailbox \"%s\" does (%s:%u); "
					"leave it to one of them",
					b->senders.item[j], a->name, conf->path, a->line);
	return 0;
}

static int check_mailboxes(struct conf *conf, struct err *err)
{
	for (size_t i = 0; i < conf->mailboxes; i++) {
		struct conf_mailbox *mailbox = &conf->mailbox[i];

		/* With one mailbox there is no choice to make, unless the admin made it. */
		if (mailbox->is_default < 0)
			mailbox->is_default = conf->mailboxes == 1;
		if (check_mailbox(conf, mailbox, err) < 0)
			return mailbox_error(conf, mailbox, err);
		for (size_t j = 0; j < i; j++)
			if (check_pair(conf, &conf->mailbox[j], mailbox, err) < 0)
				return mailbox_error(conf, mailbox, err);
	}
	for (size_t i = 0; i < conf->mailboxes; i++)
		if (check_priority(conf, &conf->mailbox[i], err) < 0)
			return mailbox_error(conf, &conf->mailbox[i], err);
	return 0;
}

static int check_folders(const struct conf *conf, struct err *err)
{
	const char *folders[] = {conf->state_dir, conf->milter_state_dir, conf->run_dir,
				 conf->milter_run_dir, conf->submit_run_dir};

	for (size_t i = 0; i < ARRAY_LEN(folders); i++)
		if (folders[i][0] != '/')
			return err_set(err, ERR_CONFIG,
				       "%s: \"%s\" must be a path from the root: /...",
				       conf->path, folders[i]);
	for (size_t i = 0; i < conf->queue_directories.count; i++)
		if (conf->queue_directories.item[i][0] != '/')
			return err_set(
				err, ERR_CONFIG,
				"%s: queue_directories: \"%s\" must be a path from the root",
				conf->path, conf->queue_directories.item[i]);
	return 0;
}

int conf_check(struct conf *conf, struct err *err)
{
	conf_index(conf);
	if (check_folders(conf, err) < 0)
		return -1;
	for (size_t i = 0; i < conf->tenants; i++)
		if (check_tenant(&conf->tenant[i], err) < 0)
			return tenant_error(conf, &conf->tenant[i], err);
	if (check_mailboxes(conf, err) < 0 || conf_check_sources(conf, err) < 0 ||
	    conf_check_submit(conf, err) < 0)
		return -1;
	return conf_check_limits(conf, err);
}

void conf_check_free(struct conf *conf)
{
	free(conf->by_name);
	free(conf->by_address);
	free(conf->submit_network);
	for (size_t i = 0; i < conf->sources; i++)
		free(conf->source[i].network);
	for (size_t i = 0; i < conf->limits; i++) {
		struct conf_limit *limit = &conf->limit[i];

		for (size_t j = 0; limit->override != NULL && j < limit->overrides.count; j++)
			free(limit->override[j].key);
		free(limit->override);
	}
}

int64_t conf_transaction_recipients(const struct conf_mailbox *mailbox)
{
	int64_t n = mailbox->recipients_per_day / 20;

	if (n < 1)
		n = 1;
	return n > mailbox->recipients_per_message ? mailbox->recipients_per_message : n;
}
