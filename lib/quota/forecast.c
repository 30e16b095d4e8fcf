#include "quota/forecast.h"

enum { PARTS = 24, STEPS = 240 };

/* What was counted in the last 24th of the window, not counting what waits. */
static int64_t lately(const struct window *window, int64_t now_ms)
{
	int64_t since_ms = now_ms - window->window_ms / PARTS, sum = 0;

	for (size_t i = window->count; i > 0; i--) {
		int64_t n, at_ms = window_bucket(window, i - 1, &n);

		if (at_ms <= since_ms)
			break;
		if (at_ms <= now_ms + window->width_ms)
			sum += n;
	}
	return sum;
}

int64_t forecast_full_at(struct window *window, int64_t now_ms, int64_t max)
{
	int64_t left = window_used(window, now_ms);
	size_t gone = 0;
	double pace;

	if (left >= max)
		return now_ms;
	pace = (double)lately(window, now_ms) / ((double)window->window_ms / PARTS);
	for (int step = 1; step <= STEPS; step++) {
		int64_t later_ms = window->window_ms * step / STEPS;
		int64_t n, at_ms;

		/* What has fallen out of the window until then. */
		for (; gone < window->count; gone++) {
			at_ms = window_bucket(window, gone, &n);
			if (at_ms + window->window_ms >= now_ms + later_ms)
				break;
			left -= n;
		}
		if ((double)left + pace * (double)later_ms >= (double)max)
			return now_ms + later_ms;
	}
	return -1;
}
