/*
 * An event loop for one thread: descriptors (epoll) and timers (a heap, on the
 * boot clock, so that a suspended machine's timers are due at once). Callbacks
 * may add, change and remove anything, themselves included.
 */
#ifndef RELAY365_BASE_LOOP_H
#define RELAY365_BASE_LOOP_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

#define LOOP_READ 1u
#define LOOP_WRITE 2u
#define LOOP_HANGUP 4u /* told, never asked for */

struct loop;

/* One watched descriptor; embedded in its owner, who keeps it alive until loop_del(). */
struct loop_fd {
	int fd;
	unsigned int want; /* LOOP_READ | LOOP_WRITE */
	void (*ready)(struct loop_fd *watch, unsigned int events);
	void *owner;
	struct loop *loop; /* NULL: not watched */
};

/* One timer; embedded likewise. Zeroed is unset. */
struct loop_timer {
	int64_t at_boot_ms;
	size_t place; /* in the heap, 1-based; 0: not set */
	void (*due)(struct loop_timer *timer);
	void *owner;
};

struct loop *loop_new(void);
void loop_free(struct loop **loop);

/* Runs until loop_stop(). Returns 0, or -1 when the kernel refuses to wait. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

int loop_add(struct loop *loop, struct loop_fd *watch);
void loop_want(struct loop_fd *watch, unsigned int want);
void loop_del(struct loop_fd *watch);

/* Sets or moves a timer; at most once it calls due(). */
void loop_timer_at(struct loop *loop, struct loop_timer *timer, int64_t at_boot_ms);
void loop_timer_in(struct loop *loop, struct loop_timer *timer, int64_t ms);
void loop_timer_stop(struct loop *loop, struct loop_timer *timer);

/* The boot clock as read after the last wait: cheap, and the same for a whole round. */
int64_t loop_now(const struct loop *loop);

#endif
