/*
 * The promise of a limit, held by the whole engine: in no window of its length,
 * wherever it starts, is more admitted than the maximum, and nothing is refused
 * that would have fitted one bucket earlier. Played against an exact log of what
 * was admitted, in schedules of somebody who wants more than the limit, while
 * the wall clock is set, the program is restarted, killed, and the machine is
 * down. The same schedules find fixed windows and leaky buckets out.
 *
 * RELAY365_SCHEDULES says how many; make check is content with fewer.
 */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test_quota_kit.h"

#include "base/clock.h"
#include "base/log.h"
#include "quota/window.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "temp.h"

enum {
	SCHEDULES = 20000,
	ATTEMPTS = 14, /* of one schedule */
	EPOCH = 100,   /* schedules with the same limit */
	BOOT_ID_MAX = 40
};

static int64_t true_ms;	   /* what has really passed */
static int64_t wall_error; /* the wall clock's */
static int boots;

void __wrap_clock_boot_id(char out[BOOT_ID_MAX]);

void __wrap_clock_boot_id(char out[BOOT_ID_MAX])
{
	(void)snprintf(out, BOOT_ID_MAX, "boot-%d", boots);
}

static void pass(int64_t ms)
{
	true_ms += ms;
	kit_boot_ms += ms;
	kit_wall_ms = T0 + true_ms + wall_error;
}

static uint64_t seed;

static int64_t below(int64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (int64_t)(seed % (uint64_t)n);
}

/* ---- what is tried: the engine, and two that are wrong ---- */

struct limiter {
	bool (*admit)(struct limiter *limiter, int64_t need);
	void (*trouble)(struct limiter *limiter); /* NULL: it has none */
	int64_t window_ms, max;
	long number;  /* of the schedule: its source */
	bool delayed; /* a machine that was down may hold back more than a bucket */
	/* the engine's */
	struct quota *quota;
	struct quota_limit limit;
	int folder;
	/* the wrong ones' */
	int64_t start_ms, level;
};

static const char *ledger_path(int folder)
{
	return temp_path(folder == 0 ? "a" : "b");
}

static void open_engine(struct limiter *l)
{
	struct err err = ERR_INIT;
	char path[512];

	(void)snprintf(path, sizeof(path), "%s", ledger_path(l->folder));
	l->quota = quota_open(path, &l->limit, 1, &err);
	if (l->quota == NULL)
		fail_msg("%s", err.text);
}

static bool by_engine(struct limiter *l, int64_t need)
{
	struct quota_message *m = quota_message_new(l->quota);
	struct quota_facts facts = kit_relay;
	struct quota_verdict verdict;
	struct err err = ERR_INIT;
	char source[32];
	bool taken;

	(void)snprintf(source, sizeof(source), "s%ld", l->number);
	facts.source = source;
	if (below(8) == 0 && kit_reserve(m, &facts, 1 + below(l->max), &verdict))
		quota_release(m); /* somebody who hangs up */
	taken = kit_reserve(m, &facts, need, &verdict);
	if (taken)
		assert_int_equal(quota_charge(m, false, NULL, &err), 0);
	quota_message_free(&m);
	if (below(2000) == 0)
		quota_tick(l->quota);
	return taken;
}

static void copy_file(const char *from, const char *to)
{
	static char data[1 << 16];
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	ssize_t n;

	(void)unlink(to);
	if (in < 0)
		return;
	out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(out >= 0);
	while ((n = read(in, data, sizeof(data))) > 0)
		assert_int_equal(write(out, data, (size_t)n), n);
	(void)close(in);
	(void)close(out);
}

/* As kill -9 would leave it: a copy of the files as they are is where it goes on. */
static void crash(struct limiter *l)
{
	static const char *const parts[] = {"", "-wal", ".recent-0", ".recent-1"};

	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		char from[512], to[512];

		(void)snprintf(from, sizeof(from), "%s%s", ledger_path(l->folder), parts[i]);
		(void)snprintf(to, sizeof(to), "%s%s", ledger_path(!l->folder), parts[i]);
		copy_file(from, to);
	}
	quota_close(&l->quota);
	l->folder = !l->folder;
	open_engine(l);
}

/* The machine is down for a while. */
static void reboot(struct limiter *l)
{
	int64_t down_ms = MINUTE + (below(2) == 0 ? below(8 * MINUTE) : below(3 * DAY));

	quota_close(&l->quota);
	pass(down_ms);
	kit_boot_ms = 1 + below(MINUTE);
	boots++;
	open_engine(l);
	l->delayed = true;
}

static void trouble(struct limiter *l)
{
	int64_t what = below(10000);

	if (what < 1000) {
		wall_error = below(4 * DAY) - 2 * DAY;
		pass(0);
	} else if (what < 1002) {
		quota_close(&l->quota);
		pass(below(MINUTE));
		open_engine(l);
	} else if (what < 1005) {
		crash(l);
	} else if (what < 1006) {
		reboot(l);
	}
}

/* Opened by the first message, emptied when it is over. */
static bool by_fixed_window(struct limiter *l, int64_t need)
{
	if (true_ms - l->start_ms >= l->window_ms) {
		l->start_ms = true_ms;
		l->level = 0;
	}
	if (l->level + need > l->max)
		return false;
	l->level += need;
	return true;
}

