#include "token/grant.h"

#include "token/assertion.h"
#include "token/form.h"

#include "base/file.h"

#include <sys/stat.h>

enum { FORM_MAX = 60000 };

static bool is_set(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* ---- the application's credential ---- */

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
	else if (form_add(form, "client_secret", secret.data, secret.len) == 0)
		result = 0;
	else
		err_set(err, ERR_CONFIG, "%s is too large for a client secret",
			tenant->secret_file);
	secret_clear(&secret);
	return result;
}

static int add_jwt(struct buf *form, const struct secret *jwt, struct err *err)
{
	if (form_add_text(form, "client_assertion_type",
			  "urn:ietf:params:oauth:client-assertion-type:jwt-bearer") == 0 &&
	    form_add(form, "client_assertion", jwt->data, jwt->len) == 0)
		return 0;
	return err_set(err, ERR_PERM, "the assertion is too large");
}

static int add_assertion(struct buf *form, const struct grant *grant, int64_t now_wall_ms,
			 struct err *err)
{
	const struct conf_tenant *tenant = grant->tenant;
	const struct assertion assertion = {
		.certificate = grant->next ? tenant->next_certificate : tenant->certificate,
		.private_key = grant->next ? tenant->next_private_key : tenant->private_key,
		.passphrase_file = tenant->passphrase_file,
		.rs256 = tenant->signature_rs256,
		.audience = tenant->token_endpoint,
		.client_id = tenant->client_id};
	struct secret jwt = SECRET_INIT;
	int result = -1;

	if (assertion_make(&assertion, now_wall_ms / 1000, &jwt, err) == 0)
		result = add_jwt(form, &jwt, err);
	secret_clear(&jwt);
	return result;
}

/* Read each time: its issuer replaces it before it ends. */
static int add_federated(struct buf *form, const struct conf_tenant *tenant, struct err *err)
{
	const char *path = tenant->federated_token_file;
	struct secret jwt = SECRET_INIT;
	int result = -1;

	if (file_read_secret(path, &jwt, err) < 0)
		return -1;
	secret_trim(&jwt);
	if (secret_is_set(&jwt) && strlen(jwt.data) == jwt.len && strchr(jwt.data, '.') != NULL &&
	    jwt.data[strcspn(jwt.data, " \t\r\n")] == '\0')
		result = add_jwt(form, &jwt, err);
	else
		err_set(err, ERR_CONFIG, "%s holds no token; is whoever should renew it running?",
			path);
	secret_clear(&jwt);
	return result;
}

static int add_credential(struct buf *form, const struct grant *grant, int64_t now_wall_ms,
			  struct err *err)
{
	const struct conf_tenant *tenant = grant->tenant;

	if (is_set(tenant->secret_file))
		return add_secret(form, tenant, err);
	if (is_set(tenant->federated_token_file))
		return add_federated(form, tenant, err);
	if (is_set(tenant->certificate))
		return add_assertion(form, grant, now_wall_ms, err);
	return 0; /* a public client, for which users sign in */
}

/* ---- requests ---- */

static int add_head(struct buf *form, const struct conf_tenant *tenant, const char *type,
		    bool scope, struct err *err)
{
	if ((type == NULL || form_add_text(form, "grant_type", type) == 0) &&
	    form_add_text(form, "client_id", tenant->client_id) == 0 &&
	    (!scope || form_add_text(form, "scope", tenant->scope) == 0))
		return 0;
	return err_set(err, ERR_CONFIG, "client_id or scope is too long");
}

/* Hands the form over, if all went well, and wipes it. */
static int finish(struct buf *form, int result, struct secret *form_r, struct err *err)
{
	if (result == 0 && secret_set(form_r, buf_text(form), form->len) < 0)
		result = err_set(err, ERR_TEMP, "no memory for the request");
	buf_clear(form);
	return result;
}

int grant_form(const struct grant *grant, int64_t now_wall_ms, struct secret *form_r,
	       struct err *err)
{
	const char *type = grant->tenant->delegated ? "refresh_token" : "client_credentials";
	struct buf form = BUF_INIT(FORM_MAX);
	int result = add_head(&form, grant->tenant, type, true, err);

	if (result == 0 && grant->tenant->delegated &&
	    (grant->refresh == NULL ||
	     form_add(&form, "refresh_token", grant->refresh->data, grant->refresh->len) < 0))
		result = err_set(err, ERR_PERM, "there is no refresh token of usual size");
	if (result == 0)
		result = add_credential(&form, grant, now_wall_ms, err);
	return finish(&form, result, form_r, err);
}

int grant_device_form(const struct conf_tenant *tenant, struct secret *form_r, struct err *err)
{
	struct buf form = BUF_INIT(FORM_MAX);

	return finish(&form, add_head(&form, tenant, NULL, true, err), form_r, err);
}

