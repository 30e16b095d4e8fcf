#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "maillog/logline.h"

#define NOW 1795689494000LL /* 2026-11-26T10:38:14Z, a Thursday */

static bool parse(const char *text, struct logline *line)
{
	memset(line, 0x5a, sizeof(*line));
	return logline_parse(text, strlen(text), NOW, line);
}

static void check(const struct logtext *text, const char *wanted)
{
	char copy[1024];

	assert_string_equal(logtext_copy(text, copy, sizeof(copy)), wanted);
	assert_true(logtext_is(text, wanted));
}

static void times(void **state)
{
	static const struct {
		const char *stamp;
		int64_t at_ms;
	} cases[] = {
		{"2026-11-26T10:38:14Z", NOW},
		{"2026-11-26T10:38:14.250Z", NOW + 250},
		{"2026-11-26T10:38:14.123456+00:00", NOW + 123},
		{"2026-11-26T11:38:14+01:00", NOW},
		{"2026-11-26T11:38:14+0100", NOW},
		{"2026-11-26T05:08:14.5-05:30", NOW + 500},
		{"2026-11-26 11:38:14,007", NOW + 7}, /* local: Berlin's winter */
		{"Nov 26 11:38:14", NOW},
		{"Nov 27 11:38:14", NOW + 86400000LL}, /* another machine's clock */
		{"Nov 28 11:38:14", NOW - 363 * 86400000LL},
		{"Nov  6 11:38:14", NOW - 20 * 86400000LL},
		{"Jul  1 12:00:00", 1782900000000LL}, /* summer */
		{"Dec 31 23:59:60", 1767221999000LL},
		{"Feb 29 12:00:00", 1709204400000LL}, /* 2024 */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[128];
		struct logline line;

		(void)snprintf(text, sizeof(text), "%s gw postfix/qmgr[7]: 4FA2B: removed",
			       cases[i].stamp);
		if (!parse(text, &line))
			fail_msg("%s", cases[i].stamp);
		if (line.at_ms != cases[i].at_ms)
			fail_msg("%s: %lld", cases[i].stamp, (long long)line.at_ms);
		check(&line.text, "removed");
	}
}

