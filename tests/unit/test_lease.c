#include "base/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_tokend.h"
#include "proto/lease.h"
#include "proto/printable.h"

#define LIT(text) (text), sizeof(text) - 1
#define MAILBOX "relay@contoso.com"
#define GOOD "status=ok\ntoken=abc.def=\nexpires_at=1795451778\n\n"
#define SHORT_MS 200
#define LONG_MS 5000

static char answer[LEASE_ANSWER_SIZE];

static int enter(void **state)
{
	(void)state;
	fake_enter();
	return 0;
}

static int leave(void **state)
{
	(void)state;
	fake_leave();
	return 0;
}

static long long now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum lease_result ask(int deadline_ms, struct lease *lease)
{
	return lease_ask(FAKE_SOCKET, MAILBOX, 0, deadline_ms, answer, sizeof(answer), lease);
}

/* Asks a fake; whatever the result, lease_end() lets it see the end of the connection. */
static enum lease_result ask_fake(struct fake *fake, int deadline_ms, struct lease *lease)
{
	enum lease_result result;

	fake_start(fake);
	result = ask(deadline_ms, lease);
	if (result != LEASE_OK)
		assert_int_equal(lease->fd, -1);
	lease_end(lease);
	if (!fake->hang_up && !fake->deaf)
		assert_true(fake_wait_ended(fake, fake->asked));
	fake_stop(fake);
	return result;
}

static void test_ok(void **state)
{
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};
	struct lease lease;

	(void)state;
	fake_start(&fake);
	assert_int_equal(ask(LONG_MS, &lease), LEASE_OK);
	assert_int_equal(lease.token_len, 8);
	assert_memory_equal(lease.token, "abc.def=", 8);
	assert_string_equal(fake.request, "relay365=1\nverb=lease\nmailbox=" MAILBOX "\n\n");
	assert_true(fcntl(lease.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fake.ended, 0);
	assert_string_equal(lease.name, "");
	lease_end(&lease);
	assert_true(fake_wait_ended(&fake, 1));
	assert_int_equal(lease.fd, -1);
	fake_stop(&fake);
}

static void test_name(void **state)
{
	static const struct {
		const char *answer, *name;
	} cases[] = {
		{"status=ok\ntoken=t\nlease=0123456789abcdef\n\n", "0123456789abcdef"},
		{"status=ok\ntoken=t\nlease=\n\n", ""},
		{"status=ok\ntoken=t\nlease="
		 "0123456789012345678901234567890123456789012345678901234567890123\n\n",
		 ""}, /* one byte too long */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fake fake = {.answer = cases[i].answer,
				    .answer_len = strlen(cases[i].answer)};
		struct lease lease;

		assert_int_equal(ask_fake(&fake, LONG_MS, &lease), LEASE_OK);
		assert_string_equal(lease.name, cases[i].name);
	}
}

