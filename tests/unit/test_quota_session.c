#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "milter/session.h"

#include "base/clock.h"
#include "quota/limits.h"
#include "milter/route.h"

#include <unistd.h>

#include "temp.h"

#define MINUTE 60000LL
#define T0 (1795442825000LL / MINUTE * MINUTE) /* 14:07 UTC */

/* Linked with --wrap: the clocks are the tests'. */
static _Atomic int64_t wall_ms, boot_ms; /* a thread of the locks reads them too */
int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_boot_ms(void);

int64_t __wrap_clock_wall_ms(void)
{
	return wall_ms;
}

int64_t __wrap_clock_boot_ms(void)
{
	return boot_ms;
}

static struct {
	struct live *live;
	struct quota *quota;
	struct locks *locks;
	struct usage *usage;
	struct session *session;
	struct reply reply;
	struct session_outcome outcome;
} t;

/* A configuration with these settings for the mailbox "relay", and more at the top. */
static const char *write_conf(const char *relay, const char *top)
{
	static char text[2048];

	(void)temp_write("secret", "x", 1, 0600);
	(void)snprintf(
		text, sizeof(text),
		"tenants: { contoso: { id = \"contoso.com\"; client_id = \"1-2\";"
		" secret_file = \"%s\"; accepted_domains = [\"contoso.com\"]; }; };\n"
		"mailboxes: {\n"
		" relay: { address = \"Relay@contoso.com\"; tenant = \"contoso\"; default = true;"
		" senders = [\"*@contoso.com\"]; %s };\n"
		" erp: { address = \"erp@contoso.com\"; tenant = \"contoso\";"
		" senders = [\"erp@contoso.com\", \"*@erp.contoso.com\"];"
		" recipients_per_day = 4; when_full = \"reject\"; };\n"
		"};\nrelay_hosts = [\"smtp.office365.com\", \"office365\"];\n%s\n",
		temp_path("secret"), relay, top);
	return temp_text("relay365.conf", text);
}

static void begin(const char *relay, const char *top)
{
	struct quota_limit *limits;
	struct err err = ERR_INIT;
	struct conf *conf = conf_load(write_conf(relay, top), &err);
	size_t count;

	if (conf == NULL)
		fail_msg("%s", err.text);
	limits = limits_from_conf(conf, &count);
	t.quota = quota_open(temp_path("ledger.db"), limits, count, &err);
	assert_non_null(t.quota);
	free(limits);
	t.locks = locks_open(temp_path("locks"), NULL);
	t.live = live_new(conf, t.quota, t.locks);
	t.usage = usage_open(temp_path("sources"));
	t.session = session_new(t.live, t.quota, t.usage);
}

static int enter(void **state)
{
	wall_ms = T0;
	boot_ms = 1000000;
	memset(&t, 0, sizeof(t));
	return temp_enter(state);
}

static int leave(void **state)
{
	session_free(&t.session);
	live_free(&t.live);
	quota_close(&t.quota);
	locks_close(&t.locks);
	usage_free(&t.usage);
	return temp_leave(state);
}

static void mail(const char *sender)
{
	struct session_mail m = {.sender = sender, .client = "10.1.0.5"};

	session_mail(t.session, &m);
}

static void simulated_mail(const char *sender)
{
	struct session_mail m = {
		.sender = sender, .client = "127.0.0.1", .queue_id = "4XyZ", .simulated = true};

	session_mail(t.session, &m);
}

/* Of mail from sendmail(1) the MTA tells no transport, but what is local. */
static enum session_result submit(const char *recipient, const char *local)
{
	struct session_rcpt r = {.recipient = recipient, .local = local};

	return session_rcpt(t.session, &r, &t.reply);
}

/* "" when the recipient is taken, else the reply's text with its codes. */
static const char *rcpt(const char *recipient, const char *mailer, const char *host)
{
	struct session_rcpt r = {.recipient = recipient, .mailer = mailer, .host = host};
	static char text[sizeof(struct reply) + 8];

	if (session_rcpt(t.session, &r, &t.reply) == SESSION_CONTINUE)
		return "";
	(void)snprintf(text, sizeof(text), "%s %s %s", t.reply.code, t.reply.status,
		       t.reply.text);
	return text;
}

static const char *to_relay(const char *recipient)
{
	return rcpt(recipient, "relay365-relay", "smtp.office365.com");
}

static enum session_result end(void)
{
	struct session_ending ending = {
		.queue_id = "4XyZ", .saw_header = true, .can_change = true, .can_hold = true};

	sender_change_clear(&t.outcome.change);
	return session_end(t.session, &ending, &t.outcome);
}

