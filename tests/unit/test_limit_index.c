/* The index finds what a look at every limit finds. */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/counters.h"
#include "quota/limit_index.h"

enum { ROUNDS = 20000, LIMITS = 40, NAMES = 7 };

static const char *const names[NAMES] = {"a", "b", "c@d", "e", "f.g", "", NULL};

static unsigned int below(unsigned int n)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (unsigned int)(x >> 33) % n;
}

/* A general limit of the configuration, one for a key that overrides it, or a built-in one. */
static void make_limit(struct quota_limit *limit, struct conf_limit *conf)
{
	memset(limit, 0, sizeof(*limit));
	limit->per = (enum quota_per)below(QUOTA_PER_COUNT);
	limit->max = 1;
	if (conf->except.count > 0)
		limit->conf = conf;
	if (below(2) == 0)
		(void)snprintf(limit->key, sizeof(limit->key), "%s", names[below(5)]);
}

/* Whether the limit is met, seen from it alone and from all the others. */
static bool is_met(const struct quota_limit *limits, size_t count, size_t i,
		   const struct quota_facts *facts)
{
	const struct quota_limit *limit = &limits[i];
	const char *key = policy_key(limit->per, facts);

	if (key == NULL)
		return false;
	if (limit->key[0] != '\0')
		return strcmp(limit->key, key) == 0;
	for (size_t j = 0; j < count; j++)
		if (limit->conf != NULL && limits[j].conf == limit->conf &&
		    limits[j].key[0] != '\0' && policy_key(limits[j].per, facts) != NULL &&
		    strcmp(limits[j].key, policy_key(limits[j].per, facts)) == 0)
			return false;
	return !policy_excepts(limit, key);
}

static void check(const struct quota_limit *limits, size_t count)
{
	const struct quota_limit *met[QUOTA_LIMITS_MAX];
	const struct quota_facts facts = {.mailbox = names[below(NAMES)],
					  .tenant = names[below(NAMES)],
					  .source = names[below(NAMES)],
					  .sender = names[below(NAMES)],
					  .sender_domain = names[below(NAMES)]};
	struct limit_index index;
	struct limit_keys keys;
	size_t n, at = 0;

	limit_index_make(&index, limits, count);
	n = limit_index_meet(&index, &facts, &keys, met);
	for (size_t i = 0; i < count; i++) {
		if (!is_met(limits, count, i, &facts))
			continue;
		assert_true(at < n);
		assert_ptr_equal(met[at++], &limits[i]);
		assert_string_equal(keys.key[limits[i].per], policy_key(limits[i].per, &facts));
	}
	assert_int_equal(at, n);
	limit_index_clear(&index);
}

static void test_random(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		char *excepted[] = {(char[]){"a"}, (char[]){"e"}};
		struct conf_limit conf[2] = {{.except = {.item = excepted, .count = 2}}};
		struct quota_limit limits[LIMITS];
		size_t count = below(LIMITS + 1);

		for (size_t i = 0; i < count; i++)
			make_limit(&limits[i], &conf[below(2)]);
		check(limits, count);
	}
}

/* Keys are folded, and a key is found among many. */
static void test_many(void **state)
{
	enum { MANY = 5000 };
	struct quota_limit *limits = calloc(MANY, sizeof(*limits));
	const struct quota_limit *met[QUOTA_LIMITS_MAX];
	struct limit_index index;
	struct limit_keys keys;

	(void)state;
	assert_non_null(limits);
	for (int i = 0; i < MANY; i++)
		(void)snprintf(limits[i].key, sizeof(limits[i].key), "m%d@contoso.com", i / 2);
	limit_index_make(&index, limits, MANY);
	for (int i = 0; i < MANY / 2; i++) {
		char mailbox[64];
		struct quota_facts facts = {.mailbox = mailbox};

		(void)snprintf(mailbox, sizeof(mailbox), "M%d@Contoso.com", i);
		assert_int_equal(limit_index_meet(&index, &facts, &keys, met), 2);
		assert_ptr_equal(met[0], &limits[2 * i]);
		assert_ptr_equal(met[1], &limits[2 * i + 1]);
	}
	limit_index_clear(&index);
	free(limits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("limit_index", tests, NULL, NULL);
}
