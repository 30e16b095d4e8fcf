#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "conf/conf.h"
#include "conf/conf_table.h"
#include "temp.h"

#include <sys/stat.h>
#include <unistd.h>

#define ID "id = \"contoso.onmicrosoft.com\"\n"
#define CLIENT "client_id = \"11111111-2222-3333-4444-555555555555\"\n"
#define SECRET "secret_file = \"secret\"\n"
#define TENANT "tenants: { contoso: {\n" ID CLIENT SECRET "} }\n" /* 5 lines */
#define MAILBOX "mailboxes: { relay: {\naddress = \"relay@contoso.com\"\n} }\n"
#define TENANT_WITH(line) "tenants: { contoso: {\n" ID CLIENT line "} }\n" MAILBOX
#define MAILBOX_WITH(line) \
	TENANT "mailboxes: { relay: {\naddress = \"relay@contoso.com\"\n" line "} }\n"
#define CUSTOM_WITH(line) TENANT_WITH(SECRET "cloud = \"custom\"\n" line)
#define TWO_WITH(first, second)                                                \
	TENANT "mailboxes: {\nrelay: { address = \"relay@contoso.com\" " first \
	       " }\nother: { address = \"other@contoso.com\" " second " }\n}\n"

/* Files are named relatively, so that the messages are always the same. */
static int enter(void **state)
{
	if (temp_enter(state) < 0 || chdir(temp_path("")) < 0)
		return -1;
	(void)temp_text("secret", "canary\n");
	(void)temp_text("key", "canary\n");
	(void)temp_text("certificate", "\n");
	(void)temp_write("open", "canary\n", 7, 0644);
	return 0;
}

static int leave(void **state)
{
	return chdir("/") < 0 ? -1 : temp_leave(state);
}

static struct conf *load(const char *text, struct err *err)
{
	(void)temp_text("c.conf", text);
	return conf_load("c.conf", err);
}

static struct conf *load_good(const char *text)
{
	struct err err = ERR_INIT;
	struct conf *conf = load(text, &err);

	if (conf == NULL)
		fail_msg("%s", err.text);
	return conf;
}

/* ---- mistakes ---- */

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
	 "c.conf:1: tenant \"contoso\" has no client_id: application (client) id of the app "
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
	 "c.conf:8: recipients_per_day = 0 is out of range: 1 to 1000000"},
	{MAILBOX_WITH("recipients_per_day = -1\n"),
	 "c.conf:8: recipients_per_day = -1 is out of range: 1 to 1000000"},
	{MAILBOX_WITH("recipients_per_message = 1001\n"),
	 "c.conf:8: recipients_per_message = 1001 is out of range: 1 to 1000"},
	{MAILBOX_WITH("connections = 9223372036854775807L\n"),
	 "c.conf:8: connections = 9223372036854775807 is out of range: 1 to 100"},
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
	{TENANT_WITH(""), "c.conf:1: tenant \"contoso\": has no credential; set certificate and "
			  "private_key, or secret_file"},
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

/* ---- what loads ---- */

