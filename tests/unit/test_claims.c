#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "token/calendar.h"
#include "token/claims.h"

/* The calendar asks identities; here there are none. */
const char *identity_name(const struct identity *identity)
{
	(void)identity;
	return "";
}

int64_t identity_idle_end_s(const struct identity *identity)
{
	(void)identity;
	return 0;
}

#define CLIENT "11111111-2222-3333-4444-555555555555"
#define EXCHANGE "https://outlook.office365.com"

static struct conf_tenant tenant_of(bool delegated)
{
	static char client[] = CLIENT, app[] = EXCHANGE "/.default";
	static char user[] = "https://outlook.office.com/SMTP.Send offline_access";
	struct conf_tenant tenant = {
		.client_id = client, .scope = delegated ? user : app, .delegated = delegated};

	return tenant;
}

/* A token with this payload, in base64url. */
static void set_token(struct secret *token, const char *payload)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789-_";
	struct buf text = BUF_INIT(20000);
	unsigned int bits = 0, held = 0;

	assert_int_equal(buf_adds(&text, "eyJ0eXAiOiJKV1QifQ."), 0);
	for (const char *p = payload; *p != '\0'; p++) {
		bits = (bits << 8 | (unsigned char)*p) & 0xffffff;
		for (held += 8; held >= 6; held -= 6)
			assert_int_equal(buf_add(&text, &digits[bits >> (held - 6) & 63], 1), 0);
	}
	if (held > 0)
		assert_int_equal(buf_add(&text, &digits[bits << (6 - held) & 63], 1), 0);
	assert_int_equal(buf_adds(&text, ".c2lnbmF0dXJl"), 0);
	assert_int_equal(secret_set(token, buf_text(&text), text.len), 0);
	buf_clear(&text);
}

static void test_application(void **state)
{
	static const struct {
		const char *payload, *wrong, *note;
	} cases[] = {
		{"{\"aud\":\"" EXCHANGE "\",\"appid\":\"" CLIENT
		 "\",\"roles\":[\"SMTP.SendAsApp\"]}",
		 "", ""},
		{"{\"aud\":\"00000002-0000-0ff1-ce00-000000000000\",\"azp\":\"" CLIENT
		 "\",\"roles\":[\"X\",\"SMTP.SendAsApp\"]}",
		 "", ""},
		{"{\"aud\":\"https://graph.microsoft.com\",\"roles\":[\"SMTP.SendAsApp\"]}",
		 "aud is Microsoft Graph: the scope must be "
		 "https://outlook.office365.com/.default",
		 ""},
		{"{\"aud\":\"00000003-0000-0000-c000-000000000000\"}", "aud is Microsoft Graph",
		 "roles has no SMTP.SendAsApp"},
		{"{\"aud\":\"https://other.example\"}", "aud is https://other.example, which is",
		 "roles has no"},
		{"{\"aud\":\"" EXCHANGE "\",\"appid\":\"other\"}",
		 "appid is other, not client_id " CLIENT, "roles has no"},
		/* A part of a role's name is not that role. */
		{"{\"aud\":\"" EXCHANGE "\",\"roles\":[\"SMTP.SendAsApp2\"]}", "",
		 "roles has no SMTP.SendAsApp"},
		{"{\"aud\":17,\"roles\":\"text\",\"exp\":\"soon\"}", "", "roles has no"},
	};
	struct conf_tenant tenant = tenant_of(false);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct secret token = SECRET_INIT;
		struct claims claims;

		set_token(&token, cases[i].payload);
		claims_read(&token, &tenant, NULL, &claims);
		assert_true(claims.known);
		if (strstr(claims.wrong, cases[i].wrong) == NULL ||
		    (cases[i].wrong[0] == '\0' && claims.wrong[0] != '\0') ||
		    strstr(claims.note, cases[i].note) == NULL)
			fail_msg("%zu: \"%s\" \"%s\"", i, claims.wrong, claims.note);
		secret_clear(&token);
	}
}

static void test_user(void **state)
{
	static char address[] = "relay@contoso.com";
	struct conf_tenant tenant = tenant_of(true);
	struct conf_mailbox mailbox = {.name = "relay", .address = address, .tenant = &tenant};
	struct secret token = SECRET_INIT;
	struct claims claims;

	(void)state;
	set_token(&token, "{\"aud\":\"https://outlook.office.com\",\"scp\":\"IMAP.X SMTP.Send\","
			  "\"upn\":\"Relay@Contoso.com\",\"exp\":4102444800}");
	claims_read(&token, &tenant, &mailbox, &claims);
	assert_string_equal(claims.wrong, "");
	assert_string_equal(claims.note, "");
	assert_true(claims.exp_s == 4102444800); /* beyond 2038 */
	set_token(&token, "{\"aud\":\"https://outlook.office.com\",\"scp\":\"IMAP.X\","
			  "\"upn\":\"anna@contoso.com\"}");
	claims_read(&token, &tenant, &mailbox, &claims);
	assert_non_null(strstr(claims.wrong, "scp has no SMTP.Send"));
	assert_non_null(strstr(claims.note, "anna@contoso.com signed in, not relay@contoso.com"));
	secret_clear(&token);
}

/* It goes to a terminal: nothing in it may move a cursor. */
static void test_hostile(void **state)
{
	static const char *const texts[] = {"x",    ".",      "..",    "a.b",
					    "a..c", "a.!!.c", "a.e30", "a.W10.c"};
	struct conf_tenant tenant = tenant_of(false);
	struct secret token = SECRET_INIT;
	struct claims claims;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		assert_int_equal(secret_set(&token, texts[i], strlen(texts[i])), 0);
		claims_read(&token, &tenant, NULL, &claims);
		assert_false(claims.known);
		assert_null(claims_json(&claims));
	}
	set_token(&token, "{\"aud\":\"\\u001b[2J\\r\\nx\",\"tid\":\"t\\u0007\",\"roles\":["
			  "\"\\u001b\",\"A\"]}");
	claims_read(&token, &tenant, NULL, &claims);
	assert_string_equal(claims.aud, "?[2J??x");
	assert_string_equal(claims.tid, "t?");
	assert_string_equal(claims.rights, "A");
	secret_clear(&token);
}

static void test_days(void **state)
{
	static const struct {
		int64_t left_s;
		int level;
	} cases[] = {{31 * 86400, 0}, {30 * 86400 + 1, 0}, {30 * 86400, 1}, {14 * 86400 + 1, 1},
		     {14 * 86400, 2}, {7 * 86400, 3},	   {86400, 4},	    {1, 4},
		     {0, 5},	      {-86400, 5}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(calendar_level(4102444800 + cases[i].left_s, 4102444800),
				 cases[i].level);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_application),
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_days),
	};

	return cmocka_run_group_tests_name("claims", tests, NULL, NULL);
}