static int64_t used(const char *address)
{
	struct quota_row row;

	quota_look(t.quota, LIMITS_DAY, address, &row);
	return row.used + 1000 * row.reserved;
}

static void test_accept(void **state)
{
	(void)state;
	begin("recipients_per_day = 100; when_full = \"defer\";", "");
	mail("<someone@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	assert_string_equal(to_relay("<b@Contoso.com>"), "");
	assert_string_equal(rcpt("<local@mx.local>", "local", "mx.local"), "");
	assert_string_equal(rcpt("<x@y.z>", "relay365-nobody", "y.z"), "");
	assert_int_equal(used("relay@contoso.com"), 2000);
	assert_int_equal(end(), SESSION_CONTINUE);
	assert_int_equal(used("relay@contoso.com"), 2);
	session_abort(t.session);
	session_abort(t.session);
	assert_int_equal(used("relay@contoso.com"), 2);
}

/* Whatever ends a message gives back what it had reserved. */
static void test_no_message(void **state)
{
	(void)state;
	begin("recipients_per_day = 100; when_full = \"defer\";", "");
	mail("<a@contoso.com>");
	(void)to_relay("<a@example.com>");
	session_abort(t.session);
	assert_int_equal(used("relay@contoso.com"), 0);
	assert_string_equal(to_relay("<a@example.com>"), ""); /* no MAIL: not a message */
	assert_int_equal(end(), SESSION_CONTINUE);
	mail("<a@contoso.com>");
	(void)to_relay("<a@example.com>");
	mail("<a@contoso.com>");
	assert_int_equal(used("relay@contoso.com"), 0);
	(void)to_relay("<a@example.com>");
	session_free(&t.session);
	assert_int_equal(used("relay@contoso.com"), 0);
}

static void test_refusals(void **state)
{
	(void)state;
	begin("recipients_per_day = 3; recipients_per_message = 2; when_full = \"defer\";", "");
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	assert_string_equal(to_relay("<b@example.com>"), "");
	assert_string_equal(to_relay("<c@example.com>"),
			    "452 4.5.3 relay@contoso.com: a message may have 2 recipients; send "
			    "it to the others once more");
	assert_int_equal(end(), SESSION_CONTINUE);
	wall_ms += MINUTE;
	boot_ms += MINUTE;
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	assert_string_equal(to_relay("<b@example.com>"),
			    "451 4.7.1 relay@contoso.com: 3 of 3 recipients used in 24 h; room "
			    "for 2 at 2026-11-24 14:08 UTC");
	assert_int_equal(end(), SESSION_CONTINUE);
	mail("<ERP@contoso.com>");
	for (int i = 0; i < 4; i++)
		assert_string_equal(rcpt("<a@example.com>", "relay365-erp", ""), "");
	assert_int_equal(end(), SESSION_CONTINUE);
	mail("<erp@contoso.com>");
	assert_string_equal(rcpt("<a@example.com>", "relay365-erp", ""),
			    "550 5.7.1 erp@contoso.com: 4 of 4 recipients used in 24 h; room for "
			    "4 at 2026-11-24 14:09 UTC");
	assert_int_equal(end(), SESSION_CONTINUE);
}

static void test_hold(void **state)
{
	static const struct session_ending no_quarantine = {.queue_id = "4XyZ"};

	(void)state;
	begin("recipients_per_day = 1; when_full = \"hold\";", "");
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	assert_int_equal(end(), SESSION_CONTINUE);
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<b@example.com>"), "");
	assert_int_equal(end(), SESSION_HOLD);
	assert_string_equal(t.outcome.reason,
			    "relay@contoso.com: 1 of 1 recipients used in 24 h");
	assert_int_equal(used("relay@contoso.com"), 2);
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<b@example.com>"), "");
	assert_int_equal(session_end(t.session, &no_quarantine, &t.outcome), SESSION_REFUSE);
	assert_string_equal(t.outcome.reply.code, "451");
	assert_int_equal(used("relay@contoso.com"), 2);
}

/* A message is as large as it was said to be, or as it is. */
static void test_bytes(void **state)
{
	static const struct {
		int64_t announced;
		size_t body;
		int64_t used;
	} cases[] = {{0, 50, 16 + 50}, {500, 50, 66 + 500}, {1, 90, 566 + 106}};
	struct session_ending ending = {.queue_id = "4XyZ", .saw_header = true, .saw_body = true};
	struct quota_row row;

	(void)state;
	begin("", "limits: { volume: { per = \"source\"; count = \"bytes\"; max = 1000;"
		  " window = \"1h\"; }; };");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct session_mail m = {.sender = "<a@contoso.com>",
					 .client = "10.1.0.5",
					 .bytes = cases[i].announced};

		session_mail(t.session, &m);
		assert_string_equal(to_relay("<a@example.com>"), "");
		assert_string_equal(to_relay("<b@example.com>"), "");
		session_field(t.session, "X", "12345\n 789"); /* 16 with its line ends */
		session_body(t.session, cases[i].body);
		assert_int_equal(session_end(t.session, &ending, &t.outcome), SESSION_CONTINUE);
		quota_look(t.quota, "volume", "10.1.0.5", &row);
		assert_int_equal(row.used, cases[i].used);
	}
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	session_body(t.session, 1000 - 672 + 1);
	assert_int_equal(session_end(t.session, &ending, &t.outcome), SESSION_REFUSE);
	assert_string_equal(t.outcome.reply.code, "550");
	quota_look(t.quota, "volume", "10.1.0.5", &row);
	assert_int_equal(row.used + row.reserved, 672);
}

