/* Text of strangers, made fit for one log line. Pure; any thread may call it. */
#ifndef RELAY365_PROTO_PRINTABLE_H
#define RELAY365_PROTO_PRINTABLE_H

#include <stddef.h>

/*
 * Copies len bytes of text: printable ASCII stays, any other byte becomes "?",
 * and what does not fit in cap - 1 bytes is cut, with "..." as its end. to is
 * NUL-terminated; cap is at least 4.
 */
void printable(const char *text, size_t len, char *to, size_t cap);

#endif
