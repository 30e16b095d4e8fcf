#include "token/mailbox_private.h"

#include "base/clock.h"
#include "base/xalloc.h"

#include <errno.h>
#include <signal.h>

enum { LOOK_AT_LEFT_MS = 1000, LEFT_DELIVERED_MS = 2000 };

/* A sending slot that is taken: by a lease of ours, or by one that an earlier tokend granted. */
struct slot {
	struct lease_entry entry;
	int page;	       /* in the book */
	struct slot **holder;  /* the lease's pointer to this; NULL: an earlier tokend's */
	int64_t until_boot_ms; /* an earlier tokend's: when it is taken for over */
	struct slot *next;
};

static struct slot *add(struct mailbox *mailbox, const struct lease_entry *entry, int page)
{
	struct slot *slot = xcalloc(1, sizeof(*slot));

	slot->entry = *entry;
	slot->entry.address = mailbox->address;
	slot->page = page;
	slot->next = mailbox->slots;
	mailbox->slots = slot;
	mailbox->open++;
	mailbox->reserved += entry->recipients;
	return slot;
}

void mailbox_open_slot(struct mailbox *mailbox, const struct lease_entry *entry,
		       struct slot **holder)
{
	*holder = add(mailbox, entry, lease_book_add(mailbox->book, entry));
	(*holder)->holder = holder;
}

void mailbox_close_slot(struct mailbox *mailbox, struct slot *slot)
{
	struct slot **at = &mailbox->slots;

	while (*at != slot)
		at = &(*at)->next;
	*at = slot->next;
	if (slot->holder != NULL)
		*slot->holder = NULL;
	lease_book_strike(mailbox->book, slot->page);
	mailbox->open--;
	mailbox->reserved -= slot->entry.recipients;
	free(slot);
}

void mailbox_forget_slots(struct mailbox *mailbox)
{
	loop_timer_stop(mailbox->loop, &mailbox->left_timer);
	while (mailbox->slots != NULL) {
		struct slot *slot = mailbox->slots;

		mailbox->slots = slot->next;
		free(slot);
	}
}

/* ---- by name ---- */

static struct slot *find(const struct mailbox *mailbox, const char *name)
{
	struct slot *slot = name[0] == '\0' ? NULL : mailbox->slots;

	while (slot != NULL && strcmp(slot->entry.name, name) != 0)
		slot = slot->next;
	return slot;
}

enum lease_told mailbox_tell(struct mailbox *mailbox, const char *name, const char *status)
{
	struct slot *slot = find(mailbox, name);

	if (slot == NULL || !mailbox_is_delivery(status))
		return LEASE_UNKNOWN;
	if (slot->entry.told)
		return LEASE_TOLD_BEFORE;
	slot->entry.told = true;
	lease_book_tell(mailbox->book, slot->page);
	return LEASE_TOLD;
}

void mailbox_end_lease(struct mailbox *mailbox, const char *name)
{
	struct slot *slot = find(mailbox, name);

	if (slot == NULL)
		return;
	mailbox_close_slot(mailbox, slot);
	mailbox_pump(mailbox);
}

/* ---- leases that an earlier tokend granted ---- */

void mailbox_end_left(struct mailbox *mailbox, pid_t pid)
{
	struct slot *slot = mailbox->slots;

	while (slot != NULL) {
		struct slot *next = slot->next;
		const struct lease_entry *entry = &slot->entry;

		if (slot->holder == NULL && ((entry->pid == pid && !entry->shared) ||
					     clock_boot_ms() >= slot->until_boot_ms ||
					     (kill(entry->pid, 0) < 0 && errno == ESRCH)))
			mailbox_close_slot(mailbox, slot);
		slot = next;
	}
}

static bool has_left(const struct mailbox *mailbox)
{
	const struct slot *slot = mailbox->slots;

	while (slot != NULL && slot->holder != NULL)
		slot = slot->next;
	return slot != NULL;
}

void mailbox_look_at_left(struct loop_timer *timer)
{
	struct mailbox *mailbox = timer->owner;

	mailbox_end_left(mailbox, 0);
	if (has_left(mailbox))
		loop_timer_in(mailbox->loop, timer, LOOK_AT_LEFT_MS);
	mailbox_pump(mailbox);
}

/*
 * A session carries one message, and this one is delivered: it ends as soon as
 * the status of its other recipients has been asked for too. The process may
 * then idle for minutes, holding up others. One that holds several leases tells
 * of each message once, so only one ends.
 */
void mailbox_left_ends(struct mailbox *mailbox, pid_t pid, int recipients)
{
	int64_t until_ms = clock_boot_ms() + LEFT_DELIVERED_MS;

	for (struct slot *slot = mailbox->slots; slot != NULL; slot = slot->next) {
		const struct lease_entry *entry = &slot->entry;

		if (slot->holder != NULL || entry->pid != pid ||
		    slot->until_boot_ms <= until_ms ||
		    (entry->shared && entry->recipients < recipients))
			continue;
		slot->until_boot_ms = until_ms;
		if (entry->shared)
			return;
	}
}

void mailbox_add_left(struct mailbox *mailbox, const struct lease_entry *entry, int page)
{
	struct slot *slot = add(mailbox, entry, page);

	slot->until_boot_ms = clock_boot_ms() + LEASE_LEFT_MS;
	loop_timer_in(mailbox->loop, &mailbox->left_timer, LOOK_AT_LEFT_MS);
}
