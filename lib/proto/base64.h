/* Base64 with padding (RFC 4648, section 4). Pure; any thread. */
#ifndef RELAY365_PROTO_BASE64_H
#define RELAY365_PROTO_BASE64_H

#include <stddef.h>

/* Bytes that the encoding of len bytes takes, without a NUL. */
#define BASE64_SIZE(len) (((len) + 2) / 3 * 4)

/* Writes BASE64_SIZE(len) bytes to to, and no NUL. Returns how many. */
size_t base64_encode(const void *data, size_t len, char *to);

#endif
