#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "conf/conf_reload.h"
#include "conf/conf_table.h"
#include "test_conf_kit.h"

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

/* MTAs have several ways to write a client's address. */
static void test_clients(void **state)
{
	static const struct {
		const char *client, *text, *source;
	} cases[] = {
		{"10.1.0.5", "10.1.0.5", "four"},
		{"::ffff:10.1.0.5", "10.1.0.5", "four"},
		{"IPv6:::ffff:10.1.0.5", "10.1.0.5", "four"},
		{"IPv6:0:0:0:0:0:FFFF:A01:5", "10.1.0.5", "four"},
		{"10.1.1.5", "10.1.1.5", "mapped"},
		{"::1", "::1", "six"},
		{"IPv6:0:0:0:0:0:0:0:1", "::1", "six"},
		{"ipv6:2001:DB8:0:0:0:0:0:5", "2001:db8::5", "six"},
		{"2001:db9::5", "2001:db9::5", NULL},
		{"", "", NULL},
		{"IPv6:nonsense", "IPv6:nonsense", NULL},
		{"10.1.0.5/24", "10.1.0.5/24", "four"},
		{"2001:db8::5/0", "2001:db8::5/0", "six"},
		{"a.login", "a.login", NULL},
	};
	struct conf *conf = load_good(
		TENANT MAILBOX
		"sources: {\n"
		" four:   { clients = [\"10.1.0.0/24\"] }\n"
		" mapped: { clients = [\"::ffff:10.1.1.0/120\"] }\n"
		" six:    { clients = [\"0:0::1\", \"2001:db8::/32\"] }\n"
		"}\n"
		"limits: { l: { per = \"source\" count = \"messages\" max = 1 window = \"1h\"\n"
		" overrides = [\"2001:DB8:0::5=7\", \"erp=8\"] except = [\"::0001\"] } }\n");

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct conf_source *source =
			conf_source_of(conf, NULL, cases[i].client, NULL);
		char text[64];

		conf_client_text(cases[i].client, text, sizeof(text));
		assert_string_equal(text, cases[i].text);
		if (cases[i].source == NULL
			    ? source != NULL
			    : source == NULL || strcmp(source->name, cases[i].source) != 0)
			fail_msg("%s is %s", text, source == NULL ? "nobody" : source->name);
	}
	assert_string_equal(conf->limit[0].override[0].key, "2001:db8::5");
	assert_string_equal(conf->limit[0].except.item[0], "::1");
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

/* Users sign in for one permission; an Azure machine asks itself. */
static void test_clouds_of_users(void **state)
{
	static const struct {
		const char *line, *scope, *device, *authorize;
	} cases[] = {
		{"", "https://outlook.office.com/SMTP.Send offline_access",
		 "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/"
		 "devicecode",
		 "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/"
		 "authorize"},
		{"cloud = \"usgov\"\n", "https://outlook.office365.us/SMTP.Send offline_access",
		 "https://login.microsoftonline.us/contoso.onmicrosoft.com/oauth2/v2.0/"
		 "devicecode",
		 "https://login.microsoftonline.us/contoso.onmicrosoft.com/oauth2/v2.0/"
		 "authorize"},
		{"cloud = \"china\"\n", "https://partner.outlook.cn/SMTP.Send offline_access",
		 "https://login.partner.microsoftonline.cn/contoso.onmicrosoft.com/oauth2/v2.0/"
		 "devicecode",
		 "https://login.partner.microsoftonline.cn/contoso.onmicrosoft.com/oauth2/v2.0/"
		 "authorize"},
	};
	struct conf *conf;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[1024];

		(void)snprintf(text, sizeof(text),
			       "tenants: { t: { " ID CLIENT "delegated = true\n%s } }\n%s",
			       cases[i].line, MAILBOX);
		conf = load_good(text);
		assert_string_equal(conf->tenant[0].scope, cases[i].scope);
		assert_string_equal(conf->tenant[0].device_endpoint, cases[i].device);
		assert_string_equal(conf->tenant[0].authorize_endpoint, cases[i].authorize);
		conf_free(&conf);
	}
	conf = load_good("tenants: { t: { " ID "managed_identity = true\n } }\n" MAILBOX);
	assert_string_equal(conf->tenant[0].token_endpoint, CONF_IMDS_ENDPOINT);
	assert_string_equal(conf->tenant[0].client_id, "");
	conf_free(&conf);
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
	struct conf *conf;

	(void)state;
	add_mailboxes(&text, 1000, 10);
	conf = load_good(buf_text(&text));
	assert_int_equal(conf->mailboxes, 1000);
	assert_string_equal(conf_mailbox_by_name(conf, "m999", 4)->address, "m999@contoso.com");
	for (size_t i = 0; i < conf->mailboxes; i++)
		assert_ptr_equal(conf_mailbox_by_address(conf, conf->mailbox[i].address),
				 &conf->mailbox[i]);
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

/* ---- what counts at the start only ---- */

static void test_reload(void **state)
{
	static const struct {
		const char *text;
		const char *tokend, *milter, *submit;
	} cases[] = {
		{"", "", "", ""},
		{"shadow = true\n", "", "", ""},
		{"log = \"stderr\"\n", "log", "log", "log"},
		{"log_format = \"json\"\nlog_debug = true\n", "log_format, log_debug",
		 "log_format, log_debug", "log_format, log_debug"},
		{"queue_directories = []\n", "queue_directories", "queue_directories", ""},
		{"queue_directories = [\"/var/spool\", \"/postfix\"]\n", "queue_directories",
		 "queue_directories", ""},
		{"queue_directories = [\"/var/spool/postfix\"]\n", "", "", ""},
		{"state_dir = \"/a\"\nrun_dir = \"/b\"\n", "state_dir, run_dir", "", ""},
		{"milter_state_dir = \"/a\"\nmilter_run_dir = \"/b\"\n", "",
		 "milter_state_dir, milter_run_dir", ""},
		{"milter_socket = \"inet:8365@127.0.0.1\"\n", "", "milter_socket", ""},
		{"submit_run_dir = \"/a\"\nsubmit_listen = \"127.0.0.1:10587\"\n", "", "",
		 "submit_run_dir, submit_listen"},
		{"control_group = \"adm\"\n", "control_group", "control_group", "control_group"},
	};
	static const enum conf_daemon daemons[] = {CONF_TOKEND, CONF_MILTER, CONF_SUBMIT};
	struct conf *first = load_good(TENANT MAILBOX);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *const wanted[] = {cases[i].tokend, cases[i].milter, cases[i].submit};
		char text[2000], restart[CONF_RESTART_MAX];
		struct conf *conf;

		(void)snprintf(text, sizeof(text), "%s%s", cases[i].text, TENANT MAILBOX);
		conf = load_good(text);
		for (size_t d = 0; d < ARRAY_LEN(daemons); d++) {
			conf_reload_started(first, daemons[d]);
			assert_string_equal(conf_reload_restart_for(conf, restart), wanted[d]);
		}
		conf_free(&conf);
	}
	conf_free(&first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TEMP(test_defaults),
		IN_TEMP(test_example),
		IN_TEMP(test_values),
		IN_TEMP(test_clients),
		IN_TEMP(test_clouds),
		IN_TEMP(test_clouds_of_users),
		cmocka_unit_test(test_transaction_recipients),
		IN_TEMP(test_many_mailboxes),
		cmocka_unit_test(test_table),
		IN_TEMP(test_reload),
	};

	return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
