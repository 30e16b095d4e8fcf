#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "temp.h"
#include "test_conf_kit.h"

#include <sys/stat.h>

#define LIMIT_WITH(line)                                                                         \
	TENANT MAILBOX "limits: {\nl: { per = \"source\" count = \"messages\" max = 1 window = " \
		       "\"1h\" " line " }\n}\n"

static const struct {
	const char *text;
	const char *message;
} mistakes[] = {
	/* Syntax. */
	{"", "c.conf: there is no tenant; add one under \"tenants\""},
	{"tenants: {", "c.conf:1: syntax error"},
	{TENANT MAILBOX "log = ;\n", "c.conf:9: syntax error"},
	{TENANT MAILBOX "log = \"stderr\n", "c.conf:10: syntax error"},
	{TENANT MAILBOX "log = \"stderr\"\nlog = \"syslog\"\n",
	 "c.conf:10: duplicate setting name"},
	{TENANT MAILBOX MAILBOX, "c.conf:9: duplicate setting name"},
	{TENANT "mailboxes: {\nrelay: { address = \"a@b\" }\nrelay: { address = \"c@b\" }\n}\n",
	 "c.conf:8: duplicate setting name"},
	{"@include \"missing.conf\"\n", "c.conf:1: cannot open include file"},
	{"@include \"c.conf\"\n", "c.conf:1: include file nesting too deep"},
	{"\xef\xbb\xbf" TENANT MAILBOX, "c.conf:1: begins with a byte order mark (BOM); save the "
					"file as UTF-8 without one"},
	{"\xff\xfet", "c.conf:1: begins with a byte order mark (BOM); save the file as UTF-8 "
		      "without one"},

	/* Keys. */
	{"colour = 1\n" TENANT MAILBOX,
	 "c.conf:1: unknown key \"colour\" in the top level; see relay365.conf(5)"},
	{TENANT MAILBOX "postmastr = \"a@b\"\n",
	 "c.conf:9: unknown key \"postmastr\" in the top level; did you mean \"postmaster\"?"},
	{"tenant: { contoso: { } }\n" MAILBOX,
	 "c.conf:1: unknown key \"tenant\" in the top level; did you mean \"tenants\"?"},
	{TENANT "mailbox: { }\n",
	 "c.conf:6: unknown key \"mailbox\" in the top level; did you mean \"mailboxes\"?"},
	{TENANT_WITH("secretfile = \"secret\"\n"),
	 "c.conf:4: unknown key \"secretfile\" in a tenant; did you mean \"secret_file\"?"},
	{TENANT_WITH("address = \"a@b\"\n"),
	 "c.conf:4: unknown key \"address\" in a tenant; see relay365.conf(5)"},
	{MAILBOX_WITH("recipients_per_dya = 5\n"),
	 "c.conf:8: unknown key \"recipients_per_dya\" in a mailbox; did you mean "
	 "\"recipients_per_day\"?"},
	{MAILBOX_WITH("a_name_that_is_longer_than_every_key_that_there_could_be = 5\n"),
	 "c.conf:8: unknown key \"a_name_that_is_longer_than_every_key_that_there_could_be\" in "
	 "a "
	 "mailbox; see relay365.conf(5)"},
	{"tenants: { contoso: {\n" CLIENT SECRET "} }\n" MAILBOX,
	 "c.conf:1: tenant \"contoso\" has no id: tenant id or domain, as Entra ID knows it"},
	{"tenants: { contoso: {\n" ID SECRET "} }\n" MAILBOX,
	 "c.conf:1: tenant \"contoso\": has no client_id: application (client) id of the app "
	 "registration"},
	{TENANT "mailboxes: { relay: { } }\n", "c.conf:6: mailbox \"relay\" has no address: the "
					       "mailbox that signs in; Microsoft counts "
					       "against it"},

	/* Sections. */
	{MAILBOX, "c.conf: there is no tenant; add one under \"tenants\""},
	{"tenants: { }\n" MAILBOX, "c.conf: there is no tenant; add one under \"tenants\""},
	{TENANT, "c.conf: there is no mailbox; add one under \"mailboxes\""},
	{"tenants = 5\n" MAILBOX,
	 "c.conf:1: tenants must be a group: tenants: { name: { ... } }"},
	{"tenants = ( )\n" MAILBOX,
	 "c.conf:1: tenants must be a group: tenants: { name: { ... } }"},
	{TENANT "mailboxes: { relay = 5 }\n",
	 "c.conf:6: mailbox \"relay\" must be a group: { ... }"},
	{TENANT "mailboxes: { Relay: { address = \"a@b\" } }\n",
	 "c.conf:6: the name of mailbox \"Relay\" must have at most 32 of a-z, 0-9 and \"-\""},
	{TENANT "mailboxes: { the_relay: { address = \"a@b\" } }\n",
	 "c.conf:6: the name of mailbox \"the_relay\" must have at most 32 of a-z, 0-9 and "
	 "\"-\""},
	{TENANT "mailboxes: { a23456789012345678901234567890123: { address = \"a@b\" } }\n",
	 "c.conf:6: the name of mailbox \"a23456789012345678901234567890123\" must have at most "
	 "32 of a-z, 0-9 and \"-\""},
	{TENANT "mailboxes: { 365relay: { address = \"a@b\" } }\n", "c.conf:6: syntax error"},

	/* Types. */
	{MAILBOX_WITH("recipients_per_day = \"100\"\n"),
	 "c.conf:8: recipients_per_day must be a whole number without quotes"},
	{MAILBOX_WITH("recipients_per_day = 1.5\n"),
	 "c.conf:8: recipients_per_day must be a whole number without quotes"},
	{MAILBOX_WITH("recipients_per_day = true\n"),
	 "c.conf:8: recipients_per_day must be a whole number without quotes"},
	{"postmaster = 5\n" TENANT MAILBOX, "c.conf:1: postmaster must be text in double quotes"},
	{TENANT_WITH("secret_file = [\"secret\"]\n"),
	 "c.conf:4: secret_file must be text in double quotes"},
	{MAILBOX_WITH("default = \"true\"\n"),
	 "c.conf:8: default must be true or false, without quotes"},
	{MAILBOX_WITH("default = 1\n"),
	 "c.conf:8: default must be true or false, without quotes"},
	{MAILBOX_WITH("senders = \"*@contoso.com\"\n"),
	 "c.conf:8: senders must be a list: [\"...\", \"...\"]"},
	{MAILBOX_WITH("senders = [1, 2]\n"),
	 "c.conf:8: each entry of senders must be text in double quotes"},
	{MAILBOX_WITH("senders = (\"a@b\", 2)\n"),
	 "c.conf:8: each entry of senders must be text in double quotes"},
	{MAILBOX_WITH("senders = [\"a@b\", 2]\n"), "c.conf:8: mismatched element type in array"},
	{"log = true\n" TENANT MAILBOX, "c.conf:1: log must be text in double quotes"},

	/* Values. */
	{"log = \"stdout\"\n" TENANT MAILBOX,
	 "c.conf:1: log = \"stdout\" is not one of syslog|stderr"},
	{"log = \"\"\n" TENANT MAILBOX, "c.conf:1: log = \"\" is not one of syslog|stderr"},
	{"log = \"syslog|stderr\"\n" TENANT MAILBOX,
	 "c.conf:1: log = \"syslog|stderr\" is not one of syslog|stderr"},
	{MAILBOX_WITH("when_full = \"bounce\"\n"),
	 "c.conf:8: when_full = \"bounce\" is not one of reject|defer|hold|wait|warn"},
	{MAILBOX_WITH("max_wait = \"4\"\n"),
	 "c.conf:8: max_wait must be a time with its unit in quotes: \"90s\", \"30m\", \"4h\" or "
	 "\"2d\""},
	{MAILBOX_WITH("max_wait = 4\n"),
	 "c.conf:8: max_wait must be a time with its unit in quotes: \"90s\", \"30m\", \"4h\" or "
	 "\"2d\""},
	{MAILBOX_WITH("max_wait = \"4 h\"\n"),
	 "c.conf:8: max_wait must be a time with its unit in quotes: \"90s\", \"30m\", \"4h\" or "
	 "\"2d\""},
	{MAILBOX_WITH("max_wait = \"4w\"\n"),
	 "c.conf:8: max_wait must be a time with its unit in quotes: \"90s\", \"30m\", \"4h\" or "
	 "\"2d\""},
	{MAILBOX_WITH("max_wait = \"-4h\"\n"),
	 "c.conf:8: max_wait must be a time with its unit in quotes: \"90s\", \"30m\", \"4h\" or "
	 "\"2d\""},
	{MAILBOX_WITH("max_wait = \"9999999999999999999h\"\n"),
	 "c.conf:8: max_wait must be a time with its unit in quotes: \"90s\", \"30m\", \"4h\" or "
	 "\"2d\""},
	{MAILBOX_WITH("max_wait = \"0s\"\n"),
	 "c.conf:8: max_wait = \"0s\" is out of range: 1s to 432000s"},
	{MAILBOX_WITH("max_wait = \"6d\"\n"),
	 "c.conf:8: max_wait = \"6d\" is out of range: 1s to 432000s"},
	{MAILBOX_WITH("recipients_per_day = 0\n"),
	 "c.conf:8: recipients_per_day = 0 is out of range: 1 to 100000000"},
	{MAILBOX_WITH("recipients_per_day = -1\n"),
	 "c.conf:8: recipients_per_day = -1 is out of range: 1 to 100000000"},
	{MAILBOX_WITH("recipients_per_message = 1001\n"),
	 "c.conf:8: recipients_per_message = 1001 is out of range: 1 to 1000"},
	{MAILBOX_WITH("connections = 9223372036854775807L\n"),
	 "c.conf:8: connections = 9223372036854775807 is out of range: 1 to 100"},
	/* What would be another number as an int, and nothing else. */
	{"runaway_factor = 4294967297\n" TENANT MAILBOX,
	 "c.conf:1: 4294967297 is out of range: what may be over 2147483647 must end in L"},
	{MAILBOX_WITH("# \"\n/* 1\n */ recipients_per_day = 0x100000001\n"),
	 "c.conf:10: 0x100000001 is out of range: what may be over 2147483647 must end in L"},
	{"postmaster = \"a\\\"\" // \"\n\n" TENANT_WITH(SECRET "licences = -4294967295\n"),
	 "c.conf:7: -4294967295 is out of range: what may be over 2147483647 must end in L"},
	{MAILBOX_WITH("connections = 99999999999999999999\n"),
	 "c.conf:8: 99999999999999999999 is out of range: what may be over 2147483647 must end "
	 "in L"},
	{MAILBOX_WITH("connections = 99999999999999999999L\n"),
	 "c.conf:8: connections = 9223372036854775807 is out of range: 1 to 100"},
	{MAILBOX_WITH("connections = 4294967297.5\n"),
	 "c.conf:8: connections must be a whole number without quotes"},
	{MAILBOX_WITH("x4294967297-4294967297 = 1\n"),
	 "c.conf:8: unknown key \"x4294967297-4294967297\" in a mailbox; see relay365.conf(5)"},
	{MAILBOX_WITH("# 4294967297\n/* 4294967297 */ when_full = \"4294967297\"\n"),
	 "c.conf:9: when_full = \"4294967297\" is not one of reject|defer|hold|wait|warn"},
	{TENANT_WITH(SECRET "smtp_port = 65536\n"),
	 "c.conf:5: smtp_port = 65536 is out of range: 1 to 65535"},
	{"postmaster = \"a\\x01@b\"\n" TENANT MAILBOX,
	 "c.conf:1: postmaster has a control character in it"},
	{"postmaster = \"a\\n@b\"\n" TENANT MAILBOX,
	 "c.conf:1: postmaster has a control character in it"},
	{"postmaster = \"a\\x7f@b\"\n" TENANT MAILBOX,
	 "c.conf:1: postmaster has a control character in it"},
	{MAILBOX_WITH("senders = [\"a\\r@contoso.com\"]\n"),
	 "c.conf:8: senders has a control character in it"},
	{MAILBOX_WITH("senders = [\"\"]\n"), "c.conf:8: senders must have 3 to 320 characters"},
	{TENANT_WITH(SECRET "accepted_domains = [\"contoso.com\", \"\"]\n"),
	 "c.conf:5: accepted_domains must have 1 to 255 characters"},
	{"state_dir = \"\"\n" TENANT MAILBOX,
	 "c.conf:1: state_dir must have 1 to 200 characters"},
	{"state_dir = \"state\"\n" TENANT MAILBOX,
	 "c.conf: \"state\" must be a path from the root: /..."},
	{"queue_directories = [\"/var/spool/postfix\", \"spool\"]\n" TENANT MAILBOX,
	 "c.conf: queue_directories: \"spool\" must be a path from the root"},

	/* Tenants. */
	{"tenants: { contoso: {\nid = \"common\"\n" CLIENT SECRET "} }\n" MAILBOX,
	 "c.conf:1: tenant \"contoso\": id \"common\" is no tenant; write the tenant's id or "
	 "domain"},
	{"tenants: { contoso: {\nid = \"Organizations\"\n" CLIENT SECRET "} }\n" MAILBOX,
	 "c.conf:1: tenant \"contoso\": id \"Organizations\" is no tenant; write the tenant's id "
	 "or domain"},
	{"tenants: { contoso: {\nid = \"contoso.com/x\"\n" CLIENT SECRET "} }\n" MAILBOX,
	 "c.conf:1: tenant \"contoso\": id \"contoso.com/x\" is neither a tenant id nor a "
	 "domain"},
	{TENANT_WITH(""),
	 "c.conf:1: tenant \"contoso\": has no credential; set certificate and "
	 "private_key, or secret_file, or federated_token_file, managed_identity or delegated"},
	{TENANT_WITH(SECRET "managed_identity = true\n"),
	 "c.conf:1: tenant \"contoso\": has several credentials; keep one of certificate, "
	 "secret_file, federated_token_file and managed_identity"},
	{TENANT_WITH("delegated = true\nmanaged_identity = true\n"),
	 "c.conf:1: tenant \"contoso\": has delegated and managed_identity; a managed identity "
	 "is "
	 "no user"},
	{TENANT_WITH("delegated = true\nnext_certificate = \"certificate\"\n"),
	 "c.conf:1: tenant \"contoso\": next_certificate and next_private_key go together; "
	 "next_private_key is missing"},
	{TENANT_WITH(SECRET "next_certificate = \"certificate\"\nnext_private_key = \"key\"\n"),
	 "c.conf:1: tenant \"contoso\": has a next_certificate without a certificate that comes "
	 "before it"},
	{TENANT_WITH(SECRET "secret_expires = \"2027-13-01\"\n"),
	 "c.conf:1: tenant \"contoso\": secret_expires = \"2027-13-01\" is not a date like "
	 "2027-03-01"},
	{TENANT_WITH("delegated = true\nsecret_expires = \"2027-03-01\"\n"),
	 "c.conf:1: tenant \"contoso\": has secret_expires without secret_file"},
	{TENANT_WITH("secret_file = \"credential:../x\"\n"),
	 "c.conf:1: tenant \"contoso\": \"credential:../x\" names no credential of systemd"},
	{TENANT_WITH("delegated = true\npassphrase_file = \"open\"\n"),
	 "c.conf:1: tenant \"contoso\": open holds a secret but has mode 0644; run: chmod "
	 "o-rwx,g-w open"},
	{CUSTOM_WITH("token_endpoint = \"http://x/\"\nscope = \"s\"\nsmtp_host = \"h\"\n"),
	 "c.conf:1: tenant \"contoso\": token_endpoint must begin with https://"},
	{TENANT_WITH(SECRET "certificate = \"certificate\"\nprivate_key = \"key\"\n"),
	 "c.conf:1: tenant \"contoso\": has both secret_file and a certificate; keep the "
	 "certificate"},
	{TENANT_WITH("certificate = \"certificate\"\n"),
	 "c.conf:1: tenant \"contoso\": certificate and private_key go together; private_key is "
	 "missing"},
	{TENANT_WITH("private_key = \"key\"\n"),
	 "c.conf:1: tenant \"contoso\": certificate and private_key go together; certificate is "
	 "missing"},
	{TENANT_WITH("certificate = \"missing\"\nprivate_key = \"key\"\n"),
	 "c.conf:1: tenant \"contoso\": cannot read missing: No such file or directory"},
	{TENANT_WITH("certificate = \"certificate\"\nprivate_key = \"missing\"\n"),
	 "c.conf:1: tenant \"contoso\": cannot read missing: No such file or directory"},
	{TENANT_WITH("certificate = \"certificate\"\nprivate_key = \"open\"\n"),
	 "c.conf:1: tenant \"contoso\": open holds a secret but has mode 0644; run: chmod "
	 "o-rwx,g-w open"},
	{TENANT_WITH("secret_file = \"missing\"\n"),
	 "c.conf:1: tenant \"contoso\": cannot read missing: No such file or directory"},
	{TENANT_WITH("secret_file = \"open\"\n"),
	 "c.conf:1: tenant \"contoso\": open holds a secret but has mode 0644; run: chmod "
	 "o-rwx,g-w open"},
	{TENANT_WITH("secret_file = \"/dev/null\"\n"),
	 "c.conf:1: tenant \"contoso\": /dev/null is not a plain file"},
	{TENANT_WITH(SECRET "proxy = \"http://relay:hidden@proxy:3128\"\n"),
	 "c.conf:1: tenant \"contoso\": has a name or password in proxy; write NAME:PASSWORD "
	 "into "
	 "a file and set proxy_secret_file"},
	{TENANT_WITH(SECRET "proxy_secret_file = \"secret\"\n"),
	 "c.conf:1: tenant \"contoso\": has proxy_secret_file without proxy"},
	{TENANT_WITH(SECRET "proxy = \"http://proxy:3128\"\nproxy_secret_file = \"open\"\n"),
	 "c.conf:1: tenant \"contoso\": open holds a secret but has mode 0644; run: chmod "
	 "o-rwx,g-w open"},
	{CUSTOM_WITH(""),
	 "c.conf:1: tenant \"contoso\": has cloud = \"custom\" and so needs token_endpoint"},
	{CUSTOM_WITH("token_endpoint = \"https://x/\"\n"),
	 "c.conf:1: tenant \"contoso\": has cloud = \"custom\" and so needs scope"},
	{CUSTOM_WITH("token_endpoint = \"https://x/\"\nscope = \"x/.default\"\n"),
	 "c.conf:1: tenant \"contoso\": has cloud = \"custom\" and so needs smtp_host"},
	{CUSTOM_WITH("token_endpoint = \"http://x/\"\nscope = \"x\"\nsmtp_host = \"x\"\n"),
	 "c.conf:1: tenant \"contoso\": token_endpoint must begin with https://"},
	{TENANT_WITH(SECRET "token_endpoint = \"https://x/\"\n"),
	 "c.conf:1: tenant \"contoso\": sets token_endpoint, scope or smtp_host, which need "
	 "cloud "
	 "= \"custom\""},

	/* Mailboxes. */
	{TENANT "mailboxes: { relay: {\naddress = \"relay\"\n} }\n",
	 "c.conf:6: mailbox \"relay\": address \"relay\" is not of the form user@domain"},
	{TENANT "mailboxes: { relay: {\naddress = \"*@contoso.com\"\n} }\n",
	 "c.conf:6: mailbox \"relay\": address \"*@contoso.com\" is not of the form user@domain"},
	{TENANT "mailboxes: { relay: {\naddress = \"a b@contoso.com\"\n} }\n",
	 "c.conf:6: mailbox \"relay\": address \"a b@contoso.com\" is not of the form "
	 "user@domain"},
	{TENANT "mailboxes: { relay: {\naddress = \"@contoso.com\"\n} }\n",
	 "c.conf:6: mailbox \"relay\": address \"@contoso.com\" is not of the form user@domain"},
	{MAILBOX_WITH("senders = [\"contoso.com\"]\n"),
	 "c.conf:6: mailbox \"relay\": senders: \"contoso.com\" is neither user@domain nor "
	 "*@domain"},
	{MAILBOX_WITH("senders = [\"*@*\"]\n"),
	 "c.conf:6: mailbox \"relay\": senders: \"*@*\" is neither user@domain nor *@domain"},
	{MAILBOX_WITH("senders = [\"a*@contoso.com\"]\n"),
	 "c.conf:6: mailbox \"relay\": senders: \"a*@contoso.com\" is neither user@domain nor "
	 "*@domain"},
	{MAILBOX_WITH("senders = [\"@contoso.com\"]\n"),
	 "c.conf:6: mailbox \"relay\": senders: \"@contoso.com\" is neither user@domain nor "
	 "*@domain"},
	{MAILBOX_WITH("priority_senders = [\"contoso.com\"]\n"),
	 "c.conf:6: mailbox \"relay\": priority_senders: \"contoso.com\" is neither user@domain "
	 "nor *@domain"},
	{MAILBOX_WITH("default = false; priority_senders = [\"alert@contoso.com\"]\n"),
	 "c.conf:6: mailbox \"relay\": priority_senders: \"alert@contoso.com\" is no sender of "
	 "the mailbox; add it to its senders"},
	{MAILBOX_WITH("default = true; priority_senders = [\"alert@contoso.com\"] },"
		      " relay-priority: { address = \"b@contoso.com\"\n"),
	 "c.conf:6: mailbox \"relay\": has priority_senders, whose transport is called as that "
	 "of "
	 "mailbox \"relay-priority\"; rename one of the two"},
	{MAILBOX_WITH("tenant = \"fabrikam\"\n"),
	 "c.conf:6: mailbox \"relay\": names tenant \"fabrikam\", which is not under "
	 "\"tenants\""},
	{"tenants: {\na: {" ID CLIENT SECRET "}\nb: {" ID CLIENT SECRET "}\n}\n" MAILBOX,
	 "c.conf:11: mailbox \"relay\": has no tenant; there are 2: set tenant = \"NAME\""},
	{TENANT "mailboxes: {\na: { address = \"relay@contoso.com\" }\nb: { address = "
		"\"RELAY@Contoso.com\" }\n}\n",
	 "c.conf:8: mailbox \"b\": has the address of mailbox \"a\" (c.conf:7)"},
	{TWO_WITH("default = true", "default = true"),
	 "c.conf:8: mailbox \"other\": is a second default beside mailbox \"relay\" (c.conf:7); "
	 "keep one"},
	{TWO_WITH("senders = [\"a@contoso.com\", \"*@contoso.com\"]",
		  "senders = [\"*@CONTOSO.com\"]"),
	 "c.conf:8: mailbox \"other\": claims sender \"*@contoso.com\" as mailbox \"relay\" does "
	 "(c.conf:7); leave it to one of them"},
	{TWO_WITH("senders = [\"Other@contoso.com\"]", ""),
	 "c.conf:8: mailbox \"other\": mailbox \"relay\" claims sender \"other@contoso.com\", "
	 "which "
	 "is the address of mailbox \"other\"; remove it from senders"},

	/* Limits. */
	{LIMIT_WITH("overrides = [\"10.1.0.5=10\", \"erp=5\", \"10.1.0.5=20\"]"),
	 "c.conf:10: limit \"l\": overrides: \"10.1.0.5\" stands there twice; leave one of "
	 "them"},
	{LIMIT_WITH("overrides = [\"ERP=10\", \"erp=10\"]"),
	 "c.conf:10: limit \"l\": overrides: \"erp\" stands there twice; leave one of them"},
	{LIMIT_WITH("overrides = [\"::1=10\", \"IPv6:0:0::1=20\"]"),
	 "c.conf:10: limit \"l\": overrides: \"::1\" stands there twice; leave one of them"},
};

