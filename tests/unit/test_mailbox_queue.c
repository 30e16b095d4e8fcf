#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "token/mailbox.h"

#include "conf/conf.h"

#include <unistd.h>

#include "temp.h"
#include "test_loop_kit.h"

/* ---- an identity whose token is there, or is being fetched ---- */

enum { WAITERS = 4 };

static const struct identity_token token = {"token", 5, 0};
static bool fetching;
static struct identity_waiter *waiters[WAITERS];
static const struct identity *waits_for[WAITERS];
static size_t waiting;

void identity_get(struct identity *identity, struct identity_waiter *waiter)
{
	if (!fetching) {
		waiter->done(waiter, &token, NULL, 0);
		return;
	}
	assert_true(waiting < WAITERS);
	waits_for[waiting] = identity;
	waiters[waiting++] = waiter;
}

/* Tells all who wait, in their order; NULL: that there is none. */
static void tell_waiters(const struct identity_token *what)
{
	struct identity_waiter *told[WAITERS];
	size_t n = waiting;

	memcpy(told, waiters, sizeof(told));
	waiting = 0;
	for (size_t i = 0; i < n; i++)
		told[i]->done(told[i], what, what == NULL ? "none" : NULL, 1000);
}

void identity_cancel(struct identity_waiter *waiter)
{
	(void)waiter;
}

void identity_doubt(struct identity *identity)
{
	(void)identity;
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

/* ---- a mailbox without a pace, and who asks it ---- */

static char address[] = "relay@contoso.com";
static struct conf_mailbox conf;
static struct mailbox_parts parts;
static struct mailbox *mailbox;

struct asker {
	struct lease *lease;
	int answers;
	bool granted;
	char reason[512];
};

static int enter(void **state)
{
	struct err err = ERR_INIT;

	conf = (struct conf_mailbox){.name = "relay",
				     .address = address,
				     .recipients_per_day = 10000,
				     .recipients_per_message = 500,
				     .connections = 3};
	fetching = false;
	waiting = 0;
	if (loop_enter(state) != 0)
		return -1;
	parts.loop = loop;
	parts.memo = memo_open(temp_path("memo"), &err);
	parts.delivered = delivered_open(temp_path("state"), parts.memo, &err);
	parts.book = lease_book_open(temp_path("leases"), &err);
	parts.locks = locks_open(temp_path("locks"), &err);
	assert_string_equal(err.text, "");
	mailbox = mailbox_new(&parts, &conf, NULL);
	return 0;
}

static int leave(void **state)
{
	mailbox_free(&mailbox);
	lease_book_close(&parts.book);
	locks_close(&parts.locks);
	delivered_close(&parts.delivered);
	memo_close(&parts.memo);
	return loop_leave(state);
}

static void on_answer(void *arg, const struct lease_answer *answer)
{
	struct asker *asker = arg;

	asker->answers++;
	asker->granted = answer->token != NULL;
	(void)snprintf(asker->reason, sizeof(asker->reason), "%s",
		       answer->reason == NULL ? "" : answer->reason);
}

static void ask_with(struct asker *asker, bool priority)
{
	*asker = (struct asker){0};
	asker->lease = lease_begin(mailbox, getpid(), 1, priority, on_answer, asker);
}

static void ask(struct asker *asker)
{
	ask_with(asker, false);
}

/* Those whose turn had come keep their order while the token is renewed. */
static void the_order_outlives_a_renewal(void **state)
{
	struct asker open[3], a[3], later;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		ask(&open[i]);
	for (size_t i = 0; i < 3; i++)
		ask(&a[i]);
	fetching = true;
	/* Each of the three is picked, and waits for the token. */
	lease_end(&open[0].lease);
	lease_end(&open[1].lease);
	assert_int_equal(waiting, 3);
	fetching = false;
	ask(&open[0]); /* somebody else takes a slot meanwhile */
	ask_with(&open[1], true);
	ask_with(&later, true);
	assert_true(open[0].granted && open[1].granted);
	tell_waiters(&token);
	assert_int_equal(a[0].answers + a[1].answers + a[2].answers + later.answers, 0);
	for (size_t i = 0; i < 3; i++) {
		lease_end(&open[i].lease);
		assert_true(a[i].granted);
		assert_int_equal(later.answers, 0);
	}
	for (size_t i = 0; i < 3; i++)
		lease_end(&a[i].lease);
	assert_true(later.granted);
	lease_end(&later.lease);
}

/* A reload gives the mailbox another identity: who waits for a token gets that one's. */
static void who_waits_asks_the_new_identity(void **state)
{
	struct identity *const other = (struct identity *)&conf; /* an address, never looked at */
	struct asker a[2];

	(void)state;
	fetching = true;
	ask(&a[0]);
	ask(&a[1]);
	assert_int_equal(waiting, 2);
	mailbox_configure(mailbox, &conf, other);
	tell_waiters(NULL); /* as the old one does when it is freed */
	assert_int_equal(a[0].answers + a[1].answers, 0);
	assert_int_equal(waiting, 2);
	assert_ptr_equal(waits_for[0], other);
	fetching = false;
	tell_waiters(&token);
	assert_true(a[0].granted);
	assert_true(a[1].granted);
	lease_end(&a[0].lease);
	lease_end(&a[1].lease);
	/* And one that leaves the configuration has none. */
	fetching = true;
	ask(&a[0]);
	mailbox_configure(mailbox, NULL, NULL);
	tell_waiters(NULL);
	assert_int_equal(a[0].answers, 1);
	assert_non_null(strstr(a[0].reason, "is no longer in the configuration"));
	lease_end(&a[0].lease);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_order_outlives_a_renewal, enter, leave),
		cmocka_unit_test_setup_teardown(who_waits_asks_the_new_identity, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