static void test_defaults(void **state)
{
	struct conf *conf = load_good(TENANT MAILBOX);
	const struct conf_tenant *tenant = &conf->tenant[0];
	const struct conf_mailbox *mailbox = &conf->mailbox[0];

	(void)state;
	assert_string_equal(conf->path, "c.conf");
	assert_string_equal(conf->postmaster, "");
	assert_int_equal(conf->queue_directories.count, 1);
	assert_string_equal(conf->queue_directories.item[0], "/var/spool/postfix");
	assert_int_equal(conf->relay_hosts.count, 0);
	assert_int_equal(conf->token_users.count, 3);
	assert_string_equal(conf->token_users.item[0], "postfix");
	assert_string_equal(conf->token_users.item[2], "root");
	assert_string_equal(conf->state_dir, RELAY365_STATEDIR "/relay365");
	assert_string_equal(conf->run_dir, RELAY365_RUNDIR "/relay365");
	assert_false(conf->log_to_stderr || conf->log_json || conf->log_debug || conf->shadow ||
		     conf->accept_on_ledger_error);
	assert_string_equal(tenant->name, "contoso");
	assert_int_equal(tenant->line, 1);
	assert_string_equal(tenant->token_endpoint,
			    "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/"
			    "v2.0/token");
	assert_string_equal(tenant->scope, "https://outlook.office365.com/.default");
	assert_string_equal(tenant->smtp_host, "smtp.office365.com");
	assert_int_equal(tenant->smtp_port, 587);
	assert_string_equal(tenant->proxy, "");
	assert_string_equal(tenant->certificate, "");
	assert_string_equal(mailbox->name, "relay");
	assert_int_equal(mailbox->line, 6);
	assert_ptr_equal(mailbox->tenant, tenant);
	assert_true(mailbox->is_default); /* the only one */
	assert_int_equal(mailbox->recipients_per_day, 10000);
	assert_int_equal(mailbox->recipients_per_message, 500);
	assert_int_equal(mailbox->messages_per_minute, 30);
	assert_int_equal(mailbox->connections, 3);
	assert_int_equal(mailbox->when_full, FULL_WAIT);
	assert_int_equal(mailbox->max_wait_ms, 4 * 3600 * 1000);
	assert_int_equal(mailbox->then, FULL_DEFER);
	conf_free(&conf);
	conf_free(&conf);
}

/* The manual's example. */
static const char example[] =
	"postmaster = \"it@contoso.com\"\n"
	"tenants: {\n"
	"  contoso: {\n"
	"    id          = \"contoso.onmicrosoft.com\"    # tenant id or domain\n"
	"    client_id   = \"11111111-2222-3333-4444-555555555555\"\n"
	"    certificate = \"certificate\"  // or secret_file\n"
	"    private_key = \"key\"\n"
	"    accepted_domains = [\"contoso.com\", \"Contoso.onmicrosoft.com\"]\n"
	"    licences    = 250\n"
	"  }\n"
	"}\n"
	"mailboxes: {\n"
	"  relay: {                                     # transport relay365-relay in Postfix\n"
	"    address = \"Relay@contoso.com\"\n"
	"    tenant  = \"contoso\"\n"
	"    senders = [\"*@Contoso.com\"]\n"
	"    default = true\n"
	"    recipients_per_day = 9500\n"
	"    other_senders = \"rewrite\"\n"
	"    reserve_for_priority = 10                  # percent\n"
	"    when_full = \"wait\"  max_wait = \"4h\"  then = \"defer\"\n"
	"  }\n"
	"}\n"
	"sources: {\n"
	"  monitoring: { clients = [\"10.1.0.5\"]  priority = true }\n"
	"  erp:        { logins = [\"ERP\"]  mailboxes = [\"relay\"] }\n"
	"}\n"
	"limits: {\n"
	"  per-user: { per = \"source\"  count = \"messages\"    max = 500  window = \"24h\"  "
	"action = \"reject\" }\n"
	"  runaway:  { per = \"source\"  count = \"recipients\"  max = 500  window = \"1h\"   "
	"action = \"hold\"  shadow = true }\n"
	"}\n";

