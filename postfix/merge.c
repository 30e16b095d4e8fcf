#include "postfix/merge.h"

#include "base/xalloc.h"
#include "postfix/generate.h"

#include <strings.h>

enum { NOTES_MAX = 64 * 1024 };

struct merging {
	const struct conf *conf;
	const struct postfix_facts *facts;
	struct merge *merge;
};

static void set(struct merge *merge, const char *name, char *value)
{
	merge->parameter =
		xreallocarray(merge->parameter, merge->count + 1, sizeof(merge->parameter[0]));
	merge->parameter[merge->count].name = xstrdup(name);
	merge->parameter[merge->count].value = value;
	merge->count++;
}

/* Ours first: what its patterns claim is relay365's; for all others theirs is asked. */
static void merge_sender_map(struct merging *to, const char *name, const char *ours)
{
	char *theirs = facts_value(to->facts->raw, name);

	if (theirs[0] == '\0') {
		set(to->merge, name, xstrdup(ours));
	} else if (facts_lists(theirs, ours)) {
		set(to->merge, name, xstrdup(theirs));
	} else {
		set(to->merge, name, xasprintf("%s, %s", ours, theirs));
		(void)buf_addf(&to->merge->notes,
			       "%s keeps %s behind ours; a full address there still wins over a "
			       "domain here\n",
			       name, theirs);
	}
	free(theirs);
}

bool merge_leads_to_office365(const struct conf *conf, const char *route)
{
	const char *host = strchr(route, '[');
	size_t len;

	host = host == NULL ? route : host + 1;
	len = strcspn(host, "]:");
	if (len > 14 && strncasecmp(host + len - 14, ".office365.com", 14) == 0)
		return true;
	for (size_t i = 0; i < conf->tenants; i++) {
		const struct conf_tenant *tenant = &conf->tenant[i];

		if (len > 0 && ((strlen(tenant->smtp_host) == len &&
				 strncasecmp(tenant->smtp_host, host, len) == 0) ||
				(strlen(tenant->smtp_address) == len &&
				 strncasecmp(tenant->smtp_address, host, len) == 0)))
			return true;
	}
	return false;
}

/*
 * The route of what no mailbox claims. It becomes relay365's when mail goes to
 * Office 365 already or had no route of its own; a relay that the admin has
 * chosen stays.
 */
static void merge_default(struct merging *to, const char *ours)
{
	char *transport = facts_value(to->facts->expanded, "default_transport");
	char *relayhost = facts_value(to->facts->expanded, "relayhost");
	char *by_sender = facts_value(to->facts->raw, "sender_dependent_relayhost_maps");
	struct buf *notes = &to->merge->notes;

	if (strncmp(transport, CONF_TRANSPORT_PREFIX, strlen(CONF_TRANSPORT_PREFIX)) != 0 &&
	    strcmp(transport, "smtp") != 0) {
		(void)buf_addf(notes,
			       "default_transport = %s stays: mail of senders that no mailbox "
			       "claims goes there\n",
			       transport);
	} else if (by_sender[0] != '\0') {
		(void)buf_addf(
			notes,
			"sender_dependent_relayhost_maps = %s stays, and with it the route of "
			"senders that no mailbox claims; a sender in it that a mailbox claims "
			"goes through relay365\n",
			by_sender);
	} else if (relayhost[0] != '\0' && !merge_leads_to_office365(to->conf, relayhost)) {
		(void)buf_addf(notes,
			       "relayhost = %s stays: mail of senders that no mailbox claims "
			       "goes there\n",
			       relayhost);
	} else {
		set(to->merge, "default_transport", xstrdup(ours));
		if (relayhost[0] != '\0')
			(void)buf_addf(notes,
				       "relayhost = %s counts no more: all mail for the outside "
				       "goes through relay365, except what transport_maps sends "
				       "elsewhere\n",
				       relayhost);
		else
			(void)buf_adds(notes,
				       "default_transport: mail for the outside whose sender no "
				       "mailbox claims goes through the default mailbox; "
				       "default = false there leaves it alone\n");
	}
	free(transport);
	free(relayhost);
	free(by_sender);
}

