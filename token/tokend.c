#include "token/tokend.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "conf/conf_reload.h"

#include <pwd.h>

/* By the address, for which Microsoft counts: a mailbox that is renamed stays the same. */
static bool is_same(const struct conf_mailbox *m, const struct mailbox *mailbox)
{
	return strcmp(m->address, mailbox_address(mailbox)) == 0;
}

static bool in_conf(const struct conf *conf, const struct mailbox *mailbox)
{
	const struct conf_mailbox *found =
		conf_mailbox_by_address(conf, mailbox_address(mailbox));

	return found != NULL && is_same(found, mailbox);
}

static struct identity *identity_by_key(struct identity *const *list, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] != NULL && strcmp(identity_own_key(list[i]), key) == 0)
			return list[i];
	return NULL;
}

struct identity *tokend_identity_of(const struct tokend *tokend, const struct conf_mailbox *m)
{
	char key[VAULT_NAME_MAX + 1];

	identity_key(m->tenant, m, key);
	return identity_by_key(tokend->identity, tokend->identities, key);
}

static void on_renewed(void *arg, struct identity *identity)
{
	const struct tokend *tokend = arg;

	probes_renewed(tokend->probes, identity);
}

static struct identity *find_identity(void *arg, const struct conf_mailbox *mailbox)
{
	return tokend_identity_of(arg, mailbox);
}

/* One that there is, configured anew and taken over, or a new one. */
static struct identity *make_identity(struct tokend *tokend, const struct conf_tenant *tenant,
				      const struct conf_mailbox *mailbox)
{
	const struct identity_parts parts = {.loop = tokend->loop,
					     .http = tokend->http,
					     .gate = tokend->gate,
					     .vault = tokend->vault,
					     .renewed = on_renewed,
					     .arg = tokend};
	char key[VAULT_NAME_MAX + 1];

	identity_key(tenant, mailbox, key);
	for (size_t i = 0; i < tokend->identities; i++) {
		struct identity *identity = tokend->identity[i];

		if (identity == NULL || strcmp(identity_own_key(identity), key) != 0)
			continue;
		tokend->identity[i] = NULL;
		identity_configure(identity, tenant, mailbox);
		return identity;
	}
	return identity_new(&parts, tenant, mailbox);
}

/*
 * Identities as conf wants them: one for an application, one for each user who signs in.
 * What is left in old_r, as many as there were, mailboxes still use.
 */
static void make_identities(struct tokend *tokend, const struct conf *conf,
			    struct identity ***old_r)
{
	struct identity **fresh =
		xcalloc(conf->tenants + conf->mailboxes, sizeof(struct identity *));
	size_t n = 0;

	for (size_t i = 0; i < conf->tenants; i++)
		if (!conf->tenant[i].delegated)
			fresh[n++] = make_identity(tokend, &conf->tenant[i], NULL);
	for (size_t i = 0; i < conf->mailboxes; i++)
		if (conf->mailbox[i].tenant->delegated)
			fresh[n++] =
				make_identity(tokend, conf->mailbox[i].tenant, &conf->mailbox[i]);
	*old_r = tokend->identity;
	tokend->identity = fresh;
	tokend->identities = n;
}

static struct mailbox *runtime_of(const struct tokend *tokend, const struct conf_mailbox *conf)
{
	for (size_t i = 0; i < tokend->mailboxes; i++)
		if (is_same(conf, tokend->mailbox[i]))
			return tokend->mailbox[i];
	return NULL;
}

static struct mailbox *make_mailbox(struct tokend *tokend, const struct conf_mailbox *conf)
{
	const struct mailbox_parts parts = {tokend->loop, tokend->memo, tokend->delivered,
					    tokend->book, tokend->locks};
	struct mailbox *mailbox = mailbox_new(&parts, conf, tokend_identity_of(tokend, conf));

	tokend->mailbox = xreallocarray(tokend->mailbox, tokend->mailboxes + 1, sizeof(mailbox));
	tokend->mailbox[tokend->mailboxes++] = mailbox;
	return mailbox;
}

/* Until `setup postfix` is run again, Postfix asks by the name that a mailbox had before. */
static void note_name(struct tokend *tokend, const char *name, struct mailbox *mailbox)
{
	struct tokend_name *at = NULL;

	for (size_t i = 0; i < tokend->names; i++)
		if (strcmp(tokend->name[i].name, name) == 0)
			at = &tokend->name[i];
	if (at == NULL) {
		tokend->name = xreallocarray(tokend->name, tokend->names + 1, sizeof(*at));
		at = &tokend->name[tokend->names++];
		(void)snprintf(at->name, sizeof(at->name), "%s", name);
	}
	at->mailbox = mailbox;
}

