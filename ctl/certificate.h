/* A new key and self-signed certificate for a tenant's application. */
#ifndef RELAY365_CTL_CERTIFICATE_H
#define RELAY365_CTL_CERTIFICATE_H

#include "base/err.h"

enum { CERTIFICATE_DAYS = 730, CERTIFICATE_BITS = 3072, CERTIFICATE_THUMBPRINT_SIZE = 41 };

struct certificate_facts {
	char thumbprint[CERTIFICATE_THUMBPRINT_SIZE]; /* SHA-1 in hex, as Entra shows it */
	char not_after[32];			      /* "2028-11-25" */
};

/*
 * Makes an RSA key and a certificate with this common name, and writes both as
 * PEM: the key with mode 0600, the certificate 0644. Neither may exist.
 */
int certificate_make(const char *certificate, const char *key, const char *name, struct err *err);

/* What Entra will show of a certificate that is there. */
int certificate_read(const char *certificate, struct certificate_facts *facts, struct err *err);

#endif
