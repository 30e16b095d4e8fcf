#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "token/mailbox.h"

#include "base/xalloc.h"
#include "conf/conf.h"

#include <stdatomic.h>
#include <unistd.h>

#include "temp.h"
#include "test_loop_kit.h"

#define MINUTE 60000LL
#define PACE 2060 /* ms between grants: 30 a minute, and a margin */
#define QUOTA_REPLY \
	"4.2.0 554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"
#define QUOTA "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"

/* Linked with --wrap: the clocks are the tests'. */
static _Atomic int64_t wall_ms, boot_ms;
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

/* ---- an identity whose token is always there ---- */

static bool doubted;

void identity_get(struct identity *identity, struct identity_waiter *waiter)
{
	static const struct identity_token token = {"token", 5, 0};

	(void)identity;
	waiter->done(waiter, &token, NULL, 0);
}

void identity_cancel(struct identity_waiter *waiter)
{
	(void)waiter;
}

void identity_doubt(struct identity *identity)
{
	(void)identity;
	doubted = true;
}

const char *identity_problem(const struct identity *identity)
{
	(void)identity;
	return "";
}

const char *identity_name(const struct identity *identity)
{
	(void)identity;
	return "contoso";
}

/* ---- a mailbox, and who asks it ---- */

static struct conf_mailbox conf;
static struct mailbox_parts parts;
static struct mailbox *mailbox;

struct asker {
	struct lease *lease;
	int answers;
	bool granted;
	char reason[512];
	int64_t retry_after_ms;
};

static void start(void)
{
	struct err err = ERR_INIT;

	parts.loop = loop;
	parts.memo = memo_open(temp_path("memo"), &err);
	parts.delivered = delivered_open(temp_path("state"), parts.memo, &err);
	parts.book = lease_book_open(temp_path("leases"), &err);
	parts.locks = locks_open(temp_path("locks"), &err);
	assert_string_equal(err.text, "");
	mailbox = mailbox_new(&parts, &conf, NULL);
}

static void stop(void)
{
	mailbox_free(&mailbox);
	lease_book_close(&parts.book);
	locks_close(&parts.locks);
	delivered_close(&parts.delivered);
	memo_close(&parts.memo);
}

static char address[] = "relay@contoso.com";

static int enter(void **state)
{
	wall_ms = 1795442825000LL;
	boot_ms = 5000000;
	conf = (struct conf_mailbox){.name = "relay",
				     .address = address,
				     .recipients_per_day = 10000,
				     .recipients_per_message = 500,
				     .messages_per_minute = 30,
				     .connections = 3};
	doubted = false;
	if (loop_enter(state) != 0)
		return -1;
	start();
	return 0;
}

static int leave(void **state)
{
	stop();
	return loop_leave(state);
}

static void on_answer(void *arg, const struct lease_answer *answer)
{
	struct asker *asker = arg;

	asker->answers++;
	asker->granted = answer->token != NULL;
	(void)snprintf(asker->reason, sizeof(asker->reason), "%s",
		       answer->reason == NULL ? "" : answer->reason);
	asker->retry_after_ms = answer->retry_after_ms;
}

static bool asker_priority;

static void ask(struct asker *asker, int recipients)
{
	*asker = (struct asker){0};
	asker->lease =
		lease_begin(mailbox, getpid(), recipients, asker_priority, on_answer, asker);
	/* Sometimes the answer comes from inside the call. */
	assert_true(asker->answers <= 1);
}

static void pass(int64_t ms)
{
	wall_ms += ms;
	boot_ms += ms;
	run_due(boot_ms);
}

static void say(const char *status, int recipients)
{
	char better[4096];

	(void)mailbox_status(mailbox, status, 1, better, sizeof(better));
	mailbox_announce(mailbox, status, recipients);
	mailbox_count(mailbox, status, recipients, true);
}

static long long number(const char *name)
{
	cJSON *json = mailbox_status_json(mailbox);
	long long n =
		(long long)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, name));

	cJSON_Delete(json);
	return n;
}

/* One message after a pause; its lease is over when this returns. */
static bool one_message(const char *status)
{
	struct asker asker;
	bool granted;

	ask(&asker, 1);
	granted = asker.granted;
	if (granted)
		say(status, 1);
	lease_end(&asker.lease);
	return granted;
}

/* ---- slots ---- */

