#include "quota/limit_index.h"

#include "base/hash.h"
#include "base/xalloc.h"
#include "quota/counters.h"

enum { SLOTS_MIN = 16 };

/* Who chooses senders chooses no limits, so the seed needs no secrecy. */
static size_t slot_of(const struct limit_index *index, const char *key)
{
	static const uint64_t seed[2] = {1, 2};

	return hash_bytes(seed, key, strlen(key)) & (index->slots - 1);
}

void limit_index_make(struct limit_index *index, const struct quota_limit *limits, size_t count)
{
	*index = (struct limit_index){.limit = limits, .count = count, .slots = SLOTS_MIN};
	while (index->slots < count)
		index->slots *= 2;
	index->general = xcalloc(count, sizeof(*index->general));
	index->slot = xcalloc(index->slots, sizeof(*index->slot));
	index->next = xcalloc(count, sizeof(*index->next));
	for (size_t i = 0; i < count; i++)
		if (limits[i].key[0] == '\0')
			index->general[index->generals++] = &limits[i];
	for (size_t i = count; i-- > 0;) {
		size_t *slot;

		if (limits[i].key[0] == '\0')
			continue;
		slot = &index->slot[slot_of(index, limits[i].key)];
		index->next[i] = *slot;
		*slot = i + 1;
		index->keyed[limits[i].per] = true;
	}
}

void limit_index_clear(struct limit_index *index)
{
	free(index->general);
	free(index->slot);
	free(index->next);
	memset(index, 0, sizeof(*index));
}

const struct quota_limit *limit_index_next(const struct limit_index *index, const char *key,
					   const struct quota_limit *after)
{
	size_t at = after == NULL ? index->slot[slot_of(index, key)]
				  : index->next[after - index->limit];

	while (at != 0 && strcmp(index->limit[at - 1].key, key) != 0)
		at = index->next[at - 1];
	return at == 0 ? NULL : &index->limit[at - 1];
}

/* Brings the last of n limits to its place. */
static void sort_in(const struct quota_limit **met, size_t n)
{
	const struct quota_limit *last = met[n - 1];

	for (; n > 1 && met[n - 2] > last; n--)
		met[n - 1] = met[n - 2];
	met[n - 1] = last;
}

/* Whether one of these limits is the same limit's maximum for this very key. */
static bool is_overridden(const struct quota_limit *limit, const struct quota_limit **met,
			  size_t n)
{
	for (size_t i = 0; i < n && limit->conf != NULL; i++)
		if (met[i]->conf == limit->conf)
			return true;
	return false;
}

/* The folded key, made when it is first asked for; "" if the facts say nothing of it. */
static const char *key_of(enum quota_per per, const struct quota_facts *facts,
			  struct limit_keys *keys, bool known[QUOTA_PER_COUNT])
{
	const char *key;

	if (!known[per]) {
		key = policy_key(per, facts);
		counters_fold(key == NULL ? "" : key, keys->key[per]);
		known[per] = true;
	}
	return keys->key[per];
}

size_t limit_index_meet(const struct limit_index *index, const struct quota_facts *facts,
			struct limit_keys *keys_r,
			const struct quota_limit *met_r[QUOTA_LIMITS_MAX])
{
	bool known[QUOTA_PER_COUNT] = {false};
	size_t n = 0, keyed;

	for (int per = 0; per < QUOTA_PER_COUNT; per++) {
		const struct quota_limit *limit = NULL;
		const char *key;

		if (!index->keyed[per])
			continue;
		key = key_of((enum quota_per)per, facts, keys_r, known);
		while (key[0] != '\0' && n < QUOTA_LIMITS_MAX &&
		       (limit = limit_index_next(index, key, limit)) != NULL)
			if (limit->per == (enum quota_per)per) {
				met_r[n++] = limit;
				sort_in(met_r, n);
			}
	}
	keyed = n;
	for (size_t i = 0; i < index->generals && n < QUOTA_LIMITS_MAX; i++) {
		const struct quota_limit *limit = index->general[i];
		const char *key = key_of(limit->per, facts, keys_r, known);

		if (key[0] == '\0' || policy_excepts(limit, key) ||
		    is_overridden(limit, met_r, keyed))
			continue;
		met_r[n++] = limit;
	}
	for (size_t i = keyed + 1; i <= n && keyed > 0; i++)
		sort_in(met_r, i);
	return n;
}
