/*
 * A fast 64-bit hash of bytes, for tables and to tell torn data from whole.
 * Whoever does not know the seed can't choose inputs that collide; it is no
 * signature. The same seed and bytes give the same value on the same kind of
 * machine. Pure.
 */
#ifndef RELAY365_BASE_HASH_H
#define RELAY365_BASE_HASH_H

#include "base/compat.h"

#include <stddef.h>
#include <stdint.h>

uint64_t hash_mix(uint64_t a, uint64_t b);
uint64_t hash_bytes(const uint64_t seed[2], const void *data, size_t len);

#endif
