/*
 * The JWT that proves an application's identity with its certificate: RFC 7523
 * section 2.2, and "Microsoft identity platform application authentication
 * certificate credentials". Only assertion.c includes
 * OpenSSL here.
 */
#ifndef RELAY365_TOKEN_ASSERTION_H
#define RELAY365_TOKEN_ASSERTION_H

#include "base/err.h"
#include "base/secret.h"

#include <stdbool.h>
#include <stdint.h>

#define ASSERTION_LIFETIME_S 600 /* Microsoft advises 5 to 10 minutes */

struct assertion {
	const char *certificate;     /* PEM file */
	const char *private_key;     /* PEM file */
	const char *passphrase_file; /* NULL or "": the key is not encrypted */
	bool rs256;		     /* RS256 with x5t instead of PS256 with x5t#S256 */
	const char *audience;	     /* the token endpoint */
	const char *client_id;
};

/*
 * Reads certificate and key anew (so that replaced files count at once), checks
 * that they belong together and that the certificate is valid at now_s
 * (seconds since 1970), and signs. Errors name the file and what to do.
 */
int assertion_make(const struct assertion *assertion, int64_t now_s, struct secret *jwt_r,
		   struct err *err);

/* When the certificate in a PEM file ends, in seconds since 1970; -1 with err. */
int64_t assertion_expires_s(const char *certificate, struct err *err);

/*
 * For sign-ins by browser (RFC 7636, section 4): a random verifier and its S256
 * challenge, and random text for whoever needs some.
 */
#define ASSERTION_RANDOM_MAX 64 /* bytes of each text, with the NUL */
int assertion_random(char text_r[ASSERTION_RANDOM_MAX]);
int assertion_challenge(const char *verifier, char challenge_r[ASSERTION_RANDOM_MAX]);

#endif
