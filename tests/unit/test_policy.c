#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/policy.h"

#define NOW 1000000

/* One use of a limit, in a line of the tables below. */
struct line {
	enum quota_action action, then;
	int64_t max, used, mine, need, room_at;
	int reserve;
	bool shadow;
};

static void to_use(const struct line *line, bool priority, struct quota_limit *limit,
		   struct policy_use *use)
{
	memset(limit, 0, sizeof(*limit));
	(void)snprintf(limit->name, sizeof(limit->name), "l%d", (int)line->action);
	limit->action = line->action;
	limit->then = line->then;
	limit->max = line->max;
	limit->max_wait_ms = 500;
	limit->reserve_percent = line->reserve;
	limit->shadow = line->shadow;
	*use = (struct policy_use){.limit = limit,
				   .key = "k",
				   .cap = policy_cap(limit, priority),
				   .used = line->used,
				   .mine = line->mine,
				   .need = line->need,
				   .room_at_ms = line->room_at};
}

static const struct {
	struct line line;
	bool priority, undivided;
	bool exceeded, refused, never;
	enum quota_action action;
} one_limit[] = {
	/* The last one fits, the next does not. */
	{{QUOTA_REJECT, 0, 10, 9, 0, 1, 0, 0, 0}, 0, 0, 0, 0, 0, 0},
	{{QUOTA_REJECT, 0, 10, 10, 0, 1, 0, 0, 0}, 0, 0, 1, 1, 0, QUOTA_REJECT},
	{{QUOTA_DEFER, 0, 10, 9, 0, 2, 0, 0, 0}, 0, 0, 1, 1, 0, QUOTA_DEFER},
	{{QUOTA_DEFER, 0, 10, 50, 0, 1, 0, 0, 0}, 0, 0, 1, 1, 0, QUOTA_DEFER},
	{{QUOTA_HOLD, 0, 10, 10, 0, 1, 0, 0, 0}, 0, 0, 1, 0, 0, QUOTA_HOLD},
	{{QUOTA_WARN, 0, 10, 10, 0, 1, 0, 0, 0}, 0, 0, 1, 0, 0, QUOTA_WARN},
	/* Alone over the maximum: never, but what takes it anyway takes it. */
	{{QUOTA_DEFER, 0, 10, 0, 0, 11, 0, 0, 0}, 0, 0, 1, 1, 1, QUOTA_REJECT},
	{{QUOTA_WAIT, QUOTA_DEFER, 10, 0, 0, 11, -1, 0, 0}, 0, 0, 1, 1, 1, QUOTA_REJECT},
	{{QUOTA_HOLD, 0, 10, 0, 0, 11, 0, 0, 0}, 0, 0, 1, 0, 1, QUOTA_HOLD},
	{{QUOTA_WARN, 0, 10, 0, 0, 11, 0, 0, 0}, 0, 0, 1, 0, 1, QUOTA_WARN},
	{{QUOTA_DEFER, 0, 0, 0, 0, 1, 0, 0, 0}, 0, 0, 1, 1, 1, QUOTA_REJECT},
	{{QUOTA_DEFER, 0, INT64_MAX, INT64_MAX, 0, INT64_MAX, 0, 0, 0},
	 0,
	 0,
	 1,
	 1,
	 0,
	 QUOTA_DEFER},
	/* Waiting, as long as it is not too long. */
	{{QUOTA_WAIT, QUOTA_DEFER, 10, 10, 0, 1, NOW + 500, 0, 0}, 0, 0, 1, 0, 0, QUOTA_WAIT},
	{{QUOTA_WAIT, QUOTA_DEFER, 10, 10, 0, 1, NOW + 501, 0, 0}, 0, 0, 1, 1, 0, QUOTA_DEFER},
	{{QUOTA_WAIT, QUOTA_REJECT, 10, 10, 0, 1, NOW + 501, 0, 0}, 0, 0, 1, 1, 0, QUOTA_REJECT},
	{{QUOTA_WAIT, QUOTA_DEFER, 10, 10, 0, 1, -1, 0, 0}, 0, 0, 1, 1, 0, QUOTA_DEFER},
	/* The last tenth is for priority. */
	{{QUOTA_DEFER, 0, 100, 89, 0, 1, 0, 10, 0}, 0, 0, 0, 0, 0, 0},
	{{QUOTA_DEFER, 0, 100, 90, 0, 1, 0, 10, 0}, 0, 0, 1, 1, 0, QUOTA_DEFER},
	{{QUOTA_DEFER, 0, 100, 90, 0, 1, 0, 10, 0}, 1, 0, 0, 0, 0, 0},
	{{QUOTA_DEFER, 0, 100, 100, 0, 1, 0, 10, 0}, 1, 0, 1, 1, 0, QUOTA_DEFER},
	{{QUOTA_DEFER, 0, 100, 0, 0, 95, 0, 10, 0}, 0, 0, 1, 1, 1, QUOTA_REJECT},
	{{QUOTA_DEFER, 0, 100, 0, 0, 95, 0, 10, 0}, 1, 0, 0, 0, 0, 0},
	/* A message that can't be split: what it has already belongs to its need. */
	{{QUOTA_DEFER, 0, 10, 10, 10, 1, 0, 0, 0}, 0, 0, 1, 1, 0, QUOTA_DEFER},
	{{QUOTA_DEFER, 0, 10, 10, 10, 1, 0, 0, 0}, 0, 1, 1, 1, 1, QUOTA_REJECT},
	{{QUOTA_DEFER, 0, 10, 10, 9, 1, 0, 0, 0}, 0, 1, 1, 1, 0, QUOTA_DEFER},
	/* In shadow nothing is refused. */
	{{QUOTA_REJECT, 0, 10, 10, 0, 1, 0, 0, 1}, 0, 0, 1, 0, 0, QUOTA_REJECT},
	{{QUOTA_DEFER, 0, 10, 0, 0, 11, 0, 0, 1}, 0, 0, 1, 0, 1, QUOTA_REJECT},
};

