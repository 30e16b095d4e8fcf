#include "base/compat.h"

#include "fuzz.h"

#include "maillog/logline.h"

static bool is_inside(const struct logtext *text, const char *data, size_t size)
{
	return text->data >= data && text->len <= size && text->data + text->len <= data + size;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const char *const keys[] = {"from",  "to",     "client",	 "sasl_username",
					   "size",  "relay",  "status",	 "stat",
					   "limit", "reason", "ctladdr", "mailbox"};
	const char *data = (const char *)bytes;
	struct logtext value, list, address;
	struct logline line;

	if (!logline_parse(data, size, 1795689494000LL, &line))
		return 0;
	/* A bare event names no program. */
	must(data[0] == '{' || is_inside(&line.program, data, size));
	must(is_inside(&line.pid, data, size) && is_inside(&line.id, data, size));
	must(is_inside(&line.text, data, size) ||
	     is_inside(&line.text, line.own, sizeof(line.own)));
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (!logline_value(&line, keys[i], &value))
			continue;
		must(is_inside(&value, line.text.data, line.text.len));
		must(logline_behind(&line, keys[i], &list));
		for (size_t left = list.len + 1; logline_next_address(&list, &address);
		     left = list.len) {
			must(list.len < left);
			must(is_inside(&address, line.text.data, line.text.len));
			must(is_inside(&list, line.text.data, line.text.len));
		}
	}
	return 0;
}
