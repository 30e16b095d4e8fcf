/*
 * One entry point for each parser, as libFuzzer calls it:
 *
 *	clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/fuzz_kv.c ...
 *
 * standalone.c calls the same entry point without libFuzzer, from make check.
 * What must hold is checked with must(); a violation aborts.
 */
#ifndef RELAY365_TESTS_FUZZ_H
#define RELAY365_TESTS_FUZZ_H

#include "base/compat.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(condition)                                                                       \
	do {                                                                                  \
		if (!(condition)) {                                                           \
			(void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                              \
		}                                                                             \
	} while (0)

#endif
