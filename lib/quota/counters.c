#include "quota/counters.h"

#include "base/hash.h"
#include "base/xalloc.h"

#include <stddef.h>
#include <sys/random.h>

enum { SLOTS_MIN = 64, EVICT_SLOTS = 1024 };

void counters_init(struct counters *table)
{
	memset(table, 0, sizeof(*table));
	table->slots = SLOTS_MIN;
	table->slot = xcalloc(table->slots, sizeof(*table->slot));
	if (getrandom(table->seed, sizeof(table->seed), 0) != (ssize_t)sizeof(table->seed))
		table->seed[0] = (uintptr_t)table->slot;
}

static void counter_free(struct counter *counter)
{
	window_clear(&counter->window);
	free(counter);
}

void counters_clear(struct counters *table)
{
	for (size_t i = 0; i < table->slots; i++) {
		struct counter *next;

		for (struct counter *c = table->slot[i]; c != NULL; c = next) {
			next = c->next;
			counter_free(c);
		}
	}
	free(table->slot);
	memset(table, 0, sizeof(*table));
}

void counters_fold(const char *key, char out[QUOTA_KEY_MAX + 1])
{
	static const uint64_t fixed[2] = {UINT64_C(0x243f6a8885a308d3),
					  UINT64_C(0x13198a2e03707344)};
	size_t len = strlen(key), n = len > QUOTA_KEY_MAX ? QUOTA_KEY_MAX : len;

	for (size_t i = 0; i < n; i++) {
		unsigned int c = (unsigned char)key[i];

		out[i] = (char)(c - 'A' < 26 ? c + 'a' - 'A' : c);
	}
	out[n] = '\0';
	if (n < len) {
		/* Two long keys must not share a counter; the hash must outlive this process. */
		(void)snprintf(out + QUOTA_KEY_MAX - 17, 18, "#%016llx",
			       (unsigned long long)hash_bytes(fixed, key, len));
	}
}

static uint64_t hash_name(const struct counters *table, const char *limit_name, const char *key)
{
	uint64_t h = hash_bytes(table->seed, limit_name, strlen(limit_name));

	return hash_mix(h, hash_bytes(table->seed, key, strlen(key)));
}

static struct counter *look_up(const struct counters *table, uint64_t hash,
			       const char *limit_name, const char *key)
{
	struct counter *c = table->slot[hash & (table->slots - 1)];
	size_t n = strlen(limit_name);

	for (; c != NULL; c = c->next)
		if (c->hash == hash && (size_t)(c->key - c->name) == n + 1 &&
		    memcmp(c->name, limit_name, n) == 0 && strcmp(c->key, key) == 0)
			return c;
	return NULL;
}

struct counter *counters_find(const struct counters *table, const char *limit_name,
			      const char *key)
{
	return look_up(table, hash_name(table, limit_name, key), limit_name, key);
}

static void grow(struct counters *table)
{
	size_t slots = table->slots * 2;
	struct counter **slot = xcalloc(slots, sizeof(struct counter *));

	for (size_t i = 0; i < table->slots; i++) {
		struct counter *next;

		for (struct counter *c = table->slot[i]; c != NULL; c = next) {
			next = c->next;
			c->next = slot[c->hash & (slots - 1)];
			slot[c->hash & (slots - 1)] = c;
		}
	}
	free(table->slot);
	table->slot = slot;
	table->slots = slots;
}

struct counter *counters_get(struct counters *table, const char *limit_name, const char *key,
			     int64_t window_ms, size_t max)
{
	uint64_t hash = hash_name(table, limit_name, key);
	struct counter *c = look_up(table, hash, limit_name, key);
	size_t limit_len = strlen(limit_name), key_len = strlen(key);

	if (c != NULL)
		return c;
	if (table->count >= max)
		return NULL;
	if (table->count >= table->slots)
		grow(table);
	c = xcalloc(1, offsetof(struct counter, name) + limit_len + key_len + 2);
	memcpy(c->name, limit_name, limit_len);
	c->name[limit_len] = '/';
	memcpy(c->name + limit_len + 1, key, key_len + 1);
	c->key = c->name + limit_len + 1;
	c->name_len = limit_len + 1 + key_len;
	c->hash = hash;
	window_init(&c->window, window_ms);
	c->next = table->slot[hash & (table->slots - 1)];
	table->slot[hash & (table->slots - 1)] = c;
	table->count++;
	return c;
}

void counters_owe(struct counters *table, struct counter *counter, bool owed)
{
	if (counter->owed == owed)
		return;
	counter->owed = owed;
	if (owed)
		table->owed++;
	else
		table->owed--;
}

static bool is_named(const struct quota_limit *limit, const struct counter *c)
{
	size_t n = (size_t)(c->key - c->name) - 1;

	return strlen(limit->name) == n && memcmp(limit->name, c->name, n) == 0;
}

static const struct quota_limit *limit_of(const struct counter *c,
					  const struct limit_index *index)
{
	const struct quota_limit *limit = limit_index_next(index, c->key, NULL);

	while (limit != NULL && !is_named(limit, c))
		limit = limit_index_next(index, c->key, limit);
	for (size_t i = 0; i < index->generals && limit == NULL; i++)
		if (is_named(index->general[i], c))
			limit = index->general[i];
	/* A key that is excepted now has what it used, and no limit. */
	return limit == NULL || policy_excepts(limit, c->key) ? NULL : limit;
}

static void change_window(struct counters *table, struct counter *c, int64_t window_ms)
{
	struct window old = c->window;

	window_init(&c->window, window_ms);
	for (size_t i = 0; i < old.count; i++) {
		int64_t n, at_ms = window_bucket(&old, i, &n);

		window_add(&c->window, at_ms, n);
	}
	window_clear(&old);
	counters_owe(table, c, true);
}

void counters_link(struct counters *table, const struct limit_index *index)
{
	for (size_t i = 0; i < table->slots; i++) {
		for (struct counter *c = table->slot[i]; c != NULL; c = c->next) {
			c->limit = limit_of(c, index);
			if (c->limit != NULL && c->limit->window_ms != c->window.window_ms)
				change_window(table, c, c->limit->window_ms);
		}
	}
}

void counters_prune(struct counters *table, size_t slot, int64_t now_ms)
{
	struct counter **at = &table->slot[slot];

	while (*at != NULL) {
		struct counter *c = *at;

		if (c->refs > 0 || c->owed || window_used(&c->window, now_ms) > 0) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		table->count--;
		counter_free(c);
	}
}

void counters_evict(struct counters *table, int64_t now_ms)
{
	for (size_t i = 0; i < EVICT_SLOTS; i++)
		counters_prune(table, table->hand++ & (table->slots - 1), now_ms);
}
