#include "token/grant.h"

#include "token/assertion.h"

#include "base/buf.h"
#include "base/file.h"

#include <sys/stat.h>

enum { FORM_MAX = 60000 };

/* Every byte but the unreserved ones of RFC 3986 is percent-encoded. */
static int add_encoded(struct buf *form, const char *value, size_t len)
{
	static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					 "0123456789-._~";

	for (size_t i = 0; i < len; i++) {
		char hex[4];

		if (value[i] != '\0' && strchr(unreserved, value[i]) != NULL) {
			if (buf_add(form, &value[i], 1) < 0)
				return -1;
			continue;
		}
		(void)snprintf(hex, sizeof(hex), "%%%02X", (unsigned char)value[i]);
		if (buf_add(form, hex, 3) < 0)
			return -1;
	}
	return 0;
}

static int add_field(struct buf *form, const char *name, const char *value, size_t len)
{
	if (form->len > 0 && buf_add(form, "&", 1) < 0)
		return -1;
	if (buf_adds(form, name) < 0 || buf_add(form, "=", 1) < 0)
		return -1;
	return add_encoded(form, value, len);
}

static int add_text(struct buf *form, const char *name, const char *value)
{
	return add_field(form, name, value, strlen(value));
}

static int add_secret(struct buf *form, const struct conf_tenant *tenant, struct err *err)
{
	struct secret secret = SECRET_INIT;
	int result = -1;

	if (file_read_secret(tenant->secret_file, &secret, err) < 0)
		return -1;
	secret_trim(&secret);
	if (!secret_is_set(&secret))
		err_set(err, ERR_CONFIG, "%s is empty; put the client secret's value into it",
			tenant->secret_file);
	else if (add_field(form, "client_secret", secret.data, secret.len) == 0)
		result = 0;
	else
		err_set(err, ERR_CONFIG, "%s is too large for a client secret",
			tenant->secret_file);
	secret_clear(&secret);
	return result;
}

static int add_assertion(struct buf *form, const struct conf_tenant *tenant, int64_t now_wall_ms,
			 struct err *err)
{
	const struct assertion assertion = {tenant->certificate, tenant->private_key,
					    tenant->token_endpoint, tenant->client_id};
	struct secret jwt = SECRET_INIT;
	int result = -1;

	if (assertion_make(&assertion, now_wall_ms / 1000, &jwt, err) < 0)
		return -1;
	if (add_text(form, "client_assertion_type",
		     "urn:ietf:params:oauth:client-assertion-type:jwt-bearer") == 0 &&
	    add_field(form, "client_assertion", jwt.data, jwt.len) == 0)
		result = 0;
	else
		err_set(err, ERR_PERM, "the signed assertion is too large");
	secret_clear(&jwt);
	return result;
}

int grant_form(const struct conf_tenant *tenant, int64_t now_wall_ms, struct secret *form_r,
	       struct err *err)
{
	struct buf form = BUF_INIT(FORM_MAX);
	int result = -1;

	if (add_text(&form, "grant_type", "client_credentials") < 0 ||
	    add_text(&form, "client_id", tenant->client_id) < 0 ||
	    add_text(&form, "scope", tenant->scope) < 0) {
		err_set(err, ERR_CONFIG, "client_id or scope is too long");
		goto out;
	}
	if (tenant->secret_file[0] != '\0')
		result = add_secret(&form, tenant, err);
	else
		result = add_assertion(&form, tenant, now_wall_ms, err);
	if (result == 0 && secret_set(form_r, buf_text(&form), form.len) < 0)
		result = err_set(err, ERR_TEMP, "no memory for the request");
out:
	buf_clear(&form);
	return result;
}

const char *grant_name(const struct conf_tenant *tenant)
{
	return tenant->secret_file[0] != '\0' ? "secret" : "certificate";
}

static uint64_t mix(uint64_t hash, const char *path)
{
	struct stat st;

	if (path[0] == '\0' || stat(path, &st) < 0)
		return hash * 31 + 1;
	hash = hash * 1000003 + (uint64_t)st.st_ino;
	hash = hash * 1000003 + (uint64_t)st.st_size;
	/* Not mtime: a mode that was mended counts too. */
	hash = hash * 1000003 + (uint64_t)st.st_ctim.tv_sec;
	return hash * 1000003 + (uint64_t)st.st_ctim.tv_nsec;
}

uint64_t grant_fingerprint(const struct conf_tenant *tenant)
{
	return mix(mix(mix(7, tenant->secret_file), tenant->certificate), tenant->private_key);
}
