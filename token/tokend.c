#include "token/tokend.h"

#include "alarm/alarm.h"
#include "base/log.h"
#include "base/xalloc.h"

#include <pwd.h>

static const struct conf_mailbox *in_conf(const struct conf *conf, const struct mailbox *mailbox)
{
	const char *name = mailbox_name(mailbox);
	const struct conf_mailbox *found = conf_mailbox_by_name(conf, name, strlen(name));

	/* A name that was given to another address is another mailbox. */
	if (found != NULL && strcmp(found->address, mailbox_address(mailbox)) != 0)
		return NULL;
	return found;
}

static struct identity *identity_by_name(const struct tokend *tokend, const char *name)
{
	for (size_t i = 0; i < tokend->identities; i++)
		if (strcmp(identity_name(tokend->identity[i]), name) == 0)
			return tokend->identity[i];
	return NULL;
}

/* Identities for conf's tenants: those there are, configured anew, and new ones. */
static void make_identities(struct tokend *tokend, const struct conf *conf)
{
	struct identity **fresh = xcalloc(conf->tenants, sizeof(struct identity *));

	for (size_t i = 0; i < conf->tenants; i++) {
		fresh[i] = identity_by_name(tokend, conf->tenant[i].name);
		if (fresh[i] != NULL)
			identity_configure(fresh[i], &conf->tenant[i]);
		else
			fresh[i] = identity_new(tokend->loop, tokend->http, &conf->tenant[i]);
	}
	for (size_t i = 0; i < tokend->identities; i++) {
		bool kept = false;

		for (size_t j = 0; j < conf->tenants; j++)
			kept = kept || fresh[j] == tokend->identity[i];
		if (!kept)
			identity_free(&tokend->identity[i]);
	}
	free(tokend->identity);
	tokend->identity = fresh;
	tokend->identities = conf->tenants;
}

static bool has_runtime(const struct tokend *tokend, const struct conf_mailbox *conf)
{
	for (size_t i = 0; i < tokend->mailboxes; i++)
		if (strcmp(mailbox_name(tokend->mailbox[i]), conf->name) == 0 &&
		    strcmp(mailbox_address(tokend->mailbox[i]), conf->address) == 0)
			return true;
	return false;
}

static void make_mailboxes(struct tokend *tokend, const struct conf *conf)
{
	const struct mailbox_parts parts = {tokend->loop, tokend->delivered, tokend->book,
					    tokend->locks};

	for (size_t i = 0; i < conf->mailboxes; i++) {
		const struct conf_mailbox *m = &conf->mailbox[i];

		if (has_runtime(tokend, m))
			continue;
		tokend->mailbox = xreallocarray(tokend->mailbox, tokend->mailboxes + 1,
						sizeof(struct mailbox *));
		tokend->mailbox[tokend->mailboxes++] =
			mailbox_new(&parts, m, identity_by_name(tokend, m->tenant->name));
	}
}

/* Here and not for each connection: a directory service may take its time to say no. */
static void look_up_users(struct tokend *tokend, const struct conf_list *users)
{
	free(tokend->token_uid);
	tokend->token_uid = xcalloc(users->count, sizeof(*tokend->token_uid));
	tokend->token_uids = 0;
	for (size_t i = 0; i < users->count; i++) {
		const struct passwd *pw = getpwnam(users->item[i]);

		if (pw != NULL)
			tokend->token_uid[tokend->token_uids++] = pw->pw_uid;
	}
}

void tokend_configure(struct tokend *tokend, struct conf *conf)
{
	struct conf *old = tokend->conf;

	alarms_configure(conf);
	look_up_users(tokend, &conf->token_users);
	/* Mailboxes that go, first: their identity may go with its tenant. */
	for (size_t i = 0; i < tokend->mailboxes; i++)
		if (in_conf(conf, tokend->mailbox[i]) == NULL)
			mailbox_configure(tokend->mailbox[i], NULL, NULL);
	make_identities(tokend, conf);
	for (size_t i = 0; i < tokend->mailboxes; i++) {
		const struct conf_mailbox *m = in_conf(conf, tokend->mailbox[i]);

		if (m != NULL)
			mailbox_configure(tokend->mailbox[i], m,
					  identity_by_name(tokend, m->tenant->name));
	}
	make_mailboxes(tokend, conf);
	tokend->conf = conf;
	conf_free(&old);
}

int tokend_reload(struct tokend *tokend, const char *who, struct err *err)
{
	struct conf *conf = conf_load(tokend->conf->path, err);
	struct log_line line;

	log_begin(&line, EV_RELOAD, NULL);
	log_str(&line, "result", conf == NULL ? "refused" : "ok");
	log_str(&line, "by", who);
	if (conf == NULL)
		log_str(&line, "text", err->text);
	log_end(&line);
	if (conf == NULL)
		return -1;
	tokend_configure(tokend, conf);
	return 0;
}

struct mailbox *tokend_mailbox_by_name(struct tokend *tokend, const char *name, size_t len)
{
	for (size_t i = 0; i < tokend->mailboxes; i++) {
		const char *have = mailbox_name(tokend->mailbox[i]);

		if (strlen(have) == len && memcmp(have, name, len) == 0 &&
		    !mailbox_is_gone(tokend->mailbox[i]))
			return tokend->mailbox[i];
	}
	return NULL;
}

struct mailbox *tokend_mailbox_by_address(struct tokend *tokend, const char *address)
{
	const struct conf_mailbox *m = conf_mailbox_by_address(tokend->conf, address);

	return m == NULL ? NULL : tokend_mailbox_by_name(tokend, m->name, strlen(m->name));
}