static void test_one_limit(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(one_limit); i++) {
		struct quota_facts facts = {.priority = one_limit[i].priority,
					    .undivided = one_limit[i].undivided};
		struct quota_verdict verdict;
		struct quota_limit limit;
		struct policy_use use;

		to_use(&one_limit[i].line, facts.priority, &limit, &use);
		policy_decide(&use, 1, &facts, NOW, &verdict);
		if (verdict.exceeded != one_limit[i].exceeded ||
		    verdict.refused != one_limit[i].refused)
			fail_msg("case %zu: exceeded %d, refused %d", i, verdict.exceeded,
				 verdict.refused);
		if (!verdict.exceeded)
			continue;
		if (verdict.never != one_limit[i].never || verdict.action != one_limit[i].action)
			fail_msg("case %zu: never %d, action %d", i, verdict.never,
				 verdict.action);
		assert_int_equal(verdict.shadowed, one_limit[i].line.shadow);
		assert_int_equal(verdict.used, one_limit[i].line.used);
		assert_int_equal(verdict.max, one_limit[i].line.max);
		assert_string_equal(verdict.key, "k");
	}
}

/* Of several limits the worst decides, in whatever order they come. */
static void test_worst_limit(void **state)
{
	static const struct line by_rank[] = {
		{QUOTA_REJECT, 0, 10, 10, 0, 1, 0, 0, 1}, /* shadow */
		{QUOTA_WARN, 0, 10, 10, 0, 1, 0, 0, 0},
		{QUOTA_WAIT, QUOTA_DEFER, 10, 10, 0, 1, NOW, 0, 0},
		{QUOTA_HOLD, 0, 10, 10, 0, 1, 0, 0, 0},
		{QUOTA_DEFER, 0, 10, 10, 0, 1, 0, 0, 0},
		{QUOTA_REJECT, 0, 10, 10, 0, 1, 0, 0, 0},
		{QUOTA_DEFER, 0, 0, 10, 0, 1, 0, 0, 0}, /* never */
	};
	struct quota_facts facts = {0};

	(void)state;
	for (size_t a = 0; a < ARRAY_LEN(by_rank); a++) {
		for (size_t b = 0; b < ARRAY_LEN(by_rank); b++) {
			const struct line *worst = &by_rank[a > b ? a : b];
			struct quota_verdict verdict;
			struct quota_limit limit[3];
			struct policy_use use[3];
			static const struct line fits = {QUOTA_REJECT, 0, 10, 0, 0, 1, 0, 0, 0};

			to_use(&by_rank[a], false, &limit[0], &use[0]);
			to_use(&fits, false, &limit[1], &use[1]);
			to_use(&by_rank[b], false, &limit[2], &use[2]);
			policy_decide(use, 3, &facts, NOW, &verdict);
			assert_true(verdict.exceeded);
			assert_int_equal(verdict.max, worst->max);
			assert_int_equal(verdict.shadowed, worst->shadow);
			assert_int_equal(verdict.refused, (a > b ? a : b) > 3);
		}
	}
}

static void test_nothing_met(void **state)
{
	struct quota_facts facts = {0};
	struct quota_verdict verdict;

	(void)state;
	policy_decide(NULL, 0, &facts, NOW, &verdict);
	assert_false(verdict.exceeded);
	assert_false(verdict.refused);
}

static void test_keys_and_needs(void **state)
{
	struct quota_facts facts = {.mailbox = "m",
				    .tenant = "t",
				    .source = "s",
				    .sender = "",
				    .sender_domain = NULL};
	struct quota_need need = {1, 2, 3, 4};
	struct quota_limit limit = {.max = 9};

	(void)state;
	assert_string_equal(policy_key(QUOTA_PER_MAILBOX, &facts), "m");
	assert_string_equal(policy_key(QUOTA_PER_TENANT, &facts), "t");
	assert_string_equal(policy_key(QUOTA_PER_SOURCE, &facts), "s");
	assert_null(policy_key(QUOTA_PER_SENDER, &facts));
	assert_null(policy_key(QUOTA_PER_SENDER_DOMAIN, &facts));
	assert_non_null(policy_key(QUOTA_PER_EVERYONE, &facts));
	for (int count = QUOTA_MESSAGES; count <= QUOTA_BYTES; count++) {
		limit.count = (enum quota_count)count;
		assert_int_equal(policy_need(&limit, &facts, &need), 1 + count);
	}
}

static void test_cap(void **state)
{
	static const struct {
		int64_t max;
		int percent;
		int64_t cap;
	} cases[] = {
		{100, 10, 90}, {9500, 10, 8550}, {9, 10, 9},
		{100, 0, 100}, {100, 100, 0},	 {INT64_MAX, 50, INT64_MAX - INT64_MAX / 2},
		{0, 50, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct quota_limit limit = {.max = cases[i].max,
					    .reserve_percent = cases[i].percent};

		assert_int_equal(policy_cap(&limit, false), cases[i].cap);
		assert_int_equal(policy_cap(&limit, true), cases[i].max);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_limit),   cmocka_unit_test(test_worst_limit),
		cmocka_unit_test(test_nothing_met), cmocka_unit_test(test_keys_and_needs),
		cmocka_unit_test(test_cap),
	};

	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
