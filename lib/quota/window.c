#include "quota/window.h"

#include "base/xalloc.h"

void window_init(struct window *window, int64_t window_ms)
{
	if (window_ms < WINDOW_MIN_MS)
		window_ms = WINDOW_MIN_MS;
	if (window_ms > WINDOW_MAX_MS)
		window_ms = WINDOW_MAX_MS;
	memset(window, 0, sizeof(*window));
	window->window_ms = window_ms;
	window->width_ms = (window_ms + WINDOW_BUCKETS - 1) / WINDOW_BUCKETS;
}

void window_clear(struct window *window)
{
	free(window->ring);
	window->ring = NULL;
	window->first = window->count = window->cap = 0;
	window->sum = 0;
}

static struct window_bucket *bucket(const struct window *window, size_t place)
{
	return &window->ring[(window->first + place) & (window->cap - 1)];
}

int64_t window_index(const struct window *window, int64_t at_ms)
{
	int64_t index = at_ms / window->width_ms;

	return at_ms < 0 && index * window->width_ms != at_ms ? index - 1 : index;
}

/* The first time at which nothing of the bucket counts: its end, and then the whole window. */
static int64_t gone_at(const struct window *window, int64_t index)
{
	return (index + 1) * window->width_ms + window->window_ms;
}

int64_t window_used(struct window *window, int64_t now_ms)
{
	while (window->count > 0) {
		const struct window_bucket *oldest = bucket(window, 0);

		if (gone_at(window, oldest->index) > now_ms)
			break;
		window->sum -= oldest->n;
		window->first = (window->first + 1) & (window->cap - 1);
		window->count--;
	}
	return window->sum;
}

static void grow(struct window *window)
{
	size_t cap = window->cap == 0 ? 4 : window->cap * 2;
	struct window_bucket *ring = xreallocarray(NULL, cap, sizeof(*ring));

	for (size_t i = 0; i < window->count; i++)
		ring[i] = *bucket(window, i);
	free(window->ring);
	window->ring = ring;
	window->first = 0;
	window->cap = cap;
}

void window_add(struct window *window, int64_t at_ms, int64_t n)
{
	int64_t index = window_index(window, at_ms);
	size_t place = window->count;

	if (n > INT64_MAX - window->sum)
		n = INT64_MAX - window->sum;
	if (n <= 0)
		return;
	while (place > 0 && bucket(window, place - 1)->index > index)
		place--;
	window->sum += n;
	if (place > 0 && bucket(window, place - 1)->index == index) {
		bucket(window, place - 1)->n += n;
		return;
	}
	if (window->count == window->cap)
		grow(window);
	for (size_t i = window->count; i > place; i--)
		*bucket(window, i) = *bucket(window, i - 1);
	window->count++;
	*bucket(window, place) = (struct window_bucket){index, n};
}

int64_t window_room_at(struct window *window, int64_t now_ms, int64_t max, int64_t need)
{
	int64_t left = window_used(window, now_ms);

	if (need > max)
		return -1;
	if (left <= max - need)
		return now_ms;
	for (size_t i = 0; i < window->count; i++) {
		left -= bucket(window, i)->n;
		if (left <= max - need)
			return gone_at(window, bucket(window, i)->index);
	}
	return -1; /* not reached: with all gone, left is 0 */
}

int64_t window_used_later(const struct window *window, int64_t at_ms)
{
	int64_t left = window->sum;

	for (size_t i = 0; i < window->count; i++) {
		if (gone_at(window, bucket(window, i)->index) > at_ms)
			break;
		left -= bucket(window, i)->n;
	}
	return left;
}

int64_t window_bucket(const struct window *window, size_t place, int64_t *n_r)
{
	const struct window_bucket *b = bucket(window, place);

	*n_r = b->n;
	return (b->index + 1) * window->width_ms - 1;
}
