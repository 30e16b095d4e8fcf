#include "milter/sender.h"

#include "base/xalloc.h"

#include <strings.h>

enum { LINE_ROOM = 600 }; /* bytes of a name that share a line with the address */

bool sender_reads_header(const struct conf *conf)
{
	for (size_t i = 0; i < conf->mailboxes; i++)
		if (conf->mailbox[i].other_senders != OTHERS_ACCEPT)
			return true;
	return false;
}

bool sender_rewrites(const struct conf *conf)
{
	for (size_t i = 0; i < conf->mailboxes; i++)
		if (conf->mailbox[i].other_senders == OTHERS_REWRITE)
			return true;
	return false;
}

void sender_add_field(struct sender_header *header, const char *name, const char *value)
{
	if (strcasecmp(name, "From") == 0) {
		if (header->froms++ == 0)
			header->from = xstrdup(value);
	} else if (strcasecmp(name, "Sender") == 0) {
		if (header->senders++ == 0)
			header->sender = xstrdup(value);
	} else if (strcasecmp(name, "DKIM-Signature") == 0) {
		header->signatures++;
	} else if (strcasecmp(name, "Reply-To") == 0) {
		header->reply_to = true;
	}
}

void sender_header_clear(struct sender_header *header)
{
	free(header->from);
	free(header->sender);
	memset(header, 0, sizeof(*header));
}

/* Whether a field, if it is there, names none but the mailbox's own senders. */
static bool is_own(const struct conf_mailbox *mailbox, const char *value, unsigned int fields,
		   struct from *from, char other_r[FROM_ADDRESS_MAX + 1])
{
	from->count = 0;
	other_r[0] = '\0';
	if (fields == 0)
		return true;
	if (fields > 1 || from_parse(value, strlen(value), from) < 0 || from->count == 0)
		return false;
	for (size_t i = 0; i < from->count; i++) {
		if (conf_is_sender(mailbox, from->address[i].address))
			continue;
		(void)snprintf(other_r, FROM_ADDRESS_MAX + 1, "%s", from->address[i].address);
		return false;
	}
	return true;
}

enum sender_verdict sender_judge(const struct conf_mailbox *mailbox,
				 const struct sender_header *header,
				 char other_r[FROM_ADDRESS_MAX + 1])
{
	struct from from;

	if (!is_own(mailbox, header->from, header->froms, &from, other_r))
		return SENDER_OTHER_FROM;
	if (!is_own(mailbox, header->sender, header->senders, &from, other_r))
		return SENDER_OTHER_SENDER;
	return SENDER_OWN;
}

/* One From of the mailbox's own, or several with a Sender that says who it is. */
static bool from_stays(const struct conf_mailbox *mailbox, const struct sender_header *header)
{
	char other[FROM_ADDRESS_MAX + 1];
	struct from from, sender;

	return header->froms == 1 && is_own(mailbox, header->from, 1, &from, other) &&
	       (from.count == 1 ||
		(header->senders == 1 && is_own(mailbox, header->sender, 1, &sender, other)));
}

bool sender_needs_change(const struct conf_mailbox *mailbox, const struct sender_header *header)
{
	char other[FROM_ADDRESS_MAX + 1];
	struct from sender;

	return !from_stays(mailbox, header) ||
	       !is_own(mailbox, header->sender, header->senders, &sender, other);
}

/* Whether an answer to all of these could arrive: they have domains that others can know. */
static bool can_be_answered(const struct from *from)
{
	for (size_t i = 0; i < from->count; i++) {
		const char *at = strrchr(from->address[i].address, '@');

		if (at == NULL || strchr(at, '.') == NULL)
			return false;
	}
	return from->count > 0;
}

/* A value that came folded, folded in the same places. */
static void add_folded(struct buf *text, const char *value)
{
	for (; *value != '\0'; value++) {
		bool folds = *value == '\n' && (value[1] == ' ' || value[1] == '\t');

		if (folds || *value == '\t' || ((unsigned char)*value >= 32 && *value != 127))
			(void)buf_add(text, value, 1);
	}
}

void sender_change_init(struct sender_change *change)
{
	change->envelope[0] = '\0';
	change->header = false;
	change->from = change->reply_to = (struct buf)BUF_INIT(SENDER_FIELD_MAX);
	change->froms = change->senders = change->signatures = 0;
}

void sender_change_header(const struct conf_mailbox *mailbox, const struct sender_header *header,
			  struct sender_change *change)
{
	const char *value = header->from == NULL ? "" : header->from;
	struct from from = {.count = 0};

	change->header = true;
	change->froms = header->froms;
	change->senders = header->senders;
	change->signatures = header->signatures;
	if (from_stays(mailbox, header))
		return;
	if (from_parse(value, strlen(value), &from) == 0 && from.count > 0) {
		from_add_name(&from.address[0], &change->from);
		if (!header->reply_to && header->froms == 1 && can_be_answered(&from))
			add_folded(&change->reply_to, value);
	}
	if (change->from.len == 0)
		(void)buf_adds(&change->from, mailbox->address);
	else
		(void)buf_addf(&change->from, "%s<%s>",
			       change->from.len > LINE_ROOM ? "\n\t" : " ", mailbox->address);
}

void sender_change_clear(struct sender_change *change)
{
	buf_clear(&change->from);
	buf_clear(&change->reply_to);
}
