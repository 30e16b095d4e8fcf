#include "quota/fold.h"

#include "base/hash.h"
#include "base/xalloc.h"
#include "quota/window.h"

/* Entries of one counter and bucket come together, whatever order that is. */
struct part {
	uint64_t hash;
	int64_t index; /* of the bucket */
	const struct journal_entry *entry;
};

static int by_counter(const void *a, const void *b)
{
	const struct part *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

static bool same(const struct part *a, const struct part *b)
{
	return a->hash == b->hash && a->index == b->index &&
	       a->entry->window_ms == b->entry->window_ms &&
	       a->entry->name_len == b->entry->name_len &&
	       memcmp(a->entry->name, b->entry->name, a->entry->name_len) == 0;
}

static int add(struct ledger *ledger, const struct journal_entry *entry, int64_t n,
	       struct err *err)
{
	char name[LEDGER_NAME_MAX + 1];

	if (entry->name_len > LEDGER_NAME_MAX)
		return 0; /* nobody writes such a name */
	memcpy(name, entry->name, entry->name_len);
	name[entry->name_len] = '\0';
	return ledger_add(ledger, name, entry->window_ms, entry->at_ms, n, err);
}

static int fold_block(void *arg, const struct journal_entry *entries, size_t count,
		      struct err *err)
{
	static const uint64_t seed[2] = {1, 2};
	struct part *part = xcalloc(count, sizeof(*part));
	int rc = 0;

	for (size_t i = 0; i < count; i++) {
		struct window window;

		window_init(&window, entries[i].window_ms);
		part[i].entry = &entries[i];
		part[i].hash = hash_bytes(seed, entries[i].name, entries[i].name_len);
		part[i].index = window_index(&window, entries[i].at_ms);
	}
	qsort(part, count, sizeof(*part), by_counter);
	for (size_t i = 0, next; i < count && rc == 0; i = next) {
		int64_t n = part[i].entry->n;

		for (next = i + 1; next < count && same(&part[i], &part[next]); next++)
			n += part[next].entry->n;
		rc = add(arg, part[i].entry, n, err);
	}
	free(part);
	return rc;
}

int fold_journal(struct ledger *ledger, struct journal *journal, uint64_t number, struct err *err)
{
	if (ledger_begin(ledger, err) < 0)
		return -1;
	if (journal_read(journal, number, fold_block, ledger, err) < 0) {
		ledger_rollback(ledger);
		return -1;
	}
	if (ledger_set_folded(ledger, number, err) < 0)
		return -1;
	return ledger_commit(ledger, err);
}
