#include "base/hash.h"

uint64_t hash_mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * UINT64_C(0x9fb21c651e98df25);
	a ^= a >> 32;
	a *= UINT64_C(0xd6e8feb86659fd93);
	return a ^ (a >> 29);
}

uint64_t hash_bytes(const uint64_t seed[2], const void *data, size_t len)
{
	const unsigned char *at = data;
	uint64_t h = seed[0] ^ len, part;

	for (; len >= sizeof(part); at += sizeof(part), len -= sizeof(part)) {
		memcpy(&part, at, sizeof(part));
		h = hash_mix(h, part ^ seed[1]);
	}
	part = 0;
	if (len > 0)
		memcpy(&part, at, len);
	return hash_mix(hash_mix(h, part ^ seed[1]), seed[0]);
}
