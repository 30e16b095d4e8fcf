/* Mailboxes by name and by address: one may be looked up for each message, and there are many. */
#include "conf/conf_check.h"

#include "base/xalloc.h"

#include <strings.h>

struct name {
	const char *text;
	size_t len;
};

static int compare_names(const struct name *a, const struct name *b)
{
	int order = memcmp(a->text, b->text, a->len < b->len ? a->len : b->len);

	if (order != 0)
		return order;
	return a->len < b->len ? -1 : a->len > b->len;
}

static struct name name_of(const struct conf_mailbox *mailbox)
{
	return (struct name){mailbox->name, strlen(mailbox->name)};
}

static int by_name(const void *a, const void *b)
{
	const struct conf_mailbox *const *x = a, *const *y = b;
	const struct name left = name_of(*x), right = name_of(*y);

	return compare_names(&left, &right);
}

static int name_to_mailbox(const void *key, const void *item)
{
	const struct conf_mailbox *const *mailbox = item;
	const struct name have = name_of(*mailbox);

	return compare_names(key, &have);
}

static int by_address(const void *a, const void *b)
{
	const struct conf_mailbox *const *x = a, *const *y = b;

	return strcasecmp((*x)->address, (*y)->address);
}

static int address_to_mailbox(const void *key, const void *item)
{
	const struct conf_mailbox *const *mailbox = item;

	return strcasecmp(key, (*mailbox)->address);
}

static const struct conf_mailbox **sorted(const struct conf *conf,
					  int (*order)(const void *a, const void *b))
{
	const struct conf_mailbox **list =
		xcalloc(conf->mailboxes, sizeof(const struct conf_mailbox *));

	for (size_t i = 0; i < conf->mailboxes; i++)
		list[i] = &conf->mailbox[i];
	qsort(list, conf->mailboxes, sizeof(*list), order);
	return list;
}

void conf_index(struct conf *conf)
{
	conf->by_name = sorted(conf, by_name);
	conf->by_address = sorted(conf, by_address);
}

const struct conf_mailbox *conf_mailbox_by_name(const struct conf *conf, const char *name,
						size_t len)
{
	const struct name key = {name, len};
	const struct conf_mailbox *const *found = bsearch(
		&key, conf->by_name, conf->mailboxes, sizeof(*conf->by_name), name_to_mailbox);

	return found == NULL ? NULL : *found;
}

const struct conf_mailbox *conf_mailbox_by_address(const struct conf *conf, const char *address)
{
	const struct conf_mailbox *const *found =
		bsearch(address, conf->by_address, conf->mailboxes, sizeof(*conf->by_address),
			address_to_mailbox);

	return found == NULL ? NULL : *found;
}