int grant_device_poll_form(const struct grant *grant, const struct secret *device_code,
			   int64_t now_wall_ms, struct secret *form_r, struct err *err)
{
	struct buf form = BUF_INIT(FORM_MAX);
	int result = add_head(&form, grant->tenant,
			      "urn:ietf:params:oauth:grant-type:device_code", false, err);

	if (result == 0 &&
	    form_add(&form, "device_code", device_code->data, device_code->len) < 0)
		result = err_set(err, ERR_PERM, "the device code is too long");
	if (result == 0)
		result = add_credential(&form, grant, now_wall_ms, err);
	return finish(&form, result, form_r, err);
}

int grant_code_form(const struct grant *grant, const char *code, const char *verifier,
		    int64_t now_wall_ms, struct secret *form_r, struct err *err)
{
	struct buf form = BUF_INIT(FORM_MAX);
	int result = add_head(&form, grant->tenant, "authorization_code", true, err);

	if (result == 0 && (form_add_text(&form, "code", code) < 0 ||
			    form_add_text(&form, "redirect_uri", GRANT_REDIRECT) < 0 ||
			    form_add_text(&form, "code_verifier", verifier) < 0))
		result = err_set(err, ERR_PERM, "the code is too long");
	if (result == 0)
		result = add_credential(&form, grant, now_wall_ms, err);
	return finish(&form, result, form_r, err);
}

/* ---- URLs ---- */

static int put_url(const char *endpoint, struct buf *query, char url_r[GRANT_URL_MAX],
		   struct err *err)
{
	int n = query->overflowed
			? -1
			: snprintf(url_r, GRANT_URL_MAX, "%s%s%s", endpoint,
				   strchr(endpoint, '?') == NULL ? "?" : "&", buf_text(query));

	buf_clear(query);
	return n >= 0 && n < GRANT_URL_MAX
		       ? 0
		       : err_set(err, ERR_CONFIG, "the endpoint or the scope is too long");
}

int grant_managed_url(const struct conf_tenant *tenant, char url_r[GRANT_URL_MAX],
		      struct err *err)
{
	static const char suffix[] = "/.default";
	size_t len = strlen(tenant->scope), cut = strlen(suffix);
	struct buf query = BUF_INIT(GRANT_URL_MAX);

	if (len > cut && strcmp(tenant->scope + len - cut, suffix) == 0)
		len -= cut;
	(void)form_add_text(&query, "api-version", "2018-02-01");
	(void)form_add(&query, "resource", tenant->scope, len);
	if (is_set(tenant->client_id))
		(void)form_add_text(&query, "client_id", tenant->client_id);
	return put_url(tenant->token_endpoint, &query, url_r, err);
}

int grant_authorize_url(const struct conf_tenant *tenant, const char *address, const char *state,
			const char *challenge, char url_r[GRANT_URL_MAX], struct err *err)
{
	struct buf query = BUF_INIT(GRANT_URL_MAX);

	(void)form_add_text(&query, "client_id", tenant->client_id);
	(void)form_add_text(&query, "response_type", "code");
	(void)form_add_text(&query, "redirect_uri", GRANT_REDIRECT);
	(void)form_add_text(&query, "response_mode", "query");
	(void)form_add_text(&query, "scope", tenant->scope);
	(void)form_add_text(&query, "state", state);
	(void)form_add_text(&query, "code_challenge", challenge);
	(void)form_add_text(&query, "code_challenge_method", "S256");
	(void)form_add_text(&query, "prompt", "select_account");
	(void)form_add_text(&query, "login_hint", address);
	return put_url(tenant->authorize_endpoint, &query, url_r, err);
}

/* ---- about it ---- */

const char *grant_name(const struct conf_tenant *tenant)
{
	if (tenant->delegated)
		return "delegated";
	if (tenant->managed_identity)
		return "managed identity";
	if (is_set(tenant->federated_token_file))
		return "federated";
	return is_set(tenant->secret_file) ? "secret" : "certificate";
}

static uint64_t mix(uint64_t hash, const char *path)
{
	struct stat st;

	if (!is_set(path) || stat(path, &st) < 0)
		return hash * 31 + 1;
	hash = hash * 1000003 + (uint64_t)st.st_ino;
	hash = hash * 1000003 + (uint64_t)st.st_size;
	/* Not mtime: a mode that was mended counts too. */
	hash = hash * 1000003 + (uint64_t)st.st_ctim.tv_sec;
	return hash * 1000003 + (uint64_t)st.st_ctim.tv_nsec;
}

uint64_t grant_fingerprint(const struct conf_tenant *tenant)
{
	const char *const files[] = {tenant->secret_file,	   tenant->certificate,
				     tenant->private_key,	   tenant->passphrase_file,
				     tenant->next_certificate,	   tenant->next_private_key,
				     tenant->federated_token_file, tenant->proxy_secret_file};
	uint64_t hash = 7;

	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		hash = mix(hash, files[i]);
	return hash;
}
