#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "temp.h"
#include "token/grant.h"

#include <sys/stat.h>
#include <unistd.h>

#define NOW_S 1795442825 /* 2026-11-23T14:07:05Z */
#define CLIENT "11111111-2222-3333-4444-555555555555"
#define ENDPOINT "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
#define SCOPE "https://outlook.office365.com/.default"
#define FORM_HEAD                                         \
	"grant_type=client_credentials&client_id=" CLIENT \
	"&scope=https%3A%2F%2Foutlook.office365.com%2F.default"

/* ---- forms with a secret ---- */

static struct conf_tenant tenant_of(const char *secret, const char *certificate, const char *key)
{
	static char client[] = CLIENT, endpoint[] = ENDPOINT, scope[] = SCOPE;
	static char paths[3][128];
	struct conf_tenant tenant = {.client_id = client,
				     .token_endpoint = endpoint,
				     .scope = scope,
				     .secret_file = paths[0],
				     .certificate = paths[1],
				     .private_key = paths[2]};

	(void)snprintf(paths[0], sizeof(paths[0]), "%s", secret);
	(void)snprintf(paths[1], sizeof(paths[1]), "%s", certificate);
	(void)snprintf(paths[2], sizeof(paths[2]), "%s", key);
	return tenant;
}

static void test_secret_encoding(void **state)
{
	static const struct {
		const char *content, *encoded;
	} cases[] = {
		{"Abc8Q~xyz.-_", "Abc8Q~xyz.-_"},
		{"a+b&c%d=e~f", "a%2Bb%26c%25d%3De~f"},
		{"a b/c?d#e;f\"g'h\\i", "a%20b%2Fc%3Fd%23e%3Bf%22g%27h%5Ci"},
		{"J\303\266rg\342\202\254\377", "J%C3%B6rg%E2%82%AC%FF"},
		{"%41%2B", "%2541%252B"},
		{"&client_secret=x", "%26client_secret%3Dx"},
		{"two\nlines", "two%0Alines"},
		{"\001\177", "%01%7F"},
		/* What an editor adds at the end is cut, what stands at the start is not. */
		{"abc\n", "abc"},
		{"abc\r\n\r\n", "abc"},
		{"abc \t\n", "abc"},
		{" abc", "%20abc"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf_tenant tenant =
			tenant_of(temp_text("secret", cases[i].content), "", "");
		struct secret form = SECRET_INIT;
		struct err err = ERR_INIT;
		char expected[512];

		(void)snprintf(expected, sizeof(expected), "%s&client_secret=%s", FORM_HEAD,
			       cases[i].encoded);
		if (grant_form(&(struct grant){.tenant = &tenant}, NOW_S * 1000LL, &form, &err) <
		    0)
			fail_msg("%s", err.text);
		assert_string_equal(form.data, expected);
		assert_int_equal(form.len, strlen(expected));
		assert_string_equal(grant_name(&tenant), "secret");
		secret_clear(&form);
	}
}

/* A NUL is a byte of the secret like any other. */
static void test_secret_with_nul(void **state)
{
	struct conf_tenant tenant = tenant_of(temp_write("secret", "a\0b", 3, 0600), "", "");
	struct secret form = SECRET_INIT;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(
		grant_form(&(struct grant){.tenant = &tenant}, NOW_S * 1000LL, &form, &err), 0);
	assert_string_equal(form.data, FORM_HEAD "&client_secret=a%00b");
	secret_clear(&form);
}

static void refuse_form(const struct conf_tenant *tenant, const char *file, const char *why)
{
	struct secret form = SECRET_INIT;
	struct err err = ERR_INIT;

	assert_int_equal(
		grant_form(&(struct grant){.tenant = tenant}, NOW_S * 1000LL, &form, &err), -1);
	assert_false(secret_is_set(&form));
	assert_int_equal(err.class, ERR_CONFIG);
	if (strstr(err.text, file) == NULL || strstr(err.text, why) == NULL)
		fail_msg("%s", err.text);
	assert_null(strstr(err.text, "canary"));
}

static void test_bad_secrets(void **state)
{
	static char large[SECRET_MAX + 1];
	struct conf_tenant tenant = tenant_of(temp_path("secret"), "", "");

	(void)state;
	refuse_form(&tenant, "secret", "No such file or directory");
	(void)temp_text("secret", "");
	refuse_form(&tenant, "secret", "is empty; put the client secret's value into it");
	(void)temp_text("secret", " \r\n\n");
	refuse_form(&tenant, "secret", "is empty");
	(void)temp_write("secret", "canary", 6, 0644);
	refuse_form(&tenant, "secret", "mode 0644");
	memset(large, '+', sizeof(large));
	(void)temp_write("secret", large, SECRET_MAX, 0600);
	refuse_form(&tenant, "secret", "is too large for a client secret");
	(void)temp_write("secret", large, SECRET_MAX + 1, 0600);
	refuse_form(&tenant, "secret", "is larger than 65536 bytes");
}

/* ---- the fingerprint ---- */

static uint64_t changed(const struct conf_tenant *tenant, uint64_t before)
{
	uint64_t now = grant_fingerprint(tenant);

	assert_true(now != before);
	assert_true(now == grant_fingerprint(tenant));
	return now;
}

static void test_fingerprint(void **state)
{
	struct conf_tenant tenant =
		tenant_of("", temp_text("crt", "one"), temp_text("key", "one"));
	uint64_t print = grant_fingerprint(&tenant);
	struct err err = ERR_INIT;

	(void)state;
	assert_true(print == grant_fingerprint(&tenant));
	assert_int_equal(file_replace(tenant.private_key, "two", 3, 0600, &err), 0);
	print = changed(&tenant, print);
	(void)temp_text("crt", "longer");
	print = changed(&tenant, print);
	assert_int_equal(unlink(tenant.private_key), 0);
	print = changed(&tenant, print);
	(void)temp_write("key", "two", 3, 0644);
	print = changed(&tenant, print);
	tenant = tenant_of(temp_text("secret", "x"), "", "");
	print = changed(&tenant, print);
	assert_int_equal(rename(temp_text("fresh", "x"), temp_path("secret")), 0);
	(void)changed(&tenant, print);
}

/* A mode that was mended as the message said counts at once. */
static void test_fingerprint_of_mode(void **state)
{
	struct conf_tenant tenant = tenant_of(temp_write("secret", "x", 1, 0644), "", "");
	uint64_t print = grant_fingerprint(&tenant);
	int64_t until = clock_boot_ms() + 10000;

	(void)state;
	/* The kernel's time of change moves in steps of some milliseconds. */
	while (clock_boot_ms() < until) {
		assert_int_equal(chmod(tenant.secret_file, 0600), 0);
		if (grant_fingerprint(&tenant) != print)
			return;
	}
	fail_msg("not noticed");
}

#define IN_TEMP(test) cmocka_unit_test_setup_teardown(test, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TEMP(test_secret_encoding),	   IN_TEMP(test_secret_with_nul),
		IN_TEMP(test_bad_secrets),	   IN_TEMP(test_fingerprint),
		IN_TEMP(test_fingerprint_of_mode),
	};

	return cmocka_run_group_tests_name("grant", tests, NULL, NULL);
}