/* Flows out evenly, max in a window; the level in ms of flow. */
static bool by_leaky_bucket(struct limiter *l, int64_t need)
{
	int64_t each = l->window_ms / l->max;

	l->level -= true_ms - l->start_ms;
	l->start_ms = true_ms;
	if (l->level < 0)
		l->level = 0;
	if (l->level + need * each > l->window_ms)
		return false;
	l->level += need * each;
	return true;
}

/* ---- the schedules ---- */

struct log {
	int64_t at_ms[ATTEMPTS], n[ATTEMPTS];
	int count;
};

struct faults {
	long too_many;	/* some window of the length held more than max */
	long held_back; /* refused, though it would have fitted one bucket ago */
	long admitted, refused;
};

static int64_t sum_since(const struct log *log, int64_t after_ms)
{
	int64_t sum = 0;

	for (int i = log->count - 1; i >= 0 && log->at_ms[i] > after_ms; i--)
		sum += log->n[i];
	return sum;
}

static int64_t pause_ms(const struct limiter *l, const struct log *log, int64_t width)
{
	int64_t w = l->window_ms;
	int64_t first = log->count == 0 ? 0 : log->at_ms[0] + w - true_ms;

	switch (below(8)) {
	case 0: /* about when the first one leaves the window */
		return first + 2 * width <= 0 ? 1 : below(first + 2 * width + 1);
	case 1:
		return first <= 0 ? width : first;
	case 2:
		return first <= 1 ? width - 1 : first - 1;
	case 3:
		return below(w + 2 * width);
	case 4:
		return w / 2;
	case 5:
		return below(width + 2);
	default:
		return 0;
	}
}

static void play(struct limiter *l, struct faults *faults)
{
	struct log log = {.count = 0};
	struct window window;

	window_init(&window, l->window_ms);
	l->start_ms = true_ms - l->window_ms;
	l->level = 0;
	l->delayed = false;
	for (int i = 0; i < ATTEMPTS; i++) {
		int64_t need = below(3) == 0 ? l->max : 1 + below(l->max / 2 + 1), late;

		pass(pause_ms(l, &log, window.width_ms));
		if (l->trouble != NULL)
			l->trouble(l);
		late = sum_since(&log, true_ms - l->window_ms - window.width_ms);
		if (!l->admit(l, need)) {
			faults->refused++;
			if (late + need <= l->max && !l->delayed)
				faults->held_back++;
			continue;
		}
		faults->admitted++;
		log.at_ms[log.count] = true_ms;
		log.n[log.count++] = need;
		if (sum_since(&log, true_ms - l->window_ms) > l->max)
			faults->too_many++;
	}
}

static long schedules(void)
{
	const char *given = getenv("RELAY365_SCHEDULES");

	return given == NULL ? SCHEDULES : strtol(given, NULL, 10);
}

static void choose_limit(struct limiter *l)
{
	static const int64_t lengths[] = {1000, 1441, MINUTE,  10 * MINUTE,
					  HOUR, DAY,  7 * DAY, 31 * DAY};
	static const int64_t most[] = {1, 2, 10, 30, 500, 10000};

	l->window_ms = lengths[below((int64_t)ARRAY_LEN(lengths))];
	l->max = most[below((int64_t)ARRAY_LEN(most))];
	l->limit = kit_source_limit(QUOTA_RECIPIENTS, l->max);
	l->limit.window_ms = l->window_ms;
}

static struct faults play_all(struct limiter *l, long count)
{
	struct faults faults = {0, 0, 0, 0};

	seed = 88172645463325252;
	for (l->number = 0; l->number < count; l->number++) {
		if (l->number % EPOCH == 0) {
			choose_limit(l);
			if (l->quota != NULL) {
				quota_set_limits(l->quota, &l->limit, 1);
				(void)quota_sweep(l->quota, FORGOTTEN);
			}
		}
		play(l, &faults);
	}
	return faults;
}

static void hide_log(bool hide)
{
	static int shown = -1;
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (shown < 0)
		shown = dup(STDERR_FILENO);
	assert_true(null >= 0 && shown >= 0);
	assert_true(dup2(hide ? null : shown, STDERR_FILENO) >= 0);
	(void)close(null);
}

static void test_promise(void **state)
{
	struct limiter l = {.admit = by_engine, .trouble = trouble};
	struct faults faults;

	(void)state;
	hide_log(true); /* thousands of clock steps are told there */
	seed = 1;
	choose_limit(&l);
	open_engine(&l);
	faults = play_all(&l, schedules());
	quota_close(&l.quota);
	hide_log(false);
	print_message("%ld schedules, %ld admitted, %ld refused, %ld too many, %ld held back\n",
		      schedules(), faults.admitted, faults.refused, faults.too_many,
		      faults.held_back);
	assert_int_equal(faults.too_many, 0);
	assert_int_equal(faults.held_back, 0);
	assert_true(faults.admitted > schedules());
	assert_true(faults.refused > schedules());
}

/* The check above can fail: it finds what is wrong with the usual ways. */
static void test_check_finds_faults(void **state)
{
	struct limiter fixed = {.admit = by_fixed_window}, leaky = {.admit = by_leaky_bucket};

	(void)state;
	assert_true(play_all(&fixed, SCHEDULES).too_many > SCHEDULES / 20);
	assert_true(play_all(&leaky, SCHEDULES).too_many > SCHEDULES / 20);
}

static int enter(void **state)
{
	true_ms = wall_error = 0;
	return kit_enter(state);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_promise), TEST(test_check_finds_faults)};

	return cmocka_run_group_tests_name("promise", tests, NULL, NULL);
}