/* The name as the list must have it: our mail waits without the milter, whatever others do. */
static char *milter_entry(const struct merging *to, const char *name)
{
	char *action = facts_value(to->facts->expanded, "milter_default_action");
	char *entry = facts_has(to->facts->set, "milter_default_action") &&
				      strcmp(action, "tempfail") != 0
			      ? xasprintf("{ %s, default_action=tempfail }", name)
			      : xstrdup(name);

	free(action);
	return entry;
}

static void merge_milter(struct merging *to, const char *name, const char *milter)
{
	char *theirs = facts_value(to->facts->raw, name);
	char *entry = milter_entry(to, milter);

	if (strcmp(name, "non_smtpd_milters") == 0 && strstr(theirs, "smtpd_milters") != NULL) {
		free(entry); /* it follows smtpd_milters, and so has ours too */
	} else if (theirs[0] == '\0') {
		set(to->merge, name, entry);
	} else if (strstr(theirs, milter) != NULL) {
		free(entry); /* there already, by the admin's hand */
	} else {
		set(to->merge, name, xasprintf("%s, %s", theirs, entry));
		free(entry);
		(void)buf_addf(&to->merge->notes, "%s keeps %s, before ours\n", name, theirs);
	}
	free(theirs);
}

/* Which domains are local; the admin may have other macros. */
static void merge_macros(struct merging *to, const char *name, const char *ours)
{
	char *theirs = facts_value(to->facts->raw, name);

	if (theirs[0] == '\0' || strstr(theirs, CONF_LOCAL_MACRO) != NULL)
		set(to->merge, name, xstrdup(theirs[0] == '\0' ? ours : theirs));
	else
		set(to->merge, name, xasprintf("%s, %s", theirs, ours));
	free(theirs);
}

static void merge_environment(struct merging *to, const char *name, const char *ours)
{
	char *theirs = facts_value(to->facts->raw, name);
	const char *path = strstr(ours, "SASL_PATH=");
	char *at = strstr(theirs, "SASL_PATH=");

	if (path == NULL) {
		free(theirs);
		return;
	}
	path += strlen("SASL_PATH=");
	if (at == NULL) {
		set(to->merge, name, xasprintf("%s SASL_PATH=%s", theirs, path));
	} else if (strstr(at, RELAY365_PLUGINDIR) != NULL) {
		set(to->merge, name, xstrdup(theirs));
	} else {
		at += strlen("SASL_PATH=");
		set(to->merge, name,
		    xasprintf("%.*s" RELAY365_PLUGINDIR ":%s", (int)(at - theirs), theirs, at));
		(void)buf_addf(&to->merge->notes,
			       "%s: SASL_PATH keeps its folders, behind relay365's\n", name);
	}
	free(theirs);
}

static void merge_one(void *arg, const char *name, const char *value, bool add)
{
	struct merging *to = arg;

	if (strcmp(name, "milter_macro_defaults") == 0) {
		merge_macros(to, name, value);
	} else if (add) {
		merge_milter(to, name, value);
	} else if (strcmp(name, "sender_dependent_default_transport_maps") == 0) {
		merge_sender_map(to, name, value);
	} else if (strcmp(name, "default_transport") == 0) {
		merge_default(to, value);
	} else if (strcmp(name, "import_environment") == 0) {
		merge_environment(to, name, value);
	} else if (strcmp(name, "milter_default_action") == 0) {
		/* One that the admin has chosen is for the other milters. */
		if (!facts_has(to->facts->set, name))
			set(to->merge, name, xstrdup(value));
	} else {
		set(to->merge, name, xstrdup(value));
	}
}

void merge_main(const struct conf *conf, const struct postfix_facts *facts, struct merge *merge)
{
	struct merging to = {conf, facts, merge};
	char *queue = facts_value(facts->expanded, "queue_directory");

	*merge = (struct merge){.notes = BUF_INIT(NOTES_MAX)};
	generate_main(conf, queue, merge_one, &to);
	free(queue);
}

void merge_clear(struct merge *merge)
{
	for (size_t i = 0; i < merge->count; i++) {
		free(merge->parameter[i].name);
		free(merge->parameter[i].value);
	}
	free(merge->parameter);
	buf_clear(&merge->notes);
}
