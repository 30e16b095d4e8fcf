#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/window.h"

#include "base/xalloc.h"

#define DAY (24 * 3600 * 1000LL)
#define MINUTE 60000LL

static void test_bounds(void **state)
{
	static const struct {
		int64_t given, window_ms, width_ms;
	} cases[] = {
		{DAY, DAY, MINUTE},
		{DAY + 1, DAY + 1, MINUTE + 1},
		{WINDOW_MIN_MS, WINDOW_MIN_MS, 1},
		{0, WINDOW_MIN_MS, 1},
		{-5, WINDOW_MIN_MS, 1},
		{INT64_MAX, WINDOW_MAX_MS, WINDOW_MAX_MS / 1440},
		{MINUTE, MINUTE, 42},
	};
	struct window w;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		window_init(&w, cases[i].given);
		assert_int_equal(w.window_ms, cases[i].window_ms);
		assert_int_equal(w.width_ms, cases[i].width_ms);
		assert_true(w.width_ms * WINDOW_BUCKETS >= w.window_ms);
		window_clear(&w);
	}
}

static void test_index(void **state)
{
	struct window w;

	(void)state;
	window_init(&w, DAY);
	assert_int_equal(window_index(&w, 0), 0);
	assert_int_equal(window_index(&w, MINUTE - 1), 0);
	assert_int_equal(window_index(&w, MINUTE), 1);
	assert_int_equal(window_index(&w, -1), -1);
	assert_int_equal(window_index(&w, -MINUTE), -1);
	assert_int_equal(window_index(&w, -MINUTE - 1), -2);
	window_clear(&w);
}

/* A count goes when its whole bucket is older than the window, not a ms before. */
static void test_expiry(void **state)
{
	static const int64_t within[] = {0, 1, MINUTE / 2, MINUTE - 1};
	struct window w;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(within); i++) {
		window_init(&w, DAY);
		window_add(&w, 7 * MINUTE + within[i], 5);
		assert_int_equal(window_used(&w, 7 * MINUTE + within[i]), 5);
		assert_int_equal(window_used(&w, 8 * MINUTE + DAY - 1), 5);
		assert_int_equal(window_used(&w, 8 * MINUTE + DAY), 0);
		assert_int_equal(w.count, 0);
		window_clear(&w);
	}
}

static void test_nothing_added(void **state)
{
	struct window w;

	(void)state;
	window_init(&w, DAY);
	window_add(&w, 5, 0);
	window_add(&w, 5, -3);
	assert_int_equal(window_used(&w, 5), 0);
	assert_int_equal(w.count, 0);
	window_add(&w, 5, INT64_MAX);
	window_add(&w, 5, INT64_MAX); /* full is full: no overflow */
	assert_int_equal(window_used(&w, 5), INT64_MAX);
	window_clear(&w);
}

/* A ledger is read in any order; the result is the same. */
static void test_late_adds(void **state)
{
	static const int64_t at[] = {9, 2, 5, 2, 100, 0, 9, 1439, 3};
	struct window w, in_order;

	(void)state;
	window_init(&w, DAY);
	window_init(&in_order, DAY);
	for (size_t i = 0; i < ARRAY_LEN(at); i++)
		window_add(&w, at[i] * MINUTE, 1 + (int64_t)i);
	for (int64_t m = 0; m < 1440; m++)
		for (size_t i = 0; i < ARRAY_LEN(at); i++)
			if (at[i] == m)
				window_add(&in_order, m * MINUTE, 1 + (int64_t)i);
	assert_int_equal(w.count, 7);
	assert_int_equal(w.count, in_order.count);
	for (size_t i = 0; i < w.count; i++) {
		int64_t a, b;

		assert_int_equal(window_bucket(&w, i, &a), window_bucket(&in_order, i, &b));
		assert_int_equal(a, b);
	}
	for (int64_t m = 1440; m < 2 * 1440 + 2; m++)
		assert_int_equal(window_used(&w, m * MINUTE), window_used(&in_order, m * MINUTE));
	window_clear(&w);
	window_clear(&in_order);
}

static void test_room_at(void **state)
{
	static const struct {
		int64_t max, need, at;
	} cases[] = {
		{10, 1, 200 * MINUTE},
		{10, 2, 100 * MINUTE + DAY + MINUTE},
		{10, 5, 100 * MINUTE + DAY + MINUTE},
		{10, 6, 150 * MINUTE + DAY + MINUTE},
		{10, 10, 150 * MINUTE + DAY + MINUTE},
		{10, 11, -1},
		{0, 1, -1},
		{0, 0, 150 * MINUTE + DAY + MINUTE},
		{9, 0, 200 * MINUTE},
		{-1, 0, -1},
		{INT64_MAX, INT64_MAX, 150 * MINUTE + DAY + MINUTE},
	};
	struct window w;

	(void)state;
	window_init(&w, DAY);
	window_add(&w, 100 * MINUTE, 4);
	window_add(&w, 150 * MINUTE, 5);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(window_room_at(&w, 200 * MINUTE, cases[i].max, cases[i].need),
				 cases[i].at);
	/* And it is true: a ms before there is none. */
	assert_int_equal(window_used_later(&w, 101 * MINUTE + DAY - 1), 9);
	assert_int_equal(window_used_later(&w, 101 * MINUTE + DAY), 5);
	assert_int_equal(window_used(&w, 101 * MINUTE + DAY - 1), 9);
	assert_int_equal(window_used(&w, 101 * MINUTE + DAY), 5);
	window_clear(&w);
}

