/* relay365 check: the configuration was read before we are called; say what it holds. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/xalloc.h"

#include <strings.h>

static bool is_microsofts(const char *sender)
{
	static const char domain[] = ".onmicrosoft.com";
	size_t n = strlen(sender);

	return n >= strlen(domain) && strcasecmp(sender + n - strlen(domain), domain) == 0;
}

static void note(cJSON *notes, char *text)
{
	(void)cJSON_AddItemToArray(notes, cJSON_CreateString(text));
	free(text);
}

/* Exchange Online's limit for senders in a tenant's first domain: 100 external recipients a day.
 */
static void note_onmicrosoft(cJSON *notes, const struct conf_mailbox *mailbox)
{
	const char *sender = is_microsofts(mailbox->address) ? mailbox->address : NULL;

	for (size_t i = 0; i < mailbox->senders.count && sender == NULL; i++)
		if (is_microsofts(mailbox->senders.item[i]))
			sender = mailbox->senders.item[i];
	if (sender != NULL)
		note(notes,
		     xasprintf("mailbox %s sends as %s: Microsoft allows all such senders of a "
			       "tenant together 100 external recipients in 24 hours (5.7.236); a "
			       "domain of your own has no such limit",
			       mailbox->name, sender));
}

/* Exchange Online's limits of a mailbox that submits: 30 messages a minute, 3 at a time. */
static void note_pace(cJSON *notes, const struct conf_mailbox *mailbox)
{
	enum { PER_MINUTE = 30, AT_ONCE = 3 };

	if (mailbox->tenant->cloud == CLOUD_CUSTOM)
		return;
	if (mailbox->messages_per_minute == 0)
		note(notes,
		     xasprintf("mailbox %s has messages_per_minute = 0, no pace: %s takes %d a "
			       "minute, lets the others wait and may refuse them for now",
			       mailbox->name, mailbox->tenant->smtp_host, PER_MINUTE));
	else if (mailbox->messages_per_minute > PER_MINUTE)
		note(notes,
		     xasprintf("mailbox %s has messages_per_minute = %lld: %s takes %d, lets the "
			       "others wait and may refuse them for now",
			       mailbox->name, (long long)mailbox->messages_per_minute,
			       mailbox->tenant->smtp_host, PER_MINUTE));
	if (mailbox->connections > AT_ONCE)
		note(notes,
		     xasprintf("mailbox %s has connections = %lld: %s takes %d at a time and "
			       "refuses what is more for now (432 4.3.2)",
			       mailbox->name, (long long)mailbox->connections,
			       mailbox->tenant->smtp_host, AT_ONCE));
}

/* What is no mistake, and not what everybody expects. */
static cJSON *notes_of(const struct conf *conf)
{
	cJSON *notes = cJSON_CreateArray();
	bool has_default = false;

	for (size_t i = 0; i < conf->mailboxes; i++) {
		const struct conf_mailbox *mailbox = &conf->mailbox[i];

		has_default = has_default || mailbox->is_default;
		note_onmicrosoft(notes, mailbox);
		note_pace(notes, mailbox);
		if (mailbox->other_senders == OTHERS_REJECT && mailbox->senders.count == 0)
			note(notes, xasprintf("mailbox %s has other_senders = \"reject\" and no "
					      "senders: it sends as %s only",
					      mailbox->name, mailbox->address));
	}
	if (!has_default)
		note(notes,
		     xasprintf("no mailbox is the default: mail whose sender none claims, and "
			       "the null sender's, does not go through relay365"));
	return notes;
}

int ctl_check(const struct ctl *ctl)
{
	const struct conf *conf = ctl->conf;
	const cJSON *item;
	cJSON *notes;

	if (ctl->argc != 0) {
		(void)fputs("usage: relay365 [-c FILE] [--json] check\n", stderr);
		return CTL_USAGE;
	}
	notes = notes_of(conf);
	if (ctl->json) {
		cJSON *json = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(json, "configuration", conf->path);
		(void)cJSON_AddNumberToObject(json, "tenants", (double)conf->tenants);
		(void)cJSON_AddNumberToObject(json, "mailboxes", (double)conf->mailboxes);
		(void)cJSON_AddItemToObject(json, "notes", notes);
		return ctl_print_json(json, CTL_OK);
	}
	(void)printf("%s is well: %zu tenant%s, %zu mailbox%s\n", conf->path, conf->tenants,
		     conf->tenants == 1 ? "" : "s", conf->mailboxes,
		     conf->mailboxes == 1 ? "" : "es");
	cJSON_ArrayForEach (item, notes)
		(void)printf("note: %s\n", item->valuestring);
	cJSON_Delete(notes);
	return CTL_OK;
}