static void grants_are_evenly_spaced(void **state)
{
	struct asker a[3];

	(void)state;
	conf.connections = 100;
	for (size_t i = 0; i < 3; i++)
		ask(&a[i], 1);
	assert_true(a[0].granted);
	for (size_t i = 1; i < 3; i++) {
		assert_int_equal(a[i].answers, 0);
		pass(PACE - 1);
		assert_int_equal(a[i].answers, 0);
		pass(1);
		assert_true(a[i].granted);
	}
	for (size_t i = 0; i < 3; i++)
		lease_end(&a[i].lease);
}

static void without_a_pace_all_start_at_once(void **state)
{
	struct asker a[4];

	(void)state;
	conf.messages_per_minute = 0;
	for (size_t i = 0; i < 4; i++)
		ask(&a[i], 1);
	assert_true(a[0].granted && a[1].granted && a[2].granted);
	assert_int_equal(a[3].answers, 0);
	lease_end(&a[0].lease);
	assert_true(a[3].granted);
	for (size_t i = 0; i < 4; i++)
		lease_end(&a[i].lease);
	/* The pace comes back with the configuration. */
	conf.messages_per_minute = 30;
	ask(&a[0], 1);
	ask(&a[1], 1);
	assert_true(a[0].granted);
	assert_int_equal(a[1].answers, 0);
	for (size_t i = 0; i < 2; i++)
		lease_end(&a[i].lease);
}

static void no_more_than_the_connections(void **state)
{
	struct asker a[5];

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		ask(&a[i], 1);
		pass(PACE);
	}
	assert_true(a[0].granted && a[1].granted && a[2].granted);
	assert_int_equal(a[3].answers + a[4].answers, 0);
	lease_end(&a[1].lease);
	assert_true(a[3].granted);
	assert_int_equal(a[4].answers, 0);
	/* Who has waited 25 s is told, before the plugin gives up at 30 s. */
	pass(LEASE_WAIT_MS);
	assert_int_equal(a[4].answers, 1);
	assert_false(a[4].granted);
	for (size_t i = 0; i < 5; i++)
		lease_end(&a[i].lease);
}

static void leases_fit_under_the_day(void **state)
{
	struct asker a[3], b;

	(void)state;
	say("2.0.0 OK", 9000); /* a transaction may carry 500 */
	for (size_t i = 0; i < 3; i++) {
		ask(&a[i], 0);
		pass(PACE);
	}
	assert_true(a[0].granted && a[1].granted);
	assert_int_equal(a[2].answers, 0);
	assert_int_equal(number("reserved"), 1000);
	/* The slots are given back without a delivery: there is room again. */
	lease_end(&a[0].lease);
	assert_true(a[2].granted);
	say("2.0.0 OK", 400);
	lease_end(&a[1].lease);
	lease_end(&a[2].lease);
	pass(PACE);
	/* 9,400: a transaction fits; 9,600: none does, but a message of 400 that says so. */
	ask(&b, 0);
	assert_true(b.granted);
	say("2.0.0 OK", 200);
	lease_end(&b.lease);
	pass(PACE);
	ask(&b, 0);
	assert_false(b.granted);
	assert_non_null(
		strstr(b.reason, "9600 of 10000 recipients delivered in 24 h; room for 500"));
	assert_true(b.retry_after_ms > 1439 * MINUTE && b.retry_after_ms <= 1442 * MINUTE);
	lease_end(&b.lease);
	ask(&b, 400);
	assert_true(b.granted);
	lease_end(&b.lease);
	pass(b.retry_after_ms);
	pass(1442 * MINUTE);
	ask(&b, 0);
	assert_true(b.granted);
	lease_end(&b.lease);
}

static void priority_goes_first(void **state)
{
	struct asker ordinary[2], first[2];

	(void)state;
	conf.connections = 1;
	ask(&ordinary[0], 1);
	ask(&ordinary[1], 1);
	asker_priority = true;
	ask(&first[0], 1);
	ask(&first[1], 1);
	asker_priority = false;
	assert_true(ordinary[0].granted);
	pass(PACE);
	lease_end(&ordinary[0].lease);
	assert_true(first[0].granted);
	assert_int_equal(ordinary[1].answers + first[1].answers, 0);
	pass(PACE);
	lease_end(&first[0].lease);
	assert_true(first[1].granted);
	assert_int_equal(ordinary[1].answers, 0);
	pass(PACE);
	lease_end(&first[1].lease);
	assert_true(ordinary[1].granted);
	lease_end(&ordinary[1].lease);
}

