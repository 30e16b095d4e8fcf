/*
 * How a token is asked for: the request to the token endpoint. RFC 6749
 * sections 4.1, 4.4 and 6 with a client secret, a signed assertion (RFC 7523)
 * or another issuer's token; RFC 8628 for device codes; and the metadata
 * service of an Azure machine.
 */
#ifndef RELAY365_TOKEN_GRANT_H
#define RELAY365_TOKEN_GRANT_H

#include "conf/conf.h"

#include "base/err.h"
#include "base/secret.h"

#include <stdbool.h>

#define GRANT_URL_MAX 4200 /* bytes: an endpoint of 2,000 and an encoded scope */

struct grant {
	const struct conf_tenant *tenant;
	bool next;		      /* use next_certificate */
	const struct secret *refresh; /* the user's refresh token; NULL: no user signed in */
};

/*
 * Reads the credential's files and composes the form. Not for managed
 * identities, whose request has no body.
 */
int grant_form(const struct grant *grant, int64_t now_wall_ms, struct secret *form_r,
	       struct err *err);

/* The URL to ask for a managed identity's token, and the header line that goes with it. */
int grant_managed_url(const struct conf_tenant *tenant, char url_r[GRANT_URL_MAX],
		      struct err *err);
#define GRANT_MANAGED_HEADER "Metadata: true"

/* The form that begins a sign-in with a device code. */
int grant_device_form(const struct conf_tenant *tenant, struct secret *form_r, struct err *err);

/* The form that asks whether the user has entered the code. */
int grant_device_poll_form(const struct grant *grant, const struct secret *device_code,
			   int64_t now_wall_ms, struct secret *form_r, struct err *err);

/* The form that exchanges what the browser was given. */
int grant_code_form(const struct grant *grant, const char *code, const char *verifier,
		    int64_t now_wall_ms, struct secret *form_r, struct err *err);

/* Where a browser is sent back to; nobody needs to listen there. */
#define GRANT_REDIRECT "http://localhost"

/* The page where a user signs in for this mailbox. */
int grant_authorize_url(const struct conf_tenant *tenant, const char *address, const char *state,
			const char *challenge, char url_r[GRANT_URL_MAX], struct err *err);

/* "secret", "certificate", "federated", "managed identity" or "delegated", for logs. */
const char *grant_name(const struct conf_tenant *tenant);

/* Changes whenever a file of the credential does: an admin may have mended it. */
uint64_t grant_fingerprint(const struct conf_tenant *tenant);

#endif
