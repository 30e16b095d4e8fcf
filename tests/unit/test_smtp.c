#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "explain/explain.h"
#include "proto/base64.h"
#include "sendmail/body.h"
#include "sendmail/patience.h"
#include "sendmail/reply.h"

/* It is the oldest command without a reply that is waited for, whatever was sent since. */
static void test_patience(void **state)
{
	static const struct {
		enum sent pending[2];
		int minutes;
	} cases[] = {
		{{SENT_END, SENT_QUIT}, 10},  {{SENT_END, SENT_RSET}, 10},
		{{SENT_MAIL, SENT_DATA}, 5},  {{SENT_RCPT, SENT_DATA}, 5},
		{{SENT_DATA, SENT_DATA}, 2},  {{SENT_QUIT, SENT_QUIT}, 5},
		{{SENT_QUIET, SENT_MAIL}, 5},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(patience_reply_ms(cases[i].pending), cases[i].minutes * 60000);
	assert_int_equal(patience_reply_ms(NULL), 5 * 60000);
	assert_int_equal(patience_body_ms(true), 3 * 60000);
	assert_int_equal(patience_body_ms(false), 5 * 60000);
}

static void test_reply_ends(void **state)
{
	static const struct {
		const char *data;
		int result; /* of reply_parse() */
		int code;
		size_t len;
	} cases[] = {
		{"250 OK\r\n", 1, 250, 8},
		{"250\r\n", 1, 250, 5},
		{"250 OK\n250 next\r\n", 1, 250, 7},
		{"250-one\r\n250-two\r\n250 three\r\n354 go", 1, 250, 29},
		{"250-one\r\n250-two\r\n", 0, 0, 0},
		{"250 O", 0, 0, 0},
		{"", 0, 0, 0},
		{"25 OK\r\n", -1, 0, 0},
		{"150 OK\r\n", -1, 0, 0},
		{"650 OK\r\n", -1, 0, 0},
		{"250_OK\r\n", -1, 0, 0},
		{"\r\n", -1, 0, 0},
		{"250-one\r\nnonsense\r\n", -1, 0, 0},
		{"HTTP/1.1 400 Bad Request\r\n", -1, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char data[128];
		struct reply reply = {0, NULL, 0};

		(void)snprintf(data, sizeof(data), "%s", cases[i].data);
		assert_int_equal(reply_parse(data, strlen(data), &reply), cases[i].result);
		if (cases[i].result != 1)
			continue;
		assert_int_equal(reply.code, cases[i].code);
		assert_int_equal(reply.len, cases[i].len);
		assert_ptr_equal(reply.text, data);
	}
}

static void test_reply_is_softened_or_not(void **state)
{
	static const struct {
		const char *before, *after; /* after NULL: unchanged */
	} cases[] = {
		{"550 5.1.90 Your message can't be sent\r\n",
		 "450 4.1.90 Your message can't be sent\r\n"},
		{"554 5.2.0 STOREDRV; SubmissionQuotaExceededException\r\n",
		 "454 4.2.0 STOREDRV; SubmissionQuotaExceededException\r\n"},
		{"530 5.7.57 Client not authenticated\r\n",
		 "430 4.7.57 Client not authenticated\r\n"},
		{"535 no enhanced code\r\n", "435 no enhanced code\r\n"},
		{"530-5.7.1 one\r\n530 two\r\n", "430-4.7.1 one\r\n430 two\r\n"},
		{"550 4.4.7 timed out\r\n", "450 4.4.7 timed out\r\n"},
		{"550 5.1.1 no such user\r\n", NULL},
		{"554 5.2.252 SendAsDenied; see 5.7.57\r\n", NULL},
		{"552 5.3.4 too large\r\n", NULL},
		{"501 5.5.4 Invalid arguments\r\n", NULL},
		{"450 4.1.90 later\r\n", NULL},
		{"250 5.7.57 odd\r\n", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char data[128];
		struct reply reply;

		(void)snprintf(data, sizeof(data), "%s", cases[i].before);
		assert_int_equal(reply_parse(data, strlen(data), &reply), 1);
		assert_int_equal(reply_soften(&reply), cases[i].after != NULL);
		assert_string_equal(data,
				    cases[i].after != NULL ? cases[i].after : cases[i].before);
		assert_int_equal(reply.code, strtol(data, NULL, 10));
	}
}

static void test_reply_in_one_line(void **state)
{
	static const struct {
		const char *reply, *line;
	} cases[] = {
		{"250 OK\r\n", "250 OK"},
		{"550-5.7.1 one\r\n550-two\r\n550 three\r\n", "550-5.7.1 one two three"},
		{"550 caf\xc3\xa9\t\x01\r\n", "550 caf????"},
		{"334 \r\n", "334 "},
	};
	char data[128], line[64], small[8];
	struct reply reply;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		(void)snprintf(data, sizeof(data), "%s", cases[i].reply);
		assert_int_equal(reply_parse(data, strlen(data), &reply), 1);
		reply_line(&reply, line, sizeof(line));
		assert_string_equal(line, cases[i].line);
	}
	reply_line(&reply, small, sizeof(small));
	assert_string_equal(small, "334 ");
}

/* Byte by byte, in halves and whole: the end is found at the same place. */
static void test_message_ends(void **state)
{
	static const struct {
		const char *data;
		size_t end; /* 0: it has not ended */
	} cases[] = {
		{".\r\nQUIT\r\n", 3},
		{"a\r\n.\r\nQUIT\r\n", 6},
		{"a\r\n..\r\n.\r\n", 10},
		{"a\r\n.b\r\n", 0},
		{"a\n.\n", 0},
		{"a\r\n.\n", 0},
		{"a\n.\r\n", 0},
		{"a\r.\r\n", 0},
		{"a\r\n.\r\r\n.\r\n", 10},
		{"a\r\n.\rb\r\n.\r\n", 11},
		{"a\r\r\n.\r\n", 7},
		{"\r\n\r\n\r\n.\r\n", 9},
		{"a\r\n.", 0},
		{"a\r\n.\r", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *data = cases[i].data;
		size_t len = strlen(data);

		for (size_t step = 1; step <= len; step++) {
			enum body_at at = BODY_LINE_START;
			size_t done = 0;
			bool end = false;

			while (done < len && !end)
				done += body_part(&at, data + done,
						  len - done < step ? len - done : step, &end);
			assert_int_equal(end ? done : 0, cases[i].end);
		}
	}
}

static void test_base64(void **state)
{
	/* RFC 4648, section 10, and every bit. */
	static const struct {
		const char *plain, *coded;
	} cases[] = {{"", ""},
		     {"f", "Zg=="},
		     {"fo", "Zm8="},
		     {"foo", "Zm9v"},
		     {"foob", "Zm9vYg=="},
		     {"fooba", "Zm9vYmE="},
		     {"foobar", "Zm9vYmFy"},
		     {"\xff\xef\xbe", "/+++"},
		     {"\001\001", "AQE="}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char coded[32];
		size_t n = base64_encode(cases[i].plain, strlen(cases[i].plain), coded);

		assert_int_equal(n, BASE64_SIZE(strlen(cases[i].plain)));
		coded[n] = '\0';
		assert_string_equal(coded, cases[i].coded);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patience),
		cmocka_unit_test(test_reply_ends),
		cmocka_unit_test(test_reply_is_softened_or_not),
		cmocka_unit_test(test_reply_in_one_line),
		cmocka_unit_test(test_message_ends),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
