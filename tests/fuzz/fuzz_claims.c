#include "base/compat.h"

#include "fuzz.h"

#include "token/claims.h"
#include "token/form.h"

#include "base/xalloc.h"

/* It goes to terminals and logs. */
static void must_be_plain(const char *text, size_t cap)
{
	size_t len = strlen(text);

	must(len < cap);
	for (size_t i = 0; i < len; i++)
		must(text[i] >= ' ' && text[i] <= '~');
}

static void read_claims(const struct secret *token)
{
	static char client[] = "client", scope[] = "https://outlook.office365.com/.default";
	static char address[] = "relay@contoso.com";
	struct conf_tenant tenant = {.client_id = client, .scope = scope};
	const struct conf_mailbox mailbox = {.name = "relay", .address = address};

	for (int user = 0; user < 2; user++) {
		struct claims claims;
		cJSON *json;

		tenant.delegated = user == 1;
		claims_read(token, &tenant, user == 1 ? &mailbox : NULL, &claims);
		must_be_plain(claims.aud, sizeof(claims.aud));
		must_be_plain(claims.appid, sizeof(claims.appid));
		must_be_plain(claims.tid, sizeof(claims.tid));
		must_be_plain(claims.rights, sizeof(claims.rights));
		must_be_plain(claims.user, sizeof(claims.user));
		must_be_plain(claims.wrong, sizeof(claims.wrong));
		must_be_plain(claims.note, sizeof(claims.note));
		must(claims.exp_s >= 0);
		json = claims_json(&claims);
		must((json != NULL) == claims.known);
		cJSON_Delete(json);
	}
}

/* The same bytes as what a browser ended at. */
static void read_query(const char *text)
{
	char value[64];
	int n = form_get(text, "code", value, sizeof(value));

	must(n == -1 || (n >= 0 && (size_t)n < sizeof(value) && strlen(value) == (size_t)n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct secret token = SECRET_INIT;
	char *text;

	if (size == 0 || size > 20000)
		return 0;
	text = xstrndup((const char *)data, size);
	read_query(text);
	free(text);
	must(secret_set(&token, (const char *)data, size) == 0);
	read_claims(&token);
	secret_clear(&token);
	return 0;
}
