#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "milter/route.h"

#include "temp.h"

/* With one mailbox, relay. */
static struct conf *load(void)
{
	struct err err = ERR_INIT;
	struct conf *conf;
	char text[1024];

	(void)temp_write("secret", "x", 1, 0600);
	(void)snprintf(text, sizeof(text),
		       "tenants: { contoso: { id = \"contoso.com\"; client_id = \"1-2\";"
		       " secret_file = \"%s\"; }; };\n"
		       "mailboxes: { relay: { address = \"relay@contoso.com\"; }; };\n",
		       temp_path("secret"));
	conf = conf_load(temp_text("relay365.conf", text), &err);
	if (conf == NULL)
		fail_msg("%s", err.text);
	return conf;
}

/* For whom mail is that comes without its transport; NULL: it stays here. */
static void test_unknown_transport(void **state)
{
	static const char debian[] = "mx.lan, localhost.lan, , localhost";
	static const struct {
		const char *local, *recipient, *mailbox;
	} cases[] = {
		{debian, "<root@mx.lan>", NULL},
		{debian, "<root@LOCALHOST.Lan>", NULL},
		{debian, "<\"root\"@localhost.>", NULL},
		{debian, "<a@localhost@mx.lan>", NULL}, /* from one local domain to the other */
		{debian, "<a@example.net>", "relay"},
		{debian, "<a@localhost.example.net>", "relay"},
		{debian, "<a@sub.mx.lan>", "relay"},
		{debian, "<a@lan>", "relay"},
		/* Sent on by its local part. */
		{debian, "<a%example.net@mx.lan>", "relay"},
		{debian, "<example.net!a@mx.lan>", "relay"},
		{debian, "<\"a@example.net\"@mx.lan>", "relay"},
		{debian, "<a%example.net%localhost@mx.lan>", "relay"},
		{debian, "<a%localhost@mx.lan>", NULL},
		/* A null client, and one that tells nothing: nothing stays. */
		{"", "<root@mx.lan>", "relay"},
		{"", "<root@localhost>", "relay"},
		{NULL, "<root@mx.lan>", "relay"},
		{NULL, "<root>", "relay"},
		{"", "<root>", "relay"},
		/* Tables, which can't be read, and exceptions. */
		{"hash:/etc/mail/local mx.lan", "<root@mx.lan>", NULL},
		{"hash:/etc/mail/local mx.lan", "<root@hash:/etc/mail/local>", "relay"},
		{"!mx.lan, mx.lan", "<root@mx.lan>", "relay"},
		{"!!mx.lan", "<root@mx.lan>", NULL},
		{"!hash:/etc/mail/local, mx.lan", "<root@mx.lan>", "relay"},
	};
	struct conf *conf = load();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char address[ROUTE_ADDRESS_MAX + 1];
		const struct conf_mailbox *m;

		route_recipient(cases[i].recipient, cases[i].local, address);
		m = route_unknown(conf, cases[i].local, address, "a@contoso.com");
		if (cases[i].mailbox == NULL
			    ? m != NULL
			    : m == NULL || strcmp(m->name, cases[i].mailbox) != 0)
			fail_msg("case %zu: %s", i, m == NULL ? "none" : m->name);
	}
	conf_free(&conf);
}