static void test_shadow(void **state)
{
	(void)state;
	begin("recipients_per_day = 1; recipients_per_message = 1; when_full = \"reject\";",
	      "shadow = true;");
	mail("<a@contoso.com>");
	for (int i = 0; i < 5; i++)
		assert_string_equal(to_relay("<a@example.com>"), "");
	assert_int_equal(end(), SESSION_CONTINUE);
	assert_int_equal(used("relay@contoso.com"), 5);
}

/* The MTA plays a session: no RCPT is refused, the message is, at its end. */
static void test_simulated(void **state)
{
	(void)state;
	begin("recipients_per_day = 3; recipients_per_message = 2; when_full = \"defer\";", "");
	simulated_mail("<root@contoso.com>");
	for (int i = 0; i < 3; i++)
		assert_string_equal(rcpt("<a@example.com>", NULL, NULL), "");
	/* These stay here. */
	assert_int_equal(submit("<root@mx.local>", "mx.local, localhost"), SESSION_CONTINUE);
	assert_int_equal(submit("<root@localhost>", "mx.local, localhost"), SESSION_CONTINUE);
	assert_int_equal(end(), SESSION_CONTINUE);
	assert_int_equal(used("relay@contoso.com"), 3);
	simulated_mail("<root@contoso.com>");
	assert_string_equal(rcpt("<a@example.com>", NULL, NULL), "");
	assert_string_equal(rcpt("<b@example.com>", NULL, NULL), "");
	assert_int_equal(end(), SESSION_REFUSE);
	assert_string_equal(t.outcome.reply.code, "451");
	assert_int_equal(used("relay@contoso.com"), 3);
	simulated_mail("<erp@contoso.com>"); /* its own mailbox, and more than that can hold */
	for (int i = 0; i < 5; i++)
		assert_string_equal(rcpt("<a@example.com>", NULL, NULL), "");
	assert_int_equal(end(), SESSION_REFUSE);
	assert_string_equal(t.outcome.reply.code, "550");
	assert_string_equal(t.outcome.reply.status, "5.7.1");
	assert_int_equal(used("erp@contoso.com"), 0);
}

static void lock_source(const char *key)
{
	struct lock lock = {.reason = "spam", .by = "admin"};

	(void)snprintf(lock.key, sizeof(lock.key), "%s", key);
	assert_int_equal(locks_add(t.locks, &lock, 0, NULL), 0);
}

/* A client by its address, however that is written; mail from sendmail(1) has no client. */
static void test_client(void **state)
{
	struct session_mail m = {.sender = "<a@contoso.com>", .client = "IPv6:0:0:0:0:0:0:0:1"};

	(void)state;
	begin("", "sources: { printer: { clients = [\"::1\"]; mailboxes = [\"erp\"]; }; };");
	session_mail(t.session, &m);
	assert_string_equal(
		to_relay("<b@example.com>"),
		"550 5.7.1 source printer may not send through relay@contoso.com; its "
		"mailboxes in relay365.conf say so");
	lock_source("source:::1");
	session_mail(t.session, &m);
	assert_string_equal(to_relay("<b@example.com>"), "550 5.7.1 source ::1 is locked: spam");
	lock_source("source:127.0.0.1");
	simulated_mail("<root@contoso.com>");
	assert_string_equal(rcpt("<b@example.com>", NULL, NULL), "");
	assert_int_equal(end(), SESSION_CONTINUE);
	assert_int_equal(used("relay@contoso.com"), 1);
	lock_source("source:local");
	simulated_mail("<root@contoso.com>");
	assert_string_equal(rcpt("<b@example.com>", NULL, NULL), "");
	assert_int_equal(end(), SESSION_REFUSE);
}

