#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "maillog/mails.h"

#define NOW 1795689494000LL
#define AT "2026-11-26T10:38:"

static struct mails *mails;

static int enter(void **state)
{
	(void)state;
	mails = mails_new();
	return 0;
}

static int leave(void **state)
{
	(void)state;
	mails_free(&mails);
	return 0;
}

static void feed(const char *const *lines, size_t count)
{
	struct logline line;

	for (size_t i = 0; i < count; i++) {
		if (!logline_parse(lines[i], strlen(lines[i]), NOW, &line))
			fail_msg("%s", lines[i]);
		assert_true(mails_add(mails, &line));
	}
}

struct wanted {
	const char *id, *sender, *login, *client, *recipients;
	int64_t bytes;
};

static void check(const struct wanted *wanted, size_t count)
{
	size_t n;
	const struct mail *all = mails_all(mails, &n);

	assert_int_equal(n, count);
	for (size_t i = 0; i < n; i++) {
		char recipients[512] = "";
		size_t at = 0;

		for (size_t j = 0; j < all[i].recipients; j++)
			at += (size_t)snprintf(recipients + at, sizeof(recipients) - at, "%s%s",
					       j == 0 ? "" : " ", all[i].recipient[j]);
		assert_string_equal(all[i].id, wanted[i].id);
		assert_string_equal(all[i].sender, wanted[i].sender);
		assert_string_equal(all[i].login, wanted[i].login);
		assert_string_equal(all[i].client, wanted[i].client);
		assert_string_equal(recipients, wanted[i].recipients);
		assert_int_equal(all[i].bytes, wanted[i].bytes);
	}
}

static void of_postfix(void **state)
{
	static const char *const lines[] = {
		AT "14Z gw postfix/smtpd[1]: connect from erp.test[10.1.0.5]",
		AT "14Z gw postfix/submission/smtpd[1]: 4FA2B1C00D: client=erp.test[10.1.0.5], "
		   "sasl_method=PLAIN, sasl_username=erp",
		AT "14Z gw postfix/cleanup[2]: 4FA2B1C00D: message-id=<x@y>",
		AT
		"14Z gw postfix/qmgr[3]: 4FA2B1C00D: from=<erp@contoso.com>, size=312, nrcpt=4 "
		"(queue active)",
		AT "15Z gw postfix/smtp[4]: 4FA2B1C00D: to=<a@example.net>, relay=none, delay=1, "
		   "dsn=4.4.1, status=deferred (connect: timed out)",
		AT "15Z gw postfix/relay/smtp[4]: 4FA2B1C00D: to=<b1@example.net>, "
		   "orig_to=<list@x>, "
		   "relay=smtp.office365.com[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
		AT "15Z gw postfix/relay/smtp[4]: 4FA2B1C00D: to=<b2@example.net>, "
		   "orig_to=<list@x>, "
		   "relay=smtp.office365.com[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
		AT "15Z gw postfix/local[5]: 4FA2B1C00D: to=<root@gw>, relay=local, dsn=2.0.0, "
		   "status=sent (delivered to mailbox)",
		/* another attempt */
		AT
		"45Z gw postfix/qmgr[3]: 4FA2B1C00D: from=<erp@contoso.com>, size=312, nrcpt=4 "
		"(queue active)",
		AT "46Z gw postfix/smtp[4]: 4FA2B1C00D: to=<a@example.net>, "
		   "relay=smtp.office365.com[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
		AT "46Z gw postfix/qmgr[3]: 4FA2B1C00D: removed",
		/* a bounce, and a message from before the log */
		AT
		"47Z gw postfix/qmgr[3]: 5FA2B1C00D: from=<>, size=999, nrcpt=1 (queue active)",
		AT "47Z gw postfix/smtp[4]: 5FA2B1C00D: to=<erp@contoso.com>, "
		   "relay=smtp.office365.com[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
		/* the id again; earlier than what came before it in the file */
		AT "12Z gw postfix/pickup[6]: 4FA2B1C00D: uid=0 from=<root>",
		AT "12Z gw postfix/qmgr[3]: 4FA2B1C00D: from=<root@gw>, size=10, nrcpt=1 (queue "
		   "active)",
		AT
		"13Z gw postfix/error[7]: 4FA2B1C00D: to=<c@example.net>, relay=none, dsn=4.4.1, "
		"status=deferred (delivery temporarily suspended: connect: timed out)",
		/* by way of a content filter */
		AT "50Z gw postfix/smtpd[1]: 6FA2B1C00D: client=crm.test[10.2.0.5]",
		AT "50Z gw postfix/qmgr[3]: 6FA2B1C00D: from=<crm@contoso.com>, size=7, nrcpt=1 "
		   "(queue active)",
		AT "51Z gw postfix/smtp[4]: 6FA2B1C00D: to=<d@example.net>, "
		   "relay=127.0.0.1[127.0.0.1]:10024, dsn=2.0.0, status=sent (250 queued)",
		AT "51Z gw postfix/smtpd[1]: 7FA2B1C00D: client=localhost[127.0.0.1], "
		   "orig_queue_id=6FA2B1C00D, orig_client=crm.test[10.2.0.5]",
		AT "51Z gw postfix/qmgr[3]: 7FA2B1C00D: from=<crm@contoso.com>, size=9, nrcpt=1 "
		   "(queue active)",
		AT "52Z gw postfix/smtp[4]: 7FA2B1C00D: to=<d@example.net>, "
		   "relay=smtp.office365.com[2603:1026::1]:587, dsn=2.0.0, status=sent (250 OK)",
	};
	static const struct wanted wanted[] = {
		{"4FA2B1C00D", "root@gw", "", "", "c@example.net", 10},
		{"4FA2B1C00D", "erp@contoso.com", "erp", "10.1.0.5", "a@example.net list@x", 312},
		{"6FA2B1C00D", "crm@contoso.com", "", "10.2.0.5", "", 7},
		{"7FA2B1C00D", "crm@contoso.com", "", "10.2.0.5", "d@example.net", 9},
	};

	(void)state;
	feed(lines, ARRAY_LEN(lines));
	check(wanted, ARRAY_LEN(wanted));
}