static void the_reserve_is_kept(void **state)
{
	static char sender[] = "alert@contoso.com";
	char *senders[] = {sender};
	struct asker asker;

	(void)state;
	conf.reserve_for_priority = 10;
	say("2.0.0 OK", 8600);
	ask(&asker, 0);
	assert_true(asker.granted); /* nobody has priority: nothing is kept */
	lease_end(&asker.lease);
	conf.priority_senders.item = senders;
	conf.priority_senders.count = 1;
	pass(PACE);
	ask(&asker, 0);
	assert_false(asker.granted);
	assert_non_null(strstr(asker.reason,
			       "8600 of 10000 recipients delivered in 24 h, the rest "
			       "is kept for priority mail; room for 500 at "));
	lease_end(&asker.lease);
	ask(&asker, 400);
	assert_true(asker.granted);
	lease_end(&asker.lease);
	pass(PACE);
	asker_priority = true;
	ask(&asker, 0);
	assert_true(asker.granted);
	lease_end(&asker.lease);
	pass(PACE);
	say("2.0.0 OK", 1000);
	ask(&asker, 0);
	asker_priority = false;
	assert_false(asker.granted);
	assert_null(strstr(asker.reason, "priority"));
	lease_end(&asker.lease);
}

static void counts_what_was_taken(void **state)
{
	static const char *const none[] = {"2.1.5 250 2.1.5 Recipient OK", "4.7.0 busy",
					   "5.7.60 no", QUOTA_REPLY};

	(void)state;
	say("2.0.0 250 2.0.0 OK", 1);
	say("2.6.0 250 2.6.0 <id> Queued mail for delivery", 1);
	assert_int_equal(number("delivered"), 2);
	for (size_t i = 0; i < ARRAY_LEN(none); i++)
		say(none[i], 1);
	assert_int_equal(number("delivered"), 2);
	assert_int_equal(number("accepted_recipients"), 2);
}

/* The number of the incident that is told, 0: none. */
static long incident(void)
{
	cJSON *json = mailbox_status_json(mailbox);
	const char *text =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "incident"));
	long n = text == NULL ? 0 : strtol(text, NULL, 16);

	cJSON_Delete(json);
	return n;
}

static void a_day_that_fills_is_an_incident(void **state)
{
	long first;

	(void)state;
	say("2.0.0 OK", 7999);
	assert_int_equal(incident(), 0);
	say("2.0.0 OK", 1);
	first = incident();
	assert_int_not_equal(first, 0);
	pass(12 * 3600 * 1000LL);
	say("2.0.0 OK", 1800);
	assert_int_equal(incident(), first);
	/* 1800 are left, and nobody sends: it ends by itself. */
	pass(13 * 3600 * 1000LL);
	mailbox_watch_use(mailbox);
	assert_int_equal(incident(), 0);
}

/* ---- the circuit ---- */

static void expect_shut_for(int64_t minutes)
{
	struct asker asker;

	ask(&asker, 1);
	assert_int_equal(asker.answers, 1);
	assert_false(asker.granted);
	assert_non_null(strstr(asker.reason, "sending quota is exceeded; next try at "));
	assert_int_equal(asker.retry_after_ms, minutes * MINUTE);
	lease_end(&asker.lease);
}

static void circuit_opens_15_30_60(void **state)
{
	static const int64_t minutes[] = {15, 30, 60, 60, 60};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(minutes); i++) {
		assert_true(one_message(QUOTA));
		say(QUOTA, 1); /* another session at the same moment changes nothing */
		expect_shut_for(minutes[i]);
		stop(); /* a restart changes nothing */
		start();
		mailbox_configure(mailbox, &conf, NULL); /* nor does a reload */
		expect_shut_for(minutes[i]);
		pass(minutes[i] * MINUTE - 1);
		assert_false(one_message(QUOTA));
		pass(1);
	}
	assert_true(one_message("2.0.0 OK"));
	pass(PACE);
	assert_true(one_message(QUOTA)); /* a success has closed it: from the start */
	expect_shut_for(15);
	assert_true(mailbox_unlocked(mailbox));
	assert_false(mailbox_unlocked(mailbox));
	pass(PACE);
	assert_true(one_message("2.0.0 OK"));
}

