#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "explain/explain.h"

/* ---- codes alone, and lines of a log ---- */

static void count_entry(void *arg, const struct explanation *what)
{
	size_t *count = arg;

	assert_non_null(what->meaning);
	(*count)++;
}

static void test_codes(void **state)
{
	static const struct {
		const char *code;
		size_t entries; /* 0: none; else at least so many */
	} codes[] = {
		{"5.7.139", 8},	  {"5.7.3", 1},	  {"4.7.3", 2},	 {"5.2.0", 3}, {"5.7.57", 1},
		{"4.7.500", 1},	  {"5.7.999", 0}, {"", 0},	 {"5.7", 0},   {"5.7.3.", 0},
		{"5.7.139 x", 0}, {"2.0.0", 0},	  {"4.7.60", 0}, /* what bounces has a 5 */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		size_t count = 0;

		explain_code(codes[i].code, count_entry, &count);
		if ((codes[i].entries == 0) != (count == 0) || count < codes[i].entries)
			fail_msg("%s: %zu entries", codes[i].code, count);
	}
	assert_non_null(explain_basic(535));
	assert_null(explain_basic(250));
}

static void test_lines(void **state)
{
	static const struct {
		const char *line;
		const char *id; /* NULL: none */
	} lines[] = {
		{"x postfix/smtp[1]: 4X: to=<a@b>, relay=none, delay=30, dsn=4.4.1, "
		 "status=deferred (connect to smtp.office365.com[192.0.2.1]:587: Connection "
		 "timed out)",
		 "firewall"},
		{"status=deferred (connect to x[192.0.2.1]:587: Connection refused)", "refused"},
		{"dsn=4.7.5, status=deferred (Server certificate not trusted)", "certificate"},
		{"dsn=4.7.4, status=deferred (TLS is required, but was not offered by host x)",
		 "no STARTTLS"},
		{"warning: SASL authentication failure: No worthy mechs found", "no mechanism"},
		{"warning: connect to Milter service unix:relay365m/milter: No such file",
		 "milter"},
		{"token tenant=contoso result=error class=config aadsts=7000222 retry_in=300",
		 "AADSTS7000222"},
		{"invalid_client: AADSTS7000215: Invalid client secret provided.",
		 "AADSTS7000215"},
		{"token result=error error=\"invalid_scope\"", "invalid_scope"},
		{"status=deferred (host x said: 454 4.2.0 STOREDRV.Submission.Exception:"
		 "SubmissionQuotaExceededException (in reply to end of DATA command))",
		 "5.2.0 SubmissionQuota"},
		{"status=bounced (host x said: 550 5.1.10 RESOLVER.ADR.RecipientNotFound; not "
		 "found)",
		 "recipient"},
		{"4X: defer limit=recipients_per_day mailbox=relay used=9500/9500", "own limit"},
		{"delays=0.02/5.7/3.1/1.2, dsn=2.0.0, status=sent (250 2.0.0 OK)", NULL},
		{"AADSTS: no number", NULL},
		{"", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		const struct explanation *what = explain_line(lines[i].line);

		if (lines[i].id == NULL) {
			if (what != NULL)
				fail_msg("%s: %s", lines[i].line, what->id);
		} else if (what == NULL || strcmp(what->id, lines[i].id) != 0) {
			fail_msg("%s: %s", lines[i].line, what == NULL ? "unknown" : what->id);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codes),
		cmocka_unit_test(test_lines),
	};

	return cmocka_run_group_tests_name("explain_lines", tests, NULL, NULL);
}