/* By postsuper -r: no milter is asked again, so it counts once. */
static void requeued(void **state)
{
	static const char *const lines[] = {
		AT "14Z gw postfix/smtpd[1]: 4FA2B1C00D: client=erp.test[10.1.0.5]",
		AT
		"14Z gw postfix/qmgr[3]: 4FA2B1C00D: from=<erp@contoso.com>, size=312, nrcpt=2 "
		"(queue active)",
		AT "15Z gw postfix/smtp[4]: 4FA2B1C00D: to=<a@example.net>, relay=none, delay=1, "
		   "dsn=4.4.1, status=deferred (connect: timed out)",
		AT "16Z gw postfix/postsuper[5]: 4FA2B1C00D: requeued",
		AT "17Z gw postfix/pickup[6]: 5FA2B1C00D: uid=102 from=<erp@contoso.com> "
		   "orig_id=4FA2B1C00D",
		AT
		"17Z gw postfix/qmgr[3]: 5FA2B1C00D: from=<erp@contoso.com>, size=462, nrcpt=2 "
		"(queue active)",
		AT "18Z gw postfix/smtp[4]: 5FA2B1C00D: to=<a@example.net>, relay=none, delay=1, "
		   "dsn=4.4.1, status=deferred (connect: timed out)",
		/* once more, and the queue id is the same by chance */
		AT "19Z gw postfix/pickup[6]: 5FA2B1C00D: uid=102 from=<erp@contoso.com> "
		   "orig_id=5FA2B1C00D",
		AT
		"19Z gw postfix/qmgr[3]: 5FA2B1C00D: from=<erp@contoso.com>, size=592, nrcpt=2 "
		"(queue active)",
		AT "20Z gw postfix/smtp[4]: 5FA2B1C00D: to=<b@example.net>, "
		   "relay=smtp.office365.com[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
		/* one from before the log, under an id that was another's */
		AT "21Z gw postfix/pickup[6]: 4FA2B1C00D: uid=102 from=<crm@contoso.com> "
		   "orig_id=6FA2B1C00D",
		AT "21Z gw postfix/smtp[4]: 4FA2B1C00D: to=<c@example.net>, "
		   "relay=smtp.office365.com[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
	};
	static const struct wanted wanted[] = {
		{"4FA2B1C00D", "erp@contoso.com", "", "10.1.0.5", "a@example.net b@example.net",
		 312},
	};

	(void)state;
	feed(lines, ARRAY_LEN(lines));
	check(wanted, ARRAY_LEN(wanted));
}

