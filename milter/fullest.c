#include "milter/fullest.h"

#include "base/xalloc.h"

struct search {
	const struct quota_limit *limits;
	size_t count;
	struct fullest_limit *found;
};

static struct fullest_key *make_room(struct fullest_limit *found, size_t at)
{
	if (found->count == FULLEST_MAX) {
		free(found->key[--found->count].name);
	} else if (found->count == found->cap) {
		found->cap = found->cap == 0 ? 1 : found->cap * 2;
		found->key = xreallocarray(found->key, found->cap, sizeof(*found->key));
	}
	memmove(&found->key[at + 1], &found->key[at], (found->count - at) * sizeof(*found->key));
	found->count++;
	return &found->key[at];
}

static void look(void *arg, const struct quota_row *row)
{
	struct search *search = arg;
	struct fullest_limit *found;
	size_t at;

	/* Other limits than these, when a reload comes between. */
	if (row->place >= search->count ||
	    strcmp(row->limit->name, search->limits[row->place].name) != 0)
		return;
	found = &search->found[row->place];
	found->in_use += row->used > 0;
	for (at = found->count; at > 0 && found->key[at - 1].used < row->used; at--)
		continue;
	if (at == FULLEST_MAX)
		return;
	*make_room(found, at) = (struct fullest_key){xstrdup(row->key), row->used, row->reserved,
						     row->room_at_wall_ms};
}

struct fullest_limit *fullest_find(struct quota *quota, const struct quota_limit *limits,
				   size_t count)
{
	struct search search = {limits, count, xcalloc(count, sizeof(*search.found))};

	quota_each(quota, look, &search);
	return search.found;
}

void fullest_free(struct fullest_limit **found, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < (*found)[i].count; k++)
			free((*found)[i].key[k].name);
		free((*found)[i].key);
	}
	free(*found);
	*found = NULL;
}
