#include "conf/conf_check.h"

#include "base/file.h"
#include "base/xalloc.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

/*
 * Endpoints of Microsoft's clouds: "Authenticate an IMAP, POP or SMTP connection
 * using OAuth" and "National clouds" at learn.microsoft.com.
 */
static const struct cloud {
	const char *authority;
	const char *outlook; /* applications ask for all that they were given there */
	const char *sign_in; /* signed in users for one permission */
	const char *smtp_host;
} clouds[] = {
	[CLOUD_GLOBAL] = {"login.microsoftonline.com", "outlook.office365.com",
			  "outlook.office.com", "smtp.office365.com"},
	[CLOUD_USGOV] = {"login.microsoftonline.us", "outlook.office365.us",
			 "outlook.office365.us", "smtp.office365.us"},
	[CLOUD_CHINA] = {"login.partner.microsoftonline.cn", "partner.outlook.cn",
			 "partner.outlook.cn", "smtp.partner.outlook.cn"},
};

static bool is_set(const char *text)
{
	return text[0] != '\0';
}

/* ---- files, and systemd's credentials ---- */

static bool is_credential(const char *path)
{
	return strncmp(path, CONF_CREDENTIAL_PREFIX, strlen(CONF_CREDENTIAL_PREFIX)) == 0;
}

/*
 * "credential:NAME" is a file in the folder that systemd made for the service;
 * for programs outside of it, it can't be found, and stays as it is.
 */
static int resolve(char **path, struct err *err)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");
	const char *name = *path + strlen(CONF_CREDENTIAL_PREFIX);
	char *found;

	if (!is_credential(*path))
		return 0;
	if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
		return err_set(err, ERR_CONFIG, "\"%s\" names no credential of systemd", *path);
	if (folder == NULL)
		return 0;
	found = xasprintf("%s/%s", folder, name);
	free(*path);
	*path = found;
	return 0;
}

static int check_file(char **path, bool secret, struct err *err)
{
	if (!is_set(*path))
		return 0;
	if (resolve(path, err) < 0)
		return -1;
	if (is_credential(*path))
		return 0;
	if (secret)
		return file_check_secrecy(*path, err);
	/* As with secrets: who may not look there does not judge. */
	if (access(*path, F_OK) < 0 && errno != EACCES)
		return err_set(err, ERR_CONFIG, "cannot read %s: %s", *path, err_no(errno));
	return 0;
}

/* ---- credentials ---- */

static int check_pair(const char *certificate, const char *key, const char *prefix,
		      struct err *err)
{
	if (is_set(certificate) == is_set(key))
		return 0;
	return err_set(err, ERR_CONFIG,
		       "%scertificate and %sprivate_key go together; %s%s is missing", prefix,
		       prefix, prefix, is_set(certificate) ? "private_key" : "certificate");
}

static int check_kinds(const struct conf_tenant *tenant, struct err *err)
{
	bool secret = is_set(tenant->secret_file), managed = tenant->managed_identity;
	bool certificate = is_set(tenant->certificate) || is_set(tenant->private_key);
	bool federated = is_set(tenant->federated_token_file);

	if (secret && certificate)
		return err_set(err, ERR_CONFIG,
			       "has both secret_file and a certificate; keep the certificate");
	if (secret + certificate + federated + managed > 1)
		return err_set(err, ERR_CONFIG,
			       "has several credentials; keep one of certificate, secret_file, "
			       "federated_token_file and managed_identity");
	if (managed && tenant->delegated)
		return err_set(err, ERR_CONFIG,
			       "has delegated and managed_identity; a managed identity is no "
			       "user");
	if (secret + certificate + federated + managed == 0 && !tenant->delegated)
		return err_set(
			err, ERR_CONFIG,
			"has no credential; set certificate and private_key, or secret_file, or "
			"federated_token_file, managed_identity or delegated");
	if (!is_set(tenant->client_id) && !managed)
		return err_set(err, ERR_CONFIG,
			       "has no client_id: application (client) id of the app "
			       "registration");
	if (check_pair(tenant->certificate, tenant->private_key, "", err) < 0 ||
	    check_pair(tenant->next_certificate, tenant->next_private_key, "next_", err) < 0)
		return -1;
	if (is_set(tenant->next_certificate) && !certificate)
		return err_set(err, ERR_CONFIG,
			       "has a next_certificate without a certificate that comes before "
			       "it");
	return 0;
}

/* "2027-03-01" as seconds since 1970; -1 when it is no date. */
static int64_t date_of(const char *text)
{
	struct tm day = {0};
	const char *end = strptime(text, "%Y-%m-%d", &day);

	return end == NULL || *end != '\0' ? -1 : (int64_t)timegm(&day);
}

static int check_secret_expires(struct conf_tenant *tenant, struct err *err)
{
	if (!is_set(tenant->secret_expires))
		return 0;
	tenant->secret_expires_s = date_of(tenant->secret_expires);
	if (tenant->secret_expires_s <= 0)
		return err_set(err, ERR_CONFIG,
			       "secret_expires = \"%s\" is not a date like 2027-03-01",
			       tenant->secret_expires);
	if (!is_set(tenant->secret_file))
		return err_set(err, ERR_CONFIG, "has secret_expires without secret_file");
	return 0;
}