static void one_message_tries(void **state)
{
	struct asker a[3];

	(void)state;
	assert_true(one_message(QUOTA));
	pass(15 * MINUTE);
	for (size_t i = 0; i < 3; i++)
		ask(&a[i], 1);
	assert_true(a[0].granted);
	pass(2 * PACE);
	assert_int_equal(a[1].answers + a[2].answers, 0);
	say(QUOTA, 1); /* it failed: who waited is told so at once */
	lease_end(&a[0].lease);
	assert_int_equal(a[1].answers, 1);
	assert_int_equal(a[2].answers, 1);
	assert_false(a[1].granted || a[2].granted);
	lease_end(&a[1].lease);
	lease_end(&a[2].lease);

	pass(30 * MINUTE);
	for (size_t i = 0; i < 3; i++)
		ask(&a[i], 1);
	say("2.0.0 OK", 1); /* it went through: all go on */
	pass(PACE);
	pass(PACE);
	assert_true(a[0].granted && a[1].granted && a[2].granted);
	for (size_t i = 0; i < 3; i++)
		lease_end(&a[i].lease);
}

static void external_quota_stops_nobody(void **state)
{
	static const char *const replies[] = {
		"5.7.232 Your message can't be sent because your trial tenant has exceeded its "
		"daily limit for sending email to external recipients",
		"4.7.233 550 5.7.233 Your message can't be sent because your tenant exceeded its "
		"daily limit for sending email to external recipients",
		"5.7.236 limit",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		assert_true(one_message(replies[i]));
		pass(PACE);
	}
	assert_true(one_message("2.0.0 OK"));
}

/* ---- locks ---- */

static void account_blocked_locks(void **state)
{
	static const char *const replies[] = {
		"5.1.8 Access denied, bad outbound sender AS(42004)",
		"4.1.8 450 4.1.8 Access denied, bad outbound sender AS(42004)",
		"5.7.705 Access denied, tenant has exceeded threshold",
		"5.7.750 Client blocked from sending from unregistered domains",
		"5.7.751 Service unavailable",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		struct asker waits, asker;

		assert_true(one_message(replies[i]));
		ask(&asker, 1);
		assert_false(asker.granted);
		assert_non_null(strstr(asker.reason, "relay365 unlock relay: Microsoft"));
		lease_end(&asker.lease);
		pass(48 * 60 * MINUTE); /* no time ends it, and no restart */
		stop();
		start();
		assert_false(one_message("2.0.0 OK"));
		assert_int_equal(
			locks_remove(parts.locks, "mailbox:relay@contoso.com", 5000, NULL), 1);
		assert_false(mailbox_unlocked(mailbox));
		ask(&waits, 1);
		assert_true(waits.granted);
		lease_end(&waits.lease);
		pass(PACE);
	}
}

static void machine_blocked_locks_nothing(void **state)
{
	(void)state;
	assert_true(one_message("5.7.606 Access denied, banned sending IP [192.0.2.1]"));
	pass(PACE);
	assert_true(one_message("5.7.708 Access denied, traffic not accepted from this IP"));
	pass(PACE);
	assert_true(one_message("2.0.0 OK"));
}

static void token_is_doubted(void **state)
{
	(void)state;
	assert_true(one_message("4.7.3 535 5.7.3 Authentication unsuccessful"));
	assert_true(doubted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(grants_are_evenly_spaced, enter, leave),
		cmocka_unit_test_setup_teardown(without_a_pace_all_start_at_once, enter, leave),
		cmocka_unit_test_setup_teardown(no_more_than_the_connections, enter, leave),
		cmocka_unit_test_setup_teardown(leases_fit_under_the_day, enter, leave),
		cmocka_unit_test_setup_teardown(priority_goes_first, enter, leave),
		cmocka_unit_test_setup_teardown(the_reserve_is_kept, enter, leave),
		cmocka_unit_test_setup_teardown(counts_what_was_taken, enter, leave),
		cmocka_unit_test_setup_teardown(a_day_that_fills_is_an_incident, enter, leave),
		cmocka_unit_test_setup_teardown(circuit_opens_15_30_60, enter, leave),
		cmocka_unit_test_setup_teardown(one_message_tries, enter, leave),
		cmocka_unit_test_setup_teardown(external_quota_stops_nobody, enter, leave),
		cmocka_unit_test_setup_teardown(account_blocked_locks, enter, leave),
		cmocka_unit_test_setup_teardown(machine_blocked_locks_nothing, enter, leave),
		cmocka_unit_test_setup_teardown(token_is_doubted, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
