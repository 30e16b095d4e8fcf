#include "base/loop.h"

#include "base/clock.h"
#include "base/xalloc.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { ROUND = 64 }; /* events taken from the kernel at once */

struct loop {
	int epoll;
	bool stop;
	int64_t now;
	struct loop_timer **heap; /* heap[1] is due first */
	size_t timers;
	size_t cap;
	struct epoll_event events[ROUND];
	int count; /* of events in this round */
};

struct loop *loop_new(void)
{
	struct loop *loop = xcalloc(1, sizeof(*loop));

	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		free(loop);
		return NULL;
	}
	loop->now = clock_boot_ms();
	return loop;
}

void loop_free(struct loop **loop)
{
	if (*loop == NULL)
		return;
	(void)close((*loop)->epoll);
	free((*loop)->heap);
	free(*loop);
	*loop = NULL;
}

void loop_stop(struct loop *loop)
{
	loop->stop = true;
}

int64_t loop_now(const struct loop *loop)
{
	return loop->now;
}

/* ---- descriptors ---- */

static uint32_t to_epoll(unsigned int want)
{
	return ((want & LOOP_READ) ? EPOLLIN : 0u) | ((want & LOOP_WRITE) ? EPOLLOUT : 0u);
}

int loop_add(struct loop *loop, struct loop_fd *watch)
{
	struct epoll_event ev = {.events = to_epoll(watch->want), .data.ptr = watch};

	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, watch->fd, &ev) < 0)
		return -1;
	watch->loop = loop;
	return 0;
}

void loop_want(struct loop_fd *watch, unsigned int want)
{
	struct epoll_event ev = {.events = to_epoll(want), .data.ptr = watch};

	if (watch->loop == NULL || watch->want == want)
		return;
	watch->want = want;
	(void)epoll_ctl(watch->loop->epoll, EPOLL_CTL_MOD, watch->fd, &ev);
}

void loop_del(struct loop_fd *watch)
{
	struct loop *loop = watch->loop;

	if (loop == NULL)
		return;
	(void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->loop = NULL;
	/* Its events that this round has not come to yet must not be told. */
	for (int i = 0; i < loop->count; i++)
		if (loop->events[i].data.ptr == watch)
			loop->events[i].data.ptr = NULL;
}

/* ---- timers ---- */

static void place(struct loop *loop, size_t i, struct loop_timer *timer)
{
	loop->heap[i] = timer;
	timer->place = i;
}

static void sift_up(struct loop *loop, size_t i, struct loop_timer *timer)
{
	for (; i > 1 && loop->heap[i / 2]->at_boot_ms > timer->at_boot_ms; i /= 2)
		place(loop, i, loop->heap[i / 2]);
	place(loop, i, timer);
}

static void sift_down(struct loop *loop, size_t i, struct loop_timer *timer)
{
	for (;;) {
		size_t child = 2 * i;

		if (child > loop->timers)
			break;
		if (child < loop->timers &&
		    loop->heap[child + 1]->at_boot_ms < loop->heap[child]->at_boot_ms)
			child++;
		if (loop->heap[child]->at_boot_ms >= timer->at_boot_ms)
			break;
		place(loop, i, loop->heap[child]);
		i = child;
	}
	place(loop, i, timer);
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
	size_t i = timer->place;
	struct loop_timer *last;

	if (i == 0)
		return;
	timer->place = 0;
	last = loop->heap[loop->timers--];
	if (last == timer)
		return;
	if (i > 1 && loop->heap[i / 2]->at_boot_ms > last->at_boot_ms)
		sift_up(loop, i, last);
	else
		sift_down(loop, i, last);
}

void loop_timer_at(struct loop *loop, struct loop_timer *timer, int64_t at_boot_ms)
{
	loop_timer_stop(loop, timer);
	timer->at_boot_ms = at_boot_ms;
	if (loop->timers + 2 > loop->cap) {
		loop->cap = loop->cap == 0 ? 64 : loop->cap * 2;
		loop->heap = xreallocarray(loop->heap, loop->cap, sizeof(*loop->heap));
	}
	loop->timers++;
	sift_up(loop, loop->timers, timer);
}

void loop_timer_in(struct loop *loop, struct loop_timer *timer, int64_t ms)
{
	loop_timer_at(loop, timer, clock_boot_ms() + (ms < 0 ? 0 : ms));
}

/* At most as many as were set: a timer that is due again at once lets descriptors in between. */
static void run_timers(struct loop *loop)
{
	size_t most = loop->timers;

	while (!loop->stop && most-- > 0 && loop->timers > 0 &&
	       loop->heap[1]->at_boot_ms <= loop->now) {
		struct loop_timer *timer = loop->heap[1];

		loop_timer_stop(loop, timer);
		timer->due(timer);
	}
}

static int wait_ms(const struct loop *loop)
{
	/* Waking now and then notices a machine that was suspended meanwhile. */
	const int64_t most = 30000;
	int64_t left;

	if (loop->timers == 0)
		return (int)most;
	left = loop->heap[1]->at_boot_ms - clock_boot_ms();
	return left < 0 ? 0 : (int)(left > most ? most : left);
}

int loop_run(struct loop *loop)
{
	loop->stop = false;
	while (!loop->stop) {
		loop->count = epoll_wait(loop->epoll, loop->events, ROUND, wait_ms(loop));
		if (loop->count < 0) {
			if (errno != EINTR)
				return -1;
			loop->count = 0;
		}
		loop->now = clock_boot_ms();
		for (int i = 0; i < loop->count && !loop->stop; i++) {
			struct loop_fd *watch = loop->events[i].data.ptr;
			uint32_t got = loop->events[i].events;
			unsigned int events = 0;

			if (watch == NULL)
				continue;
			if (got & EPOLLIN)
				events |= LOOP_READ;
			if (got & EPOLLOUT)
				events |= LOOP_WRITE;
			if (got & (EPOLLHUP | EPOLLERR))
				events |= LOOP_HANGUP;
			watch->ready(watch, events);
		}
		loop->count = 0;
		run_timers(loop);
	}
	return 0;
}