static void test_answers(void **state)
{
	static const struct {
		const char *name;
		const char *answer;
		size_t len;
		enum lease_result result;
		const char *reason;
		int retry_after_s;
	} cases[] = {
		{"later", LIT("status=later\nreason=full\nretry_after=60\n\n"), LEASE_LATER,
		 "full", 60},
		{"later, bare", LIT("status=later\n\n"), LEASE_LATER, "", 0},
		{"later, odd number", LIT("status=later\nretry_after=-1\n\n"), LEASE_LATER, "",
		 0},
		{"later, in ages", LIT("status=later\nretry_after=999999999999\n\n"), LEASE_LATER,
		 "", INT32_MAX},
		{"denied", LIT("status=denied\nreason=locked\033[2J%s\n\n"), LEASE_DENIED,
		 "locked?[2J%s", 0},
		{"unknown keys", LIT("x=y\nstatus=later\nz=\n\n"), LEASE_LATER, "", 0},
		{"unknown status", LIT("status=maybe\n\n"), LEASE_BAD_ANSWER, "", 0},
		{"no status", LIT("token=abc\n\n"), LEASE_BAD_ANSWER, "", 0},
		{"ok without token", LIT("status=ok\n\n"), LEASE_BAD_ANSWER, "", 0},
		{"ok with empty token", LIT("status=ok\ntoken=\n\n"), LEASE_BAD_ANSWER, "", 0},
		{"nothing in it", LIT("\n"), LEASE_BAD_ANSWER, "", 0},
		{"two tokens", LIT("status=ok\ntoken=a\ntoken=b\n\n"), LEASE_BAD_ANSWER, "", 0},
		{"CR", LIT("status=ok\r\ntoken=a\r\n\r\n"), LEASE_BAD_ANSWER, "", 0},
		{"another protocol", LIT("220 contoso.com ESMTP\r\n"), LEASE_BAD_ANSWER, "", 0},
		{"two messages", LIT(GOOD GOOD), LEASE_BAD_ANSWER, "", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fake fake = {.answer = cases[i].answer, .answer_len = cases[i].len};
		struct lease lease;
		enum lease_result result = ask_fake(&fake, LONG_MS, &lease);

		if (result != cases[i].result || strcmp(lease.reason, cases[i].reason) != 0 ||
		    lease.retry_after_s != cases[i].retry_after_s)
			fail_msg("%s: result %d, reason '%s', retry_after %d", cases[i].name,
				 (int)result, lease.reason, lease.retry_after_s);
	}
}

static void test_byte_by_byte(void **state)
{
	struct fake fake = {
		.answer = GOOD, .answer_len = strlen(GOOD), .chunk = 1, .pause_ms = 1};
	struct lease lease;

	(void)state;
	assert_int_equal(ask_fake(&fake, LONG_MS, &lease), LEASE_OK);
}

static void test_cut_anywhere(void **state)
{
	struct lease lease;

	(void)state;
	for (size_t len = 0; len < strlen(GOOD); len++) {
		struct fake fake = {.answer = GOOD, .answer_len = len, .hang_up = true};

		if (ask_fake(&fake, LONG_MS, &lease) != LEASE_CLOSED)
			fail_msg("cut after %zu bytes", len);
	}
}

/* The size of the answer is bounded by its buffer and by the protocol. */
static void test_oversize(void **state)
{
	static char big[LEASE_ANSWER_SIZE + 100];
	struct fake fake = {.answer = big, .answer_len = sizeof(big)};
	struct lease lease;
	char small[8];

	(void)state;
	memset(big, 'a', sizeof(big));
	memcpy(big, "token=", 6);
	assert_int_equal(ask_fake(&fake, LONG_MS, &lease), LEASE_BAD_ANSWER);
	fake = (struct fake){.answer = GOOD, .answer_len = strlen(GOOD)};
	fake_start(&fake);
	assert_int_equal(
		lease_ask(FAKE_SOCKET, MAILBOX, 0, LONG_MS, small, sizeof(small), &lease),
		LEASE_BAD_ANSWER);
	assert_int_equal(lease.fd, -1);
	fake_stop(&fake);
}

static void test_deadline(void **state)
{
	struct fake silent = {.answer = "", .answer_len = 0};
	struct fake slow = {
		.answer = GOOD, .answer_len = strlen(GOOD), .chunk = 1, .pause_ms = 50};
	struct lease lease;
	long long start = now_ms();

	(void)state;
	assert_int_equal(ask_fake(&silent, SHORT_MS, &lease), LEASE_TIMEOUT);
	assert_in_range(now_ms() - start, SHORT_MS, LONG_MS - 1);
	start = now_ms();
	fake_start(&slow);
	assert_int_equal(ask(SHORT_MS, &lease), LEASE_TIMEOUT);
	assert_in_range(now_ms() - start, SHORT_MS, LONG_MS - 1);
	fake_stop(&slow);
}

/* A stopped daemon whose queue of connections is full makes connect() say EAGAIN. */
static void test_full_backlog(void **state)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = FAKE_SOCKET};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	int filler = socket(AF_UNIX, SOCK_STREAM, 0);
	struct lease lease;
	long long start = now_ms();

	(void)state;
	assert_int_equal(bind(listener, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(listener, 0), 0);
	assert_int_equal(connect(filler, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(ask(SHORT_MS, &lease), LEASE_TIMEOUT);
	assert_in_range(now_ms() - start, SHORT_MS, LONG_MS - 1);
	assert_int_equal(lease.fd, -1);
	(void)close(filler);
	(void)close(listener);
	start = now_ms();
	assert_int_equal(ask(SHORT_MS, &lease), LEASE_UNREACHABLE);
	assert_int_equal(lease.error, ECONNREFUSED);
	(void)unlink(FAKE_SOCKET);
	assert_int_equal(ask(SHORT_MS, &lease), LEASE_UNREACHABLE);
	assert_int_equal(lease.error, ENOENT);
	assert_in_range(now_ms() - start, 2 * SHORT_MS, LONG_MS - 1);
}

static void test_daemon_restarts(void **state)
{
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD), .late_ms = 400};
	struct lease lease;

	(void)state;
	assert_int_equal(ask_fake(&fake, LONG_MS, &lease), LEASE_OK);
}

/* A daemon that hangs up on the request raises no SIGPIPE, and what it said is heard. */
static void test_hangs_up_early(void **state)
{
	static const char full[] = "status=later\nreason=too many connections\n\n";
	struct lease lease;

	(void)state;
	for (int i = 0; i < 50; i++) {
		struct fake mute = {.answer = "", .deaf = true, .hang_up = true};

		assert_int_equal(ask_fake(&mute, LONG_MS, &lease), LEASE_CLOSED);
	}
	for (int i = 0; i < 50; i++) {
		struct fake fake = {.answer = full,
				    .answer_len = strlen(full),
				    .deaf = true,
				    .hang_up = true};

		assert_int_equal(ask_fake(&fake, LONG_MS, &lease), LEASE_LATER);
		assert_string_equal(lease.reason, "too many connections");
	}
}

