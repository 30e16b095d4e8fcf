/*
 * How a tenant's application asks for a token: the body of the request to the
 * token endpoint (RFC 6749 section 4.4; client secret or signed assertion).
 */
#ifndef RELAY365_TOKEN_GRANT_H
#define RELAY365_TOKEN_GRANT_H

#include "conf/conf.h"

#include "base/err.h"
#include "base/secret.h"

#include <stdbool.h>

/* Reads the credential's files and composes the form. */
int grant_form(const struct conf_tenant *tenant, int64_t now_wall_ms, struct secret *form_r,
	       struct err *err);

/* "secret" or "certificate", for logs. */
const char *grant_name(const struct conf_tenant *tenant);

/* Changes whenever a file of the credential does: an admin may have mended it. */
uint64_t grant_fingerprint(const struct conf_tenant *tenant);

#endif
