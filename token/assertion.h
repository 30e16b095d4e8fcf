/*
 * The JWT that proves an application's identity with its certificate: RFC 7523
 * section 2.2, and "Microsoft identity platform application authentication
 * certificate credentials" (alg PS256, x5t#S256). Only assertion.c includes
 * OpenSSL here.
 */
#ifndef RELAY365_TOKEN_ASSERTION_H
#define RELAY365_TOKEN_ASSERTION_H

#include "base/err.h"
#include "base/secret.h"

#include <stdint.h>

#define ASSERTION_LIFETIME_S 600 /* Microsoft advises 5 to 10 minutes */

struct assertion {
	const char *certificate; /* PEM file */
	const char *private_key; /* PEM file, not encrypted */
	const char *audience;	 /* the token endpoint */
	const char *client_id;
};

/*
 * Reads certificate and key anew (so that replaced files count at once), checks
 * that they belong together and that the certificate is valid at now_s
 * (seconds since 1970), and signs. Errors name the file and what to do.
 */
int assertion_make(const struct assertion *assertion, int64_t now_s, struct secret *jwt_r,
		   struct err *err);

#endif