static void test_bad_arguments(void **state)
{
	char path[200];
	char mailbox[600];
	struct lease lease;

	(void)state;
	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	memset(mailbox, 'm', sizeof(mailbox) - 1);
	mailbox[sizeof(mailbox) - 1] = '\0';
	assert_int_equal(lease_ask(path, MAILBOX, 0, SHORT_MS, answer, sizeof(answer), &lease),
			 LEASE_BAD_PATH);
	assert_int_equal(lease_ask("", MAILBOX, 0, SHORT_MS, answer, sizeof(answer), &lease),
			 LEASE_BAD_PATH);
	assert_int_equal(
		lease_ask(FAKE_SOCKET, mailbox, 0, SHORT_MS, answer, sizeof(answer), &lease),
		LEASE_BAD_MAILBOX);
	assert_int_equal(lease_ask(FAKE_SOCKET, "a\nverb=status", 0, SHORT_MS, answer,
				   sizeof(answer), &lease),
			 LEASE_BAD_MAILBOX);
	assert_int_equal(lease.fd, -1);
}

static void test_path(void **state)
{
	(void)state;
	assert_string_equal(lease_path("unix:relay365/token"), "relay365/token");
	assert_string_equal(lease_path("unix:/run/relay365/token"), "/run/relay365/token");
	assert_null(lease_path("unix:"));
	assert_null(lease_path(""));
	assert_null(lease_path("unix"));
	assert_null(lease_path("/run/relay365/token"));
	assert_null(lease_path("inet:127.0.0.1:1"));
	assert_null(lease_path("hunter2"));
}

/* Every result has a sentence that fits any buffer. */
static void test_explain(void **state)
{
	static const struct {
		enum lease_result result;
		int error;
		const char *reason;
		int retry_after_s;
		const char *part;
	} cases[] = {
		{LEASE_LATER, 0, "full until 14:07", 60, "full until 14:07 (not before 60 s"},
		{LEASE_LATER, 0, "", 0, "no token now: no reason was given; see"},
		{LEASE_DENIED, 0, "locked", 0, "no token: locked; see: relay365 status"},
		{LEASE_BAD_PATH, 0, "", 0, "p/token is no path"},
		{LEASE_BAD_MAILBOX, 0, "", 0, "not an address"},
		{LEASE_UNREACHABLE, ENOENT, "", 0, "p/token: No such file or directory; is re"},
		{LEASE_UNREACHABLE, EACCES, "", 0, "Permission denied; the socket and its f"},
		{LEASE_UNREACHABLE, ECONNREFUSED, "", 0, "refused; is relay365-tokend running?"},
		{LEASE_TIMEOUT, 0, "", 0, "p/token did not answer within 30 s"},
		{LEASE_CLOSED, 0, "", 0, "hung up before it had answered; its log"},
		{LEASE_CLOSED, ECONNRESET, "", 0, "answered: Connection reset by peer; its"},
		{LEASE_BAD_ANSWER, 0, "", 0, "of one release?"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct lease lease = {.fd = -1,
				      .error = cases[i].error,
				      .retry_after_s = cases[i].retry_after_s};
		char text[640];

		(void)snprintf(lease.reason, sizeof(lease.reason), "%s", cases[i].reason);
		lease_explain(cases[i].result, &lease, "p/token", LEASE_DEADLINE_MS, text,
			      sizeof(text));
		if (strstr(text, cases[i].part) == NULL)
			fail_msg("\"%s\" lacks \"%s\"", text, cases[i].part);
		lease_explain(cases[i].result, &lease, "p/token", LEASE_DEADLINE_MS, text, 5);
		assert_int_equal(strlen(text), 4);
	}
}

static void test_printable(void **state)
{
	char text[9];

	(void)state;
	printable(LIT("a b~"), text, sizeof(text));
	assert_string_equal(text, "a b~");
	printable(LIT("\0\n\033\177\200\377"), text, sizeof(text));
	assert_string_equal(text, "??????");
	printable(LIT("12345678"), text, sizeof(text));
	assert_string_equal(text, "12345678");
	printable(LIT("123456789"), text, sizeof(text));
	assert_string_equal(text, "12345...");
	printable("", 0, text, sizeof(text));
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ok),
		cmocka_unit_test(test_name),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_oversize),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_full_backlog),
		cmocka_unit_test(test_daemon_restarts),
		cmocka_unit_test(test_hangs_up_early),
		cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_explain),
		cmocka_unit_test(test_printable),
	};

	return cmocka_run_group_tests_name("lease", tests, enter, leave);
}