static int check_proxy(const struct conf_tenant *tenant, struct err *err)
{
	/* The file is for all to read, and messages show the address. */
	if (strchr(tenant->proxy, '@') != NULL)
		return err_set(err, ERR_CONFIG,
			       "has a name or password in proxy; write NAME:PASSWORD into a "
			       "file and set proxy_secret_file");
	if (is_set(tenant->proxy_secret_file) && !is_set(tenant->proxy))
		return err_set(err, ERR_CONFIG, "has proxy_secret_file without proxy");
	return 0;
}

static int check_credential(struct conf_tenant *tenant, struct err *err)
{
	if (check_kinds(tenant, err) < 0 || check_secret_expires(tenant, err) < 0 ||
	    check_proxy(tenant, err) < 0)
		return -1;
	if (check_file(&tenant->secret_file, true, err) < 0 ||
	    check_file(&tenant->certificate, false, err) < 0 ||
	    check_file(&tenant->private_key, true, err) < 0 ||
	    check_file(&tenant->next_certificate, false, err) < 0 ||
	    check_file(&tenant->next_private_key, true, err) < 0 ||
	    check_file(&tenant->passphrase_file, true, err) < 0 ||
	    check_file(&tenant->proxy_secret_file, true, err) < 0)
		return -1;
	/* Who makes this one makes it anew every hour: it may come later. */
	return resolve(&tenant->federated_token_file, err);
}

/* ---- clouds ---- */

static int check_url(const char *key, const char *url, bool plain, struct err *err)
{
	if (!is_set(url) || strncmp(url, "https://", 8) == 0 ||
	    (plain && strncmp(url, "http://", 7) == 0))
		return 0;
	return err_set(err, ERR_CONFIG, "%s must begin with https://", key);
}

static int check_custom_cloud(const struct conf_tenant *tenant, struct err *err)
{
	const struct {
		const char *key, *value;
	} needed[] = {
		{"token_endpoint", tenant->token_endpoint},
		{"scope", tenant->scope},
		{"smtp_host", tenant->smtp_host},
	};

	for (size_t i = 0; i < ARRAY_LEN(needed); i++)
		if (!is_set(needed[i].value))
			return err_set(err, ERR_CONFIG, "has cloud = \"custom\" and so needs %s",
				       needed[i].key);
	if (tenant->delegated && !is_set(tenant->device_endpoint) &&
	    !is_set(tenant->authorize_endpoint))
		return err_set(err, ERR_CONFIG,
			       "has cloud = \"custom\" and delegated, and so needs "
			       "device_endpoint or authorize_endpoint");
	/* A managed identity's endpoint is the machine's own, without TLS. */
	if (check_url("token_endpoint", tenant->token_endpoint, tenant->managed_identity, err) <
	    0)
		return -1;
	if (check_url("device_endpoint", tenant->device_endpoint, false, err) < 0)
		return -1;
	return check_url("authorize_endpoint", tenant->authorize_endpoint, false, err);
}

static void set(char **field, char *value)
{
	free(*field);
	*field = value;
}

static char *endpoint(const struct cloud *cloud, const struct conf_tenant *tenant,
		      const char *name)
{
	return xasprintf("https://%s/%s/oauth2/v2.0/%s", cloud->authority, tenant->id, name);
}

static int fill_cloud(struct conf_tenant *tenant, struct err *err)
{
	const struct cloud *cloud;

	if (tenant->cloud == CLOUD_CUSTOM)
		return check_custom_cloud(tenant, err);
	if (is_set(tenant->token_endpoint) || is_set(tenant->scope) ||
	    is_set(tenant->smtp_host) || is_set(tenant->device_endpoint) ||
	    is_set(tenant->authorize_endpoint))
		return err_set(
			err, ERR_CONFIG,
			"sets token_endpoint, scope or smtp_host, which need cloud = \"custom\"");
	cloud = &clouds[tenant->cloud];
	if (tenant->managed_identity)
		set(&tenant->token_endpoint, xstrdup(CONF_IMDS_ENDPOINT));
	else
		set(&tenant->token_endpoint, endpoint(cloud, tenant, "token"));
	set(&tenant->device_endpoint, endpoint(cloud, tenant, "devicecode"));
	set(&tenant->authorize_endpoint, endpoint(cloud, tenant, "authorize"));
	if (tenant->delegated)
		set(&tenant->scope,
		    xasprintf("https://%s/SMTP.Send offline_access", cloud->sign_in));
	else
		set(&tenant->scope, xasprintf("https://%s/.default", cloud->outlook));
	set(&tenant->smtp_host, xstrdup(cloud->smtp_host));
	return 0;
}

int conf_check_grant(struct conf_tenant *tenant, struct err *err)
{
	if (check_credential(tenant, err) < 0)
		return -1;
	return fill_cloud(tenant, err);
}