static void test_example(void **state)
{
	struct conf *conf = load_good(example);
	const struct conf_mailbox *mailbox = &conf->mailbox[0];

	(void)state;
	assert_string_equal(conf->postmaster, "it@contoso.com");
	assert_string_equal(conf->tenant[0].private_key, "key");
	assert_int_equal(conf->tenant[0].accepted_domains.count, 2);
	assert_string_equal(conf->tenant[0].accepted_domains.item[1], "contoso.onmicrosoft.com");
	assert_string_equal(mailbox->address, "relay@contoso.com");
	assert_string_equal(mailbox->senders.item[0], "*@contoso.com");
	assert_int_equal(mailbox->recipients_per_day, 9500);
	assert_int_equal(mailbox->other_senders, OTHERS_REWRITE);
	assert_int_equal(mailbox->reserve_for_priority, 10);
	assert_int_equal(conf->tenant[0].external_recipients_per_day, 33352);
	assert_int_equal(conf->sources, 2);
	assert_true(conf->source[0].priority);
	assert_string_equal(conf->source[1].logins.item[0], "erp");
	assert_int_equal(conf->limits, 2);
	assert_string_equal(conf->limit[1].name, "runaway");
	assert_int_equal(conf->limit[1].action, FULL_HOLD);
	assert_int_equal(conf->limit[1].window_ms, 3600 * 1000);
	assert_true(conf->limit[1].shadow);
	assert_ptr_equal(conf_mailbox_by_name(conf, "relayed", 5), mailbox);
	assert_null(conf_mailbox_by_name(conf, "relayed", 7));
	assert_null(conf_mailbox_by_name(conf, "relay", 4));
	assert_ptr_equal(conf_mailbox_by_address(conf, "RELAY@contoso.COM"), mailbox);
	assert_null(conf_mailbox_by_address(conf, "relay@contoso.co"));
	conf_free(&conf);
}

static void test_values(void **state)
{
	struct conf *conf = load_good(
		"log = \"stderr\"\nlog_format = \"json\"\nlog_debug = true\nshadow = true\n"
		"on_ledger_error = \"accept\"\ntoken_users = []\nqueue_directories = ()\n"
		"relay_hosts = [\"a\", \"b\"]\ncontrol_group = \"\"\n" TENANT
		"mailboxes: { a-1: { address = \"a@b\" senders = [] max_wait = \"90m\" "
		"when_full = \"reject\" then = \"reject\" connections = 0x10 "
		"recipients_per_day = 100L } }\n");
	const struct conf_mailbox *mailbox = &conf->mailbox[0];

	(void)state;
	assert_true(conf->log_to_stderr && conf->log_json && conf->log_debug && conf->shadow &&
		    conf->accept_on_ledger_error);
	/* An empty list is that, not the default. */
	assert_int_equal(conf->token_users.count, 0);
	assert_int_equal(conf->queue_directories.count, 0);
	assert_int_equal(conf->relay_hosts.count, 2);
	assert_int_equal(mailbox->senders.count, 0);
	assert_int_equal(mailbox->max_wait_ms, 90 * 60 * 1000);
	assert_int_equal(mailbox->when_full, FULL_REJECT);
	assert_int_equal(mailbox->then, FULL_REJECT);
	assert_int_equal(mailbox->connections, 16);
	assert_int_equal(mailbox->recipients_per_day, 100);
	assert_int_equal(mailbox->recipients_per_message, 100); /* never over the day's */
	conf_free(&conf);
}

