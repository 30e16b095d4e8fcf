#include "base/compat.h"

#include "fuzz.h"

#include "postfix/socketmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	const char *data = (const char *)bytes;
	struct socketmap_request request, again;
	size_t used, ignored;

	if (socketmap_parse(data, size, &request, &used) != SOCKETMAP_OK)
		return 0;
	must(used > 0 && used <= size);
	must(request.name > data && request.key + request.key_len == data + used - 1);
	must(request.name + request.name_len + 1 == request.key);
	must(memchr(request.name, ' ', request.name_len) == NULL);
	must(memchr(request.name, '\0', request.name_len + request.key_len) == NULL);
	must(socketmap_parse(data, used, &again, &ignored) == SOCKETMAP_OK);
	must(ignored == used);
	must(socketmap_parse(data, used - 1, &again, &ignored) == SOCKETMAP_MORE);
	return 0;
}