/* Spelled as Postfix takes it, and as it sends it on; but for letters, which it leaves. */
static const struct {
	const char *smtp, *address;
} spellings[] = {
	{"<a@b.c>", "a@b.c"},
	{"a@b.c", "a@b.c"},
	{"<A.b+c@D.e>", "A.b+c@D.e"},
	{"<>", ""},
	{"", ""},
	{"<a>", "a"},
	{"<", ""},
	{">", ""},
	{"<\"erp\"@b.c>", "erp@b.c"},
	{"<\"\\erp\"@b.c>", "erp@b.c"},
	{"<\"e\\rp\"@b.c>", "erp@b.c"},
	{"<e\\rp@b.c>", "erp@b.c"},
	{"<\"e\".\"rp\"@b.c>", "e.rp@b.c"},
	{"<\"e\" . rp@b.c>", "e.rp@b.c"},
	{"<erp @ b . c >", "erp@b.c"},
	{"<\"erp\"@\"b.c\">", "erp@b.c"},
	{"<erp(c)@b.c>", "erp@b.c"},
	{"<(x)erp@b.c>", "erp@b.c"},
	{"<erp@b.c.>", "erp@b.c"},
	{"<erp@b.c.(x)>", "erp@b.c"},
	{"<erp@b.c. (x)>", "erp@b.c"},
	{"<@x.y:erp@b.c>", "erp@b.c"},
	{"<@x.y,@z:erp@b.c>", "erp@b.c"},
	{"<@x.y:@z:erp@b.c>", "erp@b.c"},
	{"<<erp@b.c>>", "erp@b.c"},
	{"<Erp <erp@b.c>>", "erp@b.c"},
	{"<erp%b.c>", "erp@b.c"},
	{"<b.c!erp>", "erp@b.c"},
	{"<\"erp%b.c\">", "erp@b.c"},
	{"<\"erp@b.c\">", "erp@b.c"},
	{"<erp%b.c@>", "erp@b.c"},
	{"<erp@b.c@>", "erp@b.c"},
	{"<erp%b.c@(x)>", "erp@b.c"},
	{"<a!b!erp>", "b!erp@a"},
	{"<a%b%c>", "a%b@c"},
	{"<a!b%c>", "b%c@a"},
	/* What would be another's without its quotes keeps them. */
	{"<\"x@y\"@b.c>", "\"x@y\"@b.c"},
	{"<\"x \\y\"@b.c>", "\"x y\"@b.c"},
	{"<\"x\\\"\\\\y\"@b.c>", "\"x\\\"\\\\y\"@b.c"},
	{"<erp%x.y@b.c>", "erp%x.y@b.c"},
	{"<erp@x.y@b.c>", "erp@x.y@b.c"},
	{"<erp.@b.c>", "\"erp.\"@b.c"},
	{"<\"erp.\"@b.c>", "\"erp.\"@b.c"},
	{"<e\\@rp . x@b.c>", "\"e@rp.x\"@b.c"},
	{"<@b.c>", "\"\"@b.c"},
	{"<\"\"@b.c>", "\"\"@b.c"},
	{"<\"\">", "\"\""},
	{"<a@[10.0.0.1]>", "a@[10.0.0.1]"},
	{"<m\xc3\xbcller@b.c>", "m\xc3\xbcller@b.c"},
	/* Not to be read. */
	{"<\"erp@b.c>", "\"erp@b.c"},
	{"<(erp@b.c>", "(erp@b.c"},
	{"<erp@b.c..>", "erp@b.c.."},
	{"<erp\\>", "erp\\"},
	{"<@>", "\"\""},
	{"<@a:>", "@a:"},
	{"<Erp <erp@b.c>", "erp@b.c"},
	{"<!>", "@"},
};

static void test_addresses(void **state)
{
	char address[ROUTE_ADDRESS_MAX + 1], longer[1000];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
		route_address(spellings[i].smtp, address);
		if (strcmp(address, spellings[i].address) != 0)
			fail_msg("%s: %s", spellings[i].smtp, address);
	}
	assert_string_equal(route_domain("\"x@y\"@b.c"), "b.c");
	assert_string_equal(route_domain("a"), "");
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	route_address(longer, address);
	assert_int_equal(strlen(address), ROUTE_ADDRESS_MAX);
	longer[1] = '!';
	longer[ROUTE_ADDRESS_MAX] = '\0';
	route_address(longer, address);
	assert_int_equal(strlen(address), ROUTE_ADDRESS_MAX);
	assert_string_equal(route_domain(address), "x");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unknown_transport),
		TEST(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