static void of_sendmail(void **state)
{
	static const char *const lines[] = {
		AT "14Z gw sm-mta[11]: AUTH=server, relay=erp.test [10.1.0.5], authid=erp, "
		   "mech=PLAIN, bits=0",
		AT
		"14Z gw sm-mta[11]: 6AQAcE0I000011: from=<erp@contoso.com>, size=312, class=0, "
		"nrcpts=3, msgid=<x@y>, proto=ESMTPSA, daemon=MTA, relay=erp.test [10.1.0.5]",
		AT "15Z gw sm-mta[12]: 6AQAcE0I000011: to=<a@example.net>,<b@example.net>, "
		   "ctladdr=<erp@contoso.com> (1/1), delay=00:00:01, mailer=relay, pri=1, "
		   "relay=smtp.office365.com. [52.1.2.3], dsn=2.0.0, stat=Sent (OK)",
		AT "15Z gw sm-mta[12]: 6AQAcE0I000011: to=root, delay=00:00:01, mailer=local, "
		   "pri=1, "
		   "dsn=2.0.0, stat=Sent",
		AT "16Z gw sendmail[13]: 6AQAcE0I000013: from=root, size=5, class=0, nrcpts=1, "
		   "msgid=<z@gw>, relay=root@localhost",
		AT
		"16Z gw sendmail[13]: 6AQAcE0I000013: to=c@example.net, ctladdr=root (0/0), "
		"delay=00:00:00, mailer=relay, pri=1, relay=[127.0.0.1] [127.0.0.1], dsn=2.0.0, "
		"stat=Sent (6AQAcE0I000014 Message accepted for delivery)",
		AT
		"16Z gw sm-mta[14]: 6AQAcE0I000014: from=<root@gw>, size=99, class=0, nrcpts=1, "
		"msgid=<z@gw>, proto=ESMTP, daemon=MTA, relay=localhost [127.0.0.1]",
		AT "17Z gw sm-mta[15]: 6AQAcE0I000014: to=<c@example.net>, delay=00:00:01, "
		   "mailer=esmtp, pri=1, relay=mx [IPv6:2001:db8::1], dsn=4.0.0, stat=Deferred",
	};
	static const struct wanted wanted[] = {
		{"6AQAcE0I000011", "erp@contoso.com", "erp", "10.1.0.5",
		 "a@example.net b@example.net", 312},
		{"6AQAcE0I000013", "root", "", "", "", 5},
		{"6AQAcE0I000014", "root@gw", "", "127.0.0.1", "c@example.net", 99},
	};

	(void)state;
	feed(lines, ARRAY_LEN(lines));
	check(wanted, ARRAY_LEN(wanted));
}

/* The tables grow, and ids come again. */
static void many(void **state)
{
	enum { N = 20000 };
	const struct mail *all;
	size_t n;

	(void)state;
	for (int i = 0; i < N; i++) {
		char text[3][256];
		const char *lines[3] = {text[0], text[1], text[2]};
		int id = i % 5000;

		(void)snprintf(text[0], sizeof(text[0]),
			       "2026-11-2%dT%02d:%02d:%02dZ gw postfix/smtpd[1]: %08XA: "
			       "client=x[10.0.%d.%d]",
			       1 + i / 5000, id / 3600, id / 60 % 60, id % 60, id, i / 256,
			       i % 256);
		(void)snprintf(
			text[1], sizeof(text[1]),
			"2026-11-26T00:00:00Z gw postfix/qmgr[1]: %08XA: from=<s%d@x>, size=1",
			id, i);
		(void)snprintf(
			text[2], sizeof(text[2]),
			"2026-11-26T00:00:00Z gw postfix/smtp[1]: %08XA: to=<r%d@x>, relay=none",
			id, i);
		feed(lines, 3);
	}
	all = mails_all(mails, &n);
	assert_int_equal(n, N);
	for (int i = 0; i < N; i++) {
		char sender[32];

		(void)snprintf(sender, sizeof(sender), "s%d@x", i);
		assert_string_equal(all[i].sender, sender);
		assert_int_equal(all[i].recipients, 1);
		assert_int_equal(all[i].recipient[0][0], 'r');
		assert_string_equal(all[i].recipient[0] + 1, sender + 1);
	}
}

/* The second queue id is of the next second already, the log's clock is not. */
static void in_the_order_of_the_log(void **state)
{
	static const char *const lines[] = {
		AT "15Z gw postfix/smtpd[1]: 00B1FAE7E8A: client=x[10.1.0.7]",
		AT "14Z gw postfix/smtpd[1]: F0C2DAE7E6B: client=x[10.1.0.5]",
		AT "14Z gw postfix/smtpd[1]: 0023FAE7E88: client=x[10.1.0.6]",
	};
	static const char *const wanted[] = {"F0C2DAE7E6B", "0023FAE7E88", "00B1FAE7E8A"};
	const struct mail *all;
	size_t n;

	(void)state;
	feed(lines, ARRAY_LEN(lines));
	all = mails_all(mails, &n);
	assert_int_equal(n, ARRAY_LEN(wanted));
	for (size_t i = 0; i < n; i++)
		assert_string_equal(all[i].id, wanted[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(of_postfix, enter, leave),
		cmocka_unit_test_setup_teardown(requeued, enter, leave),
		cmocka_unit_test_setup_teardown(of_sendmail, enter, leave),
		cmocka_unit_test_setup_teardown(many, enter, leave),
		cmocka_unit_test_setup_teardown(in_the_order_of_the_log, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