/* Mail that waits lines up one window behind the other. */
static void test_future(void **state)
{
	int64_t at = 0, last = 0, day = DAY + MINUTE;
	struct window w;

	(void)state;
	window_init(&w, DAY);
	for (int i = 0; i < 35; i++) {
		at = window_room_at(&w, 0, 10, 1);
		assert_int_equal(at, i / 10 * day);
		assert_true(at >= last);
		last = at;
		window_add(&w, at, 1);
	}
	assert_int_equal(window_used(&w, 0), 35);
	assert_int_equal(window_used(&w, day), 25);
	assert_int_equal(window_room_at(&w, day, 10, 1), 3 * day);
	assert_int_equal(window_used(&w, 3 * day), 5);
	assert_int_equal(window_room_at(&w, 3 * day, 10, 5), 3 * day);
	window_clear(&w);
}

/* ---- the promise, against an exact log of what was admitted ---- */

enum { STEPS = 400000 };

struct limiter {
	bool (*admit)(struct limiter *limiter, int64_t now_ms, int64_t need);
	int64_t window_ms, max;
	struct window window;
	int64_t start_ms, level; /* the wrong ones' */
};

struct faults {
	long too_many;	/* some window of the length held more than max */
	long held_back; /* refused, though it would have fitted one bucket ago */
	long admitted;
};

struct exact {
	int64_t at_ms[STEPS], n[STEPS];
	size_t count;
	size_t first, first_late; /* the oldest within the window, and within it and a bucket */
	int64_t sum, sum_late;
};

static int64_t drop_older(const struct exact *log, size_t *first, int64_t *sum, int64_t than_ms)
{
	while (*first < log->count && log->at_ms[*first] <= than_ms)
		*sum -= log->n[(*first)++];
	return *sum;
}

static uint64_t random_of(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* A pause as somebody would choose it who wants more than the limit. */
static int64_t pause_ms(const struct limiter *l, int64_t width, uint64_t *seed)
{
	int64_t w = l->window_ms;

	switch (random_of(seed) % 16) {
	case 0:
		return w - width - 1 + (int64_t)(random_of(seed) % (uint64_t)(2 * width + 3));
	case 1:
		return w / 2;
	case 2:
		return w - 1;
	case 3:
		return width;
	case 4:
		return width - 1;
	case 5:
		return (int64_t)(random_of(seed) % (uint64_t)w);
	case 6:
		return w + width;
	case 7:
	case 8:
		return (int64_t)(random_of(seed) % (uint64_t)(w / 100));
	case 9:
		return 1;
	default:
		return 0;
	}
}

static void play(struct limiter *l, uint64_t seed, struct faults *faults)
{
	struct exact *log = xcalloc(1, sizeof(*log));
	int64_t now = 1700000000000LL + (int64_t)(seed % 100000), width;
	struct window w;

	window_init(&w, l->window_ms);
	width = w.width_ms;
	for (int i = 0; i < STEPS; i++) {
		int64_t need = 1 + (int64_t)(random_of(&seed) % (uint64_t)(l->max / 3 + 1)), late;

		now += pause_ms(l, width, &seed);
		drop_older(log, &log->first, &log->sum, now - l->window_ms);
		late = drop_older(log, &log->first_late, &log->sum_late,
				  now - l->window_ms - width);
		if (!l->admit(l, now, need)) {
			if (late + need <= l->max)
				faults->held_back++;
			continue;
		}
		faults->admitted++;
		log->at_ms[log->count] = now;
		log->n[log->count++] = need;
		log->sum += need;
		log->sum_late += need;
		if (log->sum > l->max)
			faults->too_many++;
	}
	free(log);
}

static bool by_window(struct limiter *l, int64_t now_ms, int64_t need)
{
	if (window_room_at(&l->window, now_ms, l->max, need) != now_ms)
		return false;
	assert_true(window_used(&l->window, now_ms) + need <= l->max);
	window_add(&l->window, now_ms, need);
	return true;
}

/* Opened by the first message, emptied when it is over. */
static bool by_fixed_window(struct limiter *l, int64_t now_ms, int64_t need)
{
	if (now_ms - l->start_ms >= l->window_ms) {
		l->start_ms = now_ms;
		l->level = 0;
	}
	if (l->level + need > l->max)
		return false;
	l->level += need;
	return true;
}

/* Flows out evenly, max in a window; the level in ms of flow. */
static bool by_leaky_bucket(struct limiter *l, int64_t now_ms, int64_t need)
{
	int64_t each = l->window_ms / l->max;

	l->level -= now_ms - l->start_ms;
	l->start_ms = now_ms;
	if (l->level < 0)
		l->level = 0;
	if (l->level + need * each > l->window_ms)
		return false;
	l->level += need * each;
	return true;
}

static const int64_t lengths[] = {1000, 1441, MINUTE, 3600000, DAY, 7 * DAY};

static struct faults play_all(bool (*admit)(struct limiter *, int64_t, int64_t))
{
	struct faults faults = {0, 0, 0};

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		struct limiter l = {.admit = admit, .window_ms = lengths[i], .max = 50};

		window_init(&l.window, l.window_ms);
		play(&l, 88172645463325252ULL + i, &faults);
		window_clear(&l.window);
	}
	return faults;
}

static void test_promise(void **state)
{
	struct faults faults = play_all(by_window);

	(void)state;
	assert_int_equal(faults.too_many, 0);
	assert_int_equal(faults.held_back, 0);
	assert_true(faults.admitted > 100000);
}

/* The check above can fail: it finds what is wrong with the usual ways. */
static void test_check_finds_faults(void **state)
{
	(void)state;
	assert_true(play_all(by_fixed_window).too_many > 1000);
	assert_true(play_all(by_leaky_bucket).too_many > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_nothing_added),
		cmocka_unit_test(test_late_adds),
		cmocka_unit_test(test_room_at),
		cmocka_unit_test(test_future),
		cmocka_unit_test(test_promise),
		cmocka_unit_test(test_check_finds_faults),
	};

	return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