static void test_clouds(void **state)
{
	static const struct {
		const char *line;
		const char *endpoint, *scope, *smtp_host;
	} cases[] = {
		{"cloud = \"global\"\n",
		 "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
		 "https://outlook.office365.com/.default", "smtp.office365.com"},
		{"cloud = \"usgov\"\n",
		 "https://login.microsoftonline.us/contoso.onmicrosoft.com/oauth2/v2.0/token",
		 "https://outlook.office365.us/.default", "smtp.office365.us"},
		{"cloud = \"china\"\n",
		 "https://login.partner.microsoftonline.cn/contoso.onmicrosoft.com/oauth2/v2.0/"
		 "token",
		 "https://partner.outlook.cn/.default", "smtp.partner.outlook.cn"},
		{"cloud = \"custom\"\ntoken_endpoint = \"https://e/t\"\nscope = \"s\"\n"
		 "smtp_host = \"h\"\n",
		 "https://e/t", "s", "h"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[1024];
		struct conf *conf;

		(void)snprintf(text, sizeof(text),
			       "tenants: { t: { " ID CLIENT SECRET "%s } }\n%s", cases[i].line,
			       MAILBOX);
		conf = load_good(text);
		assert_string_equal(conf->tenant[0].token_endpoint, cases[i].endpoint);
		assert_string_equal(conf->tenant[0].scope, cases[i].scope);
		assert_string_equal(conf->tenant[0].smtp_host, cases[i].smtp_host);
		conf_free(&conf);
	}
}

static void test_transaction_recipients(void **state)
{
	static const struct {
		int64_t day, message, transaction;
	} cases[] = {
		{10000, 500, 500}, {9500, 500, 475}, {100, 100, 5},
		{19, 19, 1},	   {1, 1, 1},	     {1000000, 1000, 1000},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf_mailbox mailbox = {.recipients_per_day = cases[i].day,
					       .recipients_per_message = cases[i].message};

		assert_int_equal(conf_transaction_recipients(&mailbox), cases[i].transaction);
	}
}

static void add_mailboxes(struct buf *text, int mailboxes, int senders)
{
	assert_int_equal(buf_adds(text, TENANT "mailboxes: {\n"), 0);
	for (int i = 0; i < mailboxes; i++) {
		(void)buf_addf(text, "m%d: { address = \"m%d@contoso.com\" senders = [", i, i);
		for (int j = 0; j < senders; j++)
			(void)buf_addf(text, "%s\"user%d-%d@contoso.com\"", j == 0 ? "" : ", ", i,
				       j);
		(void)buf_adds(text, "] }\n");
	}
	(void)buf_adds(text, "}\n");
	assert_false(text->overflowed);
}

static void test_many_mailboxes(void **state)
{
	struct buf text = BUF_INIT(4 << 20);
	int64_t began;
	struct conf *conf;

	(void)state;
	add_mailboxes(&text, 1000, 10);
	began = clock_boot_ms();
	conf = load_good(buf_text(&text));
	/* Far above what it takes, even with a sanitizer. */
	assert_true(clock_boot_ms() - began < 5000);
	assert_int_equal(conf->mailboxes, 1000);
	assert_string_equal(conf_mailbox_by_name(conf, "m999", 4)->address, "m999@contoso.com");
	assert_false(conf->mailbox[0].is_default);
	conf_free(&conf);
	buf_clear(&text);
}

/* ---- the table of keys ---- */

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < conf_keys_count; i++) {
		const struct conf_key *key = &conf_keys[i];
		size_t doc = strlen(key->doc);

		assert_ptr_equal(conf_key_find(key->section, key->name), key);
		assert_int_equal(strspn(key->name, "abcdefghijklmnopqrstuvwxyz_"),
				 strlen(key->name));
		assert_true(doc > 0 && doc < 100 && key->doc[doc - 1] != '.');
		assert_true(key->min <= key->max);
		assert_int_equal(key->choices != NULL, key->type == CONF_CHOICE);
		assert_string_equal(conf_key_alike(key->section, key->name), key->name);
	}
	assert_string_equal(conf_key_alike(CONF_MAILBOX, "conections"), "connections");
	assert_string_equal(conf_key_alike(CONF_TENANT, "clientid"), "client_id");
	assert_string_equal(conf_key_alike(CONF_TOP, "tokenusers"), "token_users");
	assert_null(conf_key_alike(CONF_MAILBOX, "zzzzzzzz"));
	assert_null(conf_key_alike(CONF_TENANT, ""));
}

#define IN_TEMP(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TEMP(test_mistakes),	      IN_TEMP(test_no_file),
		IN_TEMP(test_include),	      IN_TEMP(test_defaults),
		IN_TEMP(test_example),	      IN_TEMP(test_values),
		IN_TEMP(test_clouds),	      cmocka_unit_test(test_transaction_recipients),
		IN_TEMP(test_many_mailboxes), cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
