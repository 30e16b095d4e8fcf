/*
 * TLS to a server, on a non-blocking socket: TLS 1.2 or later, the chain and
 * the name verified (RFC 3207, RFC 8314).
 */
#ifndef RELAY365_TLS_TLS_H
#define RELAY365_TLS_TLS_H

#include "base/err.h"

#include <sys/types.h>

/*
 * From now on OpenSSL wipes what it frees: what it has read and written, and
 * keys. Of the whole process, libraries that use it included; called before
 * anything else of OpenSSL's.
 */
void tls_wipe_heap(void);

/* The authorities that vouch for servers; many threads may use one. */
struct tls_trust;

/* ca_file "": the system's. */
struct tls_trust *tls_trust_new(const char *ca_file, struct err *err);
void tls_trust_free(struct tls_trust **trust);

/* One connection; one thread. */
struct tls;

/* fd stays the caller's; trust must outlive it. host is what the certificate must name. */
struct tls *tls_new(struct tls_trust *trust, int fd, const char *host, struct err *err);

/* Tells the peer, as far as that goes without waiting, and frees. */
void tls_free(struct tls **tls);

/* 1: done; 0: call again when the socket is ready for tls_wants(); -1: err says why not. */
int tls_handshake(struct tls *tls, struct err *err);

/* How many bytes; 0: none before the socket is ready for tls_wants(); -1: the end. */
ssize_t tls_read(struct tls *tls, char *to, size_t cap);
ssize_t tls_write(struct tls *tls, const char *data, size_t len);

/* The poll(2) events that the last read (or write) waits for. */
short tls_read_wants(const struct tls *tls);
short tls_write_wants(const struct tls *tls);

#endif