static void test_mistakes(void **state)
{
	int failures = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(mistakes); i++) {
		struct err err = ERR_INIT;
		struct conf *conf = load(mistakes[i].text, &err);

		if (conf == NULL && err.class == ERR_CONFIG &&
		    strcmp(err.text, mistakes[i].message) == 0)
			continue;
		failures++;
		print_error("expected: %s\n     got: %s\n", mistakes[i].message,
			    conf == NULL ? err.text : "(loads)");
		conf_free(&conf);
	}
	assert_int_equal(failures, 0);
}

static void test_number_in_include(void **state)
{
	struct err err = ERR_INIT;
	struct conf *conf;

	(void)state;
	(void)temp_text("more.conf", "\nrunaway_factor = 4294967297\n");
	assert_null(load(TENANT MAILBOX "@include \"more.conf\"\n", &err));
	assert_string_equal(err.text, "more.conf:2: 4294967297 is out of range: what may be over "
				      "2147483647 must end in L");
	(void)temp_text("more.conf", "runaway_factor = 100\n");
	conf = load_good(TENANT MAILBOX "@include \"more.conf\"\n");
	assert_int_equal(conf->runaway_factor, 100);
	conf_free(&conf);
}

static void test_no_file(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_null(conf_load("missing.conf", &err));
	assert_string_equal(err.text, "cannot read missing.conf: No such file or directory");
	assert_int_equal(mkdir("folder", 0700), 0);
	assert_null(conf_load("folder", &err));
	assert_string_equal(err.text, "folder is not a plain file of at most 4194304 bytes");
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_null(conf_load("fifo", &err));
	assert_null(conf_load("/dev/zero", NULL));
}

/* A mistake in an included file is named by that file's name and line. */
static void test_include(void **state)
{
	struct err err = ERR_INIT;
	struct conf *conf;

	(void)state;
	(void)temp_text("more.conf", "\nlog = \"nowhere\"\n");
	assert_null(load("@include \"more.conf\"\n" TENANT MAILBOX, &err));
	assert_string_equal(err.text,
			    "more.conf:2: log = \"nowhere\" is not one of syslog|stderr");
	(void)temp_text("more.conf", "\nlog = \"stderr\"\n");
	conf = load_good("@include \"more.conf\"\n" TENANT MAILBOX);
	assert_true(conf->log_to_stderr);
	conf_free(&conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TEMP(test_mistakes),
		IN_TEMP(test_no_file),
		IN_TEMP(test_include),
		IN_TEMP(test_number_in_include),
	};

	return cmocka_run_group_tests_name("conf_mistakes", tests, NULL, NULL);
}
