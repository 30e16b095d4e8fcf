#include "base/compat.h"

#include "fuzz.h"

#include "milter/route.h"
#include "milter/sender.h"

#include "base/xalloc.h"

/* What is written of a field that was read is read again, and names the mailbox alone. */
static void check_change(const char *value)
{
	struct conf_mailbox mailbox = {.address = (char[]){"relay@contoso.com"}};
	struct sender_header header = {0};
	struct sender_change change;
	struct from from;

	sender_change_init(&change);
	sender_add_field(&header, "From", value);
	sender_change_header(&mailbox, &header, &change);
	must(!change.from.overflowed && !change.reply_to.overflowed);
	must(strchr(buf_text(&change.from), '\r') == NULL);
	for (const char *p = buf_text(&change.from); (p = strchr(p, '\n')) != NULL; p++)
		must(p[1] == ' ' || p[1] == '\t');
	if (change.from.len > 0 && change.from.len <= FROM_MAX) { /* else it stays */
		must(from_parse(buf_text(&change.from), change.from.len, &from) == 0);
		must(from.count == 1);
		must(strcmp(from.address[0].address, mailbox.address) == 0);
	}
	sender_change_clear(&change);
	sender_header_clear(&header);
}

/* What an address was read as says the same when it is read again. */
static void check_envelope(const char *value)
{
	char once[FROM_ADDRESS_MAX + 1], again[FROM_ADDRESS_MAX + 1];
	char recipient[ROUTE_ADDRESS_MAX + 1];

	if (from_envelope(value, strlen(value), once) == 0) {
		must(once[0] != '\0' && strlen(once) <= FROM_ADDRESS_MAX);
		must(from_envelope(once, strlen(once), again) == 0);
		must(strcmp(once, again) == 0);
	}
	route_recipient(value, "contoso.com, !x.y, hash:/a", recipient);
	must(strlen(recipient) <= ROUTE_ADDRESS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	const char *data = (const char *)bytes;
	struct from from;
	char *value;

	if (from_parse(data, size, &from) == 0) {
		must(size <= FROM_MAX && from.count <= FROM_ADDRESSES_MAX);
		for (size_t i = 0; i < from.count; i++) {
			const struct from_address *a = &from.address[i];

			must(a->address[0] != '\0' && strlen(a->address) <= FROM_ADDRESS_MAX);
			must(a->name == NULL ||
			     (a->name >= data && a->name + a->name_len <= data + size));
		}
	}
	value = xstrndup(data, size);
	check_change(value);
	check_envelope(value);
	free(value);
	return 0;
}
