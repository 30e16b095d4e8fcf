/* Bodies of type application/x-www-form-urlencoded, and queries of URLs. */
#ifndef RELAY365_TOKEN_FORM_H
#define RELAY365_TOKEN_FORM_H

#include "base/buf.h"

/* Adds "&name=value", every byte of value but RFC 3986's unreserved ones percent-encoded. */
int form_add(struct buf *form, const char *name, const char *value, size_t len);
int form_add_text(struct buf *form, const char *name, const char *value);

/* Decodes the value of name in a query ("a=b&c=d"); -1 when it is missing or too long. */
int form_get(const char *query, const char *name, char *value_r, size_t cap);

#endif
