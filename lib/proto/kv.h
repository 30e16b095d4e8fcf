/*
 * Messages of key=value lines, ended by an empty line: the token protocol
 * (relay365-token(7)) and the head of the control protocol.
 *
 *   relay365=1\n
 *   verb=lease\n
 *   mailbox=relay@contoso.com\n
 *   \n
 *
 * A codec only: no I/O, no allocation, no libc beyond string.h, because the
 * SASL plugin links it too. Keys are [a-z0-9_]+, each once in a message;
 * values are any bytes but NUL, CR and LF. Unknown keys are the reader's to
 * ignore; an empty line alone is a message without pairs. Nothing here keeps
 * state, so every function may be called from any thread.
 */
#ifndef RELAY365_PROTO_KV_H
#define RELAY365_PROTO_KV_H

#include <stdbool.h>
#include <stddef.h>

#define KV_MESSAGE_MAX 32768 /* bytes, the empty line included */
#define KV_PAIRS_MAX 64
#define KV_VERSION "1" /* value of the key relay365, first in each request */

/* One pair; both point into the data that was parsed and end with no NUL. */
struct kv_pair {
	const char *key;
	size_t key_len;
	const char *value;
	size_t value_len;
};

struct kv_message {
	struct kv_pair pair[KV_PAIRS_MAX];
	size_t count;
};

enum kv_result {
	KV_OK,	 /* a whole message was parsed */
	KV_MORE, /* it is not all there yet */
	KV_BAD	 /* not a message, or over a limit: close the connection */
};

/*
 * Parses the first message in data. With KV_OK, *used_r is its length with
 * the empty line, and message_r points into data, which must outlive it. With
 * KV_MORE, read on and call again with all of the data from its start. KV_BAD
 * is said as soon as no further byte could mend it: a CR or NUL, a line without
 * a key and "=", a doubled key, a pair or a byte too many.
 */
enum kv_result kv_parse(const char *data, size_t len, struct kv_message *message_r,
			size_t *used_r);

/* The pair with this key, or NULL. */
const struct kv_pair *kv_find(const struct kv_message *message, const char *key);

/* Whether the key is there with just this value. */
bool kv_is(const struct kv_message *message, const char *key, const char *value);

/*
 * Copies a value to a NUL-terminated string. Returns -1 when the key is
 * missing, -2 when the value does not fit in cap - 1 bytes, else its length.
 */
int kv_copy(const struct kv_message *message, const char *key, char *to, size_t cap);

/*
 * A non-negative decimal number of at most 15 digits. Returns -1 when the key
 * is missing, -2 when it is not such a number, else 0.
 */
int kv_number(const struct kv_message *message, const char *key, long long *number_r);

/*
 * Appends "key=value\n" at *at in a buffer of cap bytes and moves *at. Returns
 * -1, with *at unchanged, when it does not fit, the key is none, or the value
 * has a NUL, CR or LF in it. Adds no NUL.
 */
int kv_put(char *to, size_t cap, size_t *at, const char *key, const char *value,
	   size_t value_len);

/* Appends the empty line. Returns -1 when it does not fit. */
int kv_end(char *to, size_t cap, size_t *at);

#endif
