/* Which mailbox a sender belongs to, and whether a recipient does to its tenant. */
#include "conf/conf.h"

#include <strings.h>

/*
 * 3: this very sender, 2: it is the mailbox's own address (what a policy rewrites
 * must not leave by another mailbox), 1: its domain, 0: not.
 */
static int claims(const struct conf_mailbox *mailbox, const char *sender)
{
	const char *at = strrchr(sender, '@');
	int best = strcasecmp(mailbox->address, sender) == 0 ? 2 : 0;

	for (size_t i = 0; i < mailbox->senders.count; i++) {
		const char *pattern = mailbox->senders.item[i];

		if (strcasecmp(pattern, sender) == 0)
			return 3;
		if (best == 0 && pattern[0] == '*' && pattern[1] == '@' && at != NULL &&
		    strcasecmp(pattern + 1, at) == 0)
			best = 1;
	}
	return best;
}

const struct conf_mailbox *conf_mailbox_by_sender(const struct conf *conf, const char *sender)
{
	const struct conf_mailbox *best = NULL;
	int closest = 0;

	for (size_t i = 0; i < conf->mailboxes; i++) {
		const struct conf_mailbox *mailbox = &conf->mailbox[i];
		int close = sender[0] == '\0' ? 0 : claims(mailbox, sender);

		if (close > closest) {
			closest = close;
			best = mailbox;
		} else if (best == NULL && mailbox->is_default) {
			best = mailbox;
		}
	}
	return best;
}

bool conf_is_sender(const struct conf_mailbox *mailbox, const char *sender)
{
	return claims(mailbox, sender) > 0;
}

bool conf_is_priority_sender(const struct conf_mailbox *mailbox, const char *sender)
{
	const struct conf_list *list = &mailbox->priority_senders;
	const char *at = strrchr(sender, '@');

	for (size_t i = 0; i < list->count && at != NULL; i++) {
		const char *pattern = list->item[i];

		if (strcasecmp(pattern, sender) == 0 ||
		    (pattern[0] == '*' && strcasecmp(pattern + 1, at) == 0))
			return true;
	}
	return false;
}

int64_t conf_ordinary_recipients(const struct conf_mailbox *mailbox)
{
	return mailbox->recipients_per_day -
	       mailbox->recipients_per_day * mailbox->reserve_for_priority / 100;
}

bool conf_is_external(const struct conf_mailbox *mailbox, const char *recipient)
{
	const char *at = strrchr(recipient, '@');

	if (at == NULL || at[1] == '\0' || mailbox->tenant == NULL)
		return false;
	for (size_t i = 0; i < mailbox->tenant->accepted_domains.count; i++)
		if (strcasecmp(mailbox->tenant->accepted_domains.item[i], at + 1) == 0)
			return false;
	return true;
}