static void parts(void **state)
{
	static const struct {
		const char *line, *program, *pid, *id, *text;
	} cases[] = {
		{"postfix/smtpd[311]: 4fXyZb1: client=erp[10.1.0.5]", "postfix/smtpd", "311",
		 "4fXyZb1", "client=erp[10.1.0.5]"},
		{"postfix-out/relay365-relay/smtp[9]: 4FA2B1C: to=<a@b>",
		 "postfix-out/relay365-relay/smtp", "9", "4FA2B1C", "to=<a@b>"},
		{"sm-mta[77]: 4AQAcE0I012345: from=<a@b>, size=3", "sm-mta", "77",
		 "4AQAcE0I012345", "from=<a@b>, size=3"},
		{"sm-mta[77]: AUTH=server, relay=x [10.1.0.5], authid=erp", "sm-mta", "77", "",
		 "AUTH=server, relay=x [10.1.0.5], authid=erp"},
		{"relay365-milter[5]: 4FA2B1C: accept mailbox=relay", "relay365-milter", "5",
		 "4FA2B1C", "accept mailbox=relay"},
		{"postfix/smtpd[1]: NOQUEUE: reject: x", "postfix/smtpd", "1", "",
		 "NOQUEUE: reject: x"},
		{"postfix/smtpd[1]: warning: dead", "postfix/smtpd", "1", "", "warning: dead"},
		{"postfix/smtpd[1]: connect from x[10.1.0.5]", "postfix/smtpd", "1", "",
		 "connect from x[10.1.0.5]"},
		{"kernel: ABCDEF: x", "kernel", "", "ABCDEF", "x"},
		{"postfix/qmgr[1]: ", "postfix/qmgr", "1", "", ""},
		{"postfix/qmgr[1]: 4FA2B1C:", "postfix/qmgr", "1", "", "4FA2B1C:"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[256];
		struct logline line;

		(void)snprintf(text, sizeof(text), "2026-11-26T10:38:14Z gw %s", cases[i].line);
		assert_true(parse(text, &line));
		check(&line.program, cases[i].program);
		check(&line.pid, cases[i].pid);
		check(&line.id, cases[i].id);
		check(&line.text, cases[i].text);
		/* On standard error there is no machine's name. */
		(void)snprintf(text, sizeof(text), "2026-11-26T10:38:14Z %s", cases[i].line);
		assert_true(parse(text, &line));
		check(&line.program, cases[i].program);
		check(&line.text, cases[i].text);
		(void)snprintf(text, sizeof(text), "<22>Nov 26 11:38:14 %s", cases[i].line);
		assert_true(parse(text, &line));
		check(&line.program, cases[i].program);
		assert_int_equal(line.at_ms, NOW);
	}
}

/* The same event as text and as JSON, in a log and on standard error. */
static void events(void **state)
{
	static const struct {
		const char *json, *id, *text;
	} cases[] = {
		{"\"queue_id\":\"4FA2B1C\",\"event\":\"hold\",\"limit\":\"runaway\",\"need\":12",
		 "4FA2B1C", "hold limit=runaway need=12"},
		{"\"queue_id\":\"4FA2B1C\",\"event\":\"accept\",\"used\":\"8012/9500\"",
		 "4FA2B1C", "accept used=8012/9500"},
		{"\"event\":\"start\",\"text\":\"it \\\"is\\\" up\",\"n\":-1", "",
		 "start text=\"it \\\"is\\\" up\" n=-1"},
		{"\"event\":\"note\",\"text\":\"\"", "", "note text=\"\""},
		{"\"event\":\"note\",\"text\":\"a\\\\b\"", "", "note text=\"a\\\\b\""},
		{"\"event\":\"note\"", "", "note"},
		{"\"queue_id\":\"x\",\"event\":\"note\"", "", "note"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[512];
		struct logline line;

		(void)snprintf(text, sizeof(text),
			       "Nov 26 11:38:14 gw relay365-milter[5]: "
			       "{\"time\":\"2026-11-26T10:38:13Z\",%s}",
			       cases[i].json);
		assert_true(parse(text, &line));
		assert_int_equal(line.at_ms, NOW);
		check(&line.program, "relay365-milter");
		check(&line.pid, "5");
		check(&line.id, cases[i].id);
		check(&line.text, cases[i].text);
		(void)snprintf(text, sizeof(text), "{\"time\":\"2026-11-26T10:38:14Z\",%s}",
			       cases[i].json);
		assert_true(parse(text, &line));
		assert_int_equal(line.at_ms, NOW);
		check(&line.program, "relay365");
		check(&line.id, cases[i].id);
		check(&line.text, cases[i].text);
	}
}

/* What only looks like one is text, and alone it is no line. */
static void no_events(void **state)
{
	static const char *const none[] = {
		"{\"time\":\"2026-11-26T10:38:14Z\",\"event\":\"nonsense\"}",
		"{\"time\":\"2026-11-26T10:38:14Z\"}",
		"{\"event\":\"hold\"}",
		"{\"time\":\"2026-11-26T10:38:14Z",
		"{\"time\":\"2026-11-26T10:38:14Z\",\"event\":",
		"{\"time\":\"2026-11-26T10:38:14Z\",\"queue_id\":\"4FA2B1C",
		"{\"time\":",
		"{",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(none); i++) {
		char text[256];
		struct logline line;

		assert_false(parse(none[i], &line));
		(void)snprintf(text, sizeof(text), "Nov 26 11:38:14 gw relay365-milter[5]: %s",
			       none[i]);
		assert_true(parse(text, &line));
		check(&line.text, none[i]);
	}
}

static void an_event_of_another_program_is_text(void **state)
{
	static const char text[] =
		"{\"time\":\"2026-11-26T10:38:14Z\",\"queue_id\":\"4FA2B1C\",\"event\":\"hold\"}";
	char whole[256];
	struct logline line;

	(void)state;
	(void)snprintf(whole, sizeof(whole), "Nov 26 11:38:14 gw postfix/smtpd[5]: %s", text);
	assert_true(parse(whole, &line));
	assert_int_equal(line.id.len, 0);
	check(&line.text, text);
}

static void no_lines(void **state)
{
	static const char *const none[] = {
		"",
		"x",
		"Nov 26",
		"Nov 26 11:38:14",
		"Nov 26 11:38:14 gw",
		"Nov 26 11:38:14 gw postfix/qmgr[1]",
		"Nov 26 11:38:14 gw last message repeated 3 times",
		"Now 26 11:38:14 gw postfix/qmgr[1]: x",
		"Nov 32 11:38:14 gw postfix/qmgr[1]: x",
		"Nov 26 25:38:14 gw postfix/qmgr[1]: x",
		"Nov 26 11-38-14 gw postfix/qmgr[1]: x",
		"2026-13-26T10:38:14Z gw postfix/qmgr[1]: x",
		"2026-11-26T10:38:14Q gw postfix/qmgr[1]: x",
		"2026-11-26T10:38:14+25:00 gw postfix/qmgr[1]: x",
		"1969-11-26T10:38:14Z gw postfix/qmgr[1]: x",
		"20261126T103814Z gw postfix/qmgr[1]: x",
		"-- Boot 5a5a --",
	};
	static const char nul[] = "2026-11-26T10:38:14Z gw postfix/qmgr[1]: a\0b";
	struct logline line;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(none); i++)
		if (parse(none[i], &line))
			fail_msg("%s", none[i]);
	assert_false(logline_parse(nul, sizeof(nul) - 1, NOW, &line));
}

static void values(void **state)
{
	static const struct {
		const char *text, *key, *value; /* NULL: not there */
	} cases[] = {
		{"from=<a@b>, size=312, nrcpt=2 (queue active)", "from", "a@b"},
		{"from=<>, size=312", "from", ""},
		{"from=<a@b>, size=312, nrcpt=2 (queue active)", "size", "312"},
		{"from=<a@b>, size=312, nrcpt=2 (queue active)", "nrcpt", "2"},
		{"from=<\"a, b\"@c>, size=1", "from", "\"a, b\"@c"},
		{"client=erp.test[10.1.0.5], sasl_method=PLAIN, sasl_username=erp", "client",
		 "erp.test[10.1.0.5]"},
		{"client=erp.test[10.1.0.5], sasl_method=PLAIN, sasl_username=erp",
		 "sasl_username", "erp"},
		{"to=<a@b>, orig_to=<c>, relay=x", "orig_to", "c"},
		{"orig_to=<c>, relay=x", "to", NULL},
		{"accept mailbox=relay text=\"a \\\"b\\\" c\" used=8/9", "text", "a \\\"b\\\" c"},
		{"accept mailbox=relay used=8/9", "used", "8/9"},
		{"accept mailbox=", "mailbox", ""},
		{"text=\"open", "text", "open"},
		{"text=\"open\\", "text", "open\\"},
		{"", "from", NULL},
		{"from", "from", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct logline line = {.text = {cases[i].text, strlen(cases[i].text)}};
		struct logtext value;

		if (logline_value(&line, cases[i].key, &value) != (cases[i].value != NULL))
			fail_msg("%s of %s", cases[i].key, cases[i].text);
		if (cases[i].value != NULL)
			check(&value, cases[i].value);
	}
}

static void addresses(void **state)
{
	struct logline line = {
		.text = {"to=<a@b>,c@d,<\"e,f\"@g>, delay=00:00:01, mailer=esmtp", 50}};
	struct logtext list, address;

	(void)state;
	assert_true(logline_behind(&line, "to", &list));
	assert_true(logline_next_address(&list, &address));
	check(&address, "a@b");
	assert_true(logline_next_address(&list, &address));
	check(&address, "c@d");
	assert_true(logline_next_address(&list, &address));
	check(&address, "\"e,f\"@g");
	assert_false(logline_next_address(&list, &address));
}

static int in_berlin(void **state)
{
	(void)state;
	return setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times),
		cmocka_unit_test(parts),
		cmocka_unit_test(no_lines),
		cmocka_unit_test(values),
		cmocka_unit_test(addresses),
		cmocka_unit_test(events),
		cmocka_unit_test(no_events),
		cmocka_unit_test(an_event_of_another_program_is_text),
	};

	return cmocka_run_group_tests(tests, in_berlin, NULL);
}