static void make_mailboxes(struct tokend *tokend, const struct conf *conf)
{
	free(tokend->of_conf);
	tokend->of_conf = xcalloc(conf->mailboxes, sizeof(struct mailbox *));
	for (size_t i = 0; i < conf->mailboxes; i++) {
		const struct conf_mailbox *m = &conf->mailbox[i];
		struct mailbox *mailbox = runtime_of(tokend, m);

		if (mailbox == NULL)
			mailbox = make_mailbox(tokend, m);
		else
			mailbox_configure(mailbox, m, tokend_identity_of(tokend, m));
		tokend->of_conf[i] = mailbox;
		note_name(tokend, m->name, mailbox);
	}
}

/* ---- alarms of what is not in the configuration any more ---- */

/* What follows this in an alarm's id; NULL: it is another's. */
static const char *behind(const char *id, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(id, prefix, n) == 0 ? id + n : NULL;
}

static bool has_identity(const struct tokend *tokend, const char *name)
{
	for (size_t i = 0; i < tokend->identities; i++)
		if (strcmp(identity_name(tokend->identity[i]), name) == 0)
			return true;
	return false;
}

static bool has_owner(const struct tokend *tokend, const char *id)
{
	static const char *const of_identity[] = {"token/", "vault/"};
	static const char *const of_mailbox[] = {"mailbox/", "sign-in/", "delivered/"};
	const char *name;

	for (size_t i = 0; i < ARRAY_LEN(of_identity); i++)
		if ((name = behind(id, of_identity[i])) != NULL)
			return has_identity(tokend, name);
	for (size_t i = 0; i < ARRAY_LEN(of_mailbox); i++)
		if ((name = behind(id, of_mailbox[i])) != NULL)
			return conf_mailbox_by_name(tokend->conf, name, strlen(name)) != NULL;
	return calendar_has(tokend->calendar, id);
}

/* Nobody else would: neither a success nor a failure comes of what is gone. */
static void clear_ownerless_alarms(const struct tokend *tokend)
{
	cJSON *alarms = alarms_status();
	const cJSON *alarm;

	cJSON_ArrayForEach (alarm, alarms) {
		const char *id =
			cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(alarm, "id"));

		if (id != NULL && !has_owner(tokend, id))
			alarm_clear(id);
	}
	cJSON_Delete(alarms);
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
	size_t old_identities = tokend->identities;
	struct identity **old_identity;

	alarms_configure(conf);
	tokend_stop_sign_ins(tokend);
	probes_stop(tokend->probes);
	look_up_users(tokend, &conf->token_users);
	for (size_t i = 0; i < tokend->mailboxes; i++)
		if (!in_conf(conf, tokend->mailbox[i]))
			mailbox_configure(tokend->mailbox[i], NULL, NULL);
	make_identities(tokend, conf, &old_identity);
	make_mailboxes(tokend, conf);
	/* Whoever waits for one that goes now asks his mailbox's new one. */
	for (size_t i = 0; i < old_identities; i++)
		identity_free(&old_identity[i]);
	free(old_identity);
	calendar_look(tokend->calendar, conf, tokend->identity, tokend->identities,
		      clock_wall_ms());
	probes_configure(tokend->probes, conf, find_identity, tokend);
	tokend->conf = conf;
	conf_free(&old);
	clear_ownerless_alarms(tokend);
}

int tokend_reload(struct tokend *tokend, const char *who, struct err *err)
{
	struct conf *conf = conf_load(tokend->conf->path, err);

	conf_reload_log(conf, who, err);
	if (conf == NULL)
		return -1;
	tokend_configure(tokend, conf);
	return 0;
}

/* What belongs to a mailbox of the configuration in force; NULL to NULL. */
static struct mailbox *of_conf(const struct tokend *tokend, const struct conf_mailbox *m)
{
	return m == NULL ? NULL : tokend->of_conf[m - tokend->conf->mailbox];
}

struct mailbox *tokend_mailbox_by_name(struct tokend *tokend, const char *name, size_t len)
{
	return of_conf(tokend, conf_mailbox_by_name(tokend->conf, name, len));
}

struct mailbox *tokend_mailbox_by_old_name(const struct tokend *tokend, const char *name,
					   size_t len)
{
	for (size_t i = 0; i < tokend->names; i++)
		if (strlen(tokend->name[i].name) == len &&
		    memcmp(tokend->name[i].name, name, len) == 0)
			return tokend->name[i].mailbox;
	return NULL;
}

struct mailbox *tokend_mailbox_by_address(struct tokend *tokend, const char *address)
{
	return of_conf(tokend, conf_mailbox_by_address(tokend->conf, address));
}
