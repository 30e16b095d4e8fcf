#include "base/compat.h"

#include "fuzz.h"

#include "proto/kv.h"

static void check_message(const char *data, size_t used, const struct kv_message *message)
{
	static char again[KV_MESSAGE_MAX];
	size_t at = 0;
	char value[16];
	long long n;

	must(message->count <= KV_PAIRS_MAX);
	for (size_t i = 0; i < message->count; i++) {
		const struct kv_pair *pair = &message->pair[i];
		char key[KV_MESSAGE_MAX];

		must(pair->key >= data && pair->value + pair->value_len < data + used);
		memcpy(key, pair->key, pair->key_len);
		key[pair->key_len] = '\0';
		must(kv_find(message, key) == pair);
		must(kv_put(again, sizeof(again), &at, key, pair->value, pair->value_len) == 0);
		if (kv_copy(message, key, value, sizeof(value)) >= 0)
			must(strlen(value) == pair->value_len);
		if (kv_number(message, key, &n) == 0)
			must(n >= 0);
	}
	must(kv_end(again, sizeof(again), &at) == 0);
	/* Written again it is the same, byte for byte. */
	must(at == used && memcmp(again, data, used) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	const char *data = (const char *)bytes;
	struct kv_message message, shorter;
	size_t used, ignored;
	enum kv_result result = kv_parse(data, size, &message, &used);

	if (result != KV_OK) {
		must(used == 0);
		return 0;
	}
	must(used > 0 && used <= size && used <= KV_MESSAGE_MAX);
	check_message(data, used, &message);
	must(kv_parse(data, used, &shorter, &ignored) == KV_OK && ignored == used);
	must(kv_parse(data, used - 1, &shorter, &ignored) == KV_MORE);
	return 0;
}