static void test_ledger_error(void **state)
{
	(void)state;
	begin("recipients_per_day = 3; when_full = \"defer\";", "");
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	quota_shut(t.quota);
	assert_int_equal(end(), SESSION_REFUSE);
	assert_string_equal(t.outcome.reply.code, "451");
	assert_string_equal(t.outcome.reply.status, "4.3.0");
	assert_int_equal(used("relay@contoso.com"), 0);
}

static void test_ledger_error_accepted(void **state)
{
	(void)state;
	begin("recipients_per_day = 3; when_full = \"defer\";", "on_ledger_error = \"accept\";");
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	quota_shut(t.quota);
	assert_int_equal(end(), SESSION_CONTINUE);
	assert_int_equal(used("relay@contoso.com"), 1);
}

static void test_reload(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	begin("recipients_per_day = 3; when_full = \"defer\";", "");
	mail("<a@contoso.com>");
	assert_string_equal(to_relay("<a@example.com>"), "");
	assert_string_equal(to_relay("<b@example.com>"), "");
	(void)write_conf("recipients_per_day = 2; when_full = \"defer\";", "");
	assert_int_equal(live_reload(t.live, &err), 0);
	assert_string_not_equal(to_relay("<c@example.com>"), ""); /* counts at once */
	assert_int_equal(end(), SESSION_CONTINUE);
	(void)write_conf("recipients_per_day = \"many\";", "");
	assert_int_equal(live_reload(t.live, &err), -1);
	assert_non_null(strstr(err.text, "relay365.conf:"));
	mail("<a@contoso.com>");
	assert_string_not_equal(to_relay("<a@example.com>"), "");
	assert_int_equal(used("relay@contoso.com"), 2);
}

static void test_route(void **state)
{
	static const struct {
		const char *mailer, *host, *sender, *mailbox;
	} cases[] = {
		{"relay365-erp", "x", "anybody@else.where", "erp"},
		{"relay365-", "x", "a@contoso.com", NULL},
		{"relay365-er", "x", "a@contoso.com", NULL},
		{"smtp", "other.example", "a@contoso.com", NULL},
		{"error", "5.1.1", "a@contoso.com", NULL},
		{NULL, NULL, "a@contoso.com", NULL},
		{"relay", "office365", "a@contoso.com", "relay"},
		{"relay", "OFFICE365", "erp@contoso.com", "erp"},
		{"relay", "[smtp.office365.com]", "ERP@Contoso.com", "erp"},
		{"smtp", "[smtp.office365.com]:587", "x@erp.contoso.com", "erp"},
		{"smtp", "smtp.office365.com:587", "x@sub.erp.contoso.com", "relay"},
		{"smtp", "smtp.office365.com", "", "relay"}, /* the null sender */
		{"smtp", "smtp.office365.com", "a@else.where", "relay"},
		{"smtp", "[]", "a@contoso.com", NULL},
		{"smtp", "", "a@contoso.com", NULL},
	};
	struct live_conf *live;

	(void)state;
	begin("", "");
	live = live_get(t.live);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct conf_mailbox *m = route_mailbox(live_conf(live), cases[i].mailer,
							     cases[i].host, cases[i].sender);

		if (cases[i].mailbox == NULL
			    ? m != NULL
			    : m == NULL || strcmp(m->name, cases[i].mailbox) != 0)
			fail_msg("case %zu: %s", i, m == NULL ? "none" : m->name);
	}
	live_put(&live);
}

/* Whose session began when no host was asked for is not let past relay_hosts. */
static void test_hostless(void **state)
{
	struct session_rcpt ours = {"<a@example.com>", "relay365-relay", NULL, true, NULL, NULL};
	struct session_rcpt other = {"<a@example.com>", "smtp", NULL, true, NULL, NULL};

	(void)state;
	begin("", "");
	mail("<someone@contoso.com>");
	assert_int_equal(session_rcpt(t.session, &ours, &t.reply), SESSION_CONTINUE);
	assert_int_equal(session_rcpt(t.session, &other, &t.reply), SESSION_REFUSE);
	assert_string_equal(t.reply.code, "451");
	assert_string_equal(rcpt("<a@example.com>", "smtp", "elsewhere"), "");
	assert_int_equal(used("relay@contoso.com"), 1000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_accept),	 TEST(test_no_message), TEST(test_refusals),
		TEST(test_hold),	 TEST(test_shadow),	TEST(test_simulated),
		TEST(test_ledger_error), TEST(test_reload),	TEST(test_ledger_error_accepted),
		TEST(test_route),	 TEST(test_hostless),	TEST(test_client),
		TEST(test_bytes),
	};

	return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
