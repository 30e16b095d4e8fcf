/*
 * How many token requests are in flight: at most GATE_MOST, so that a thousand
 * identities don't open a thousand connections, and at most GATE_TENANT of one
 * tenant. Who has waited longest goes first. A request that takes longer than
 * GATE_SLOW_MS no longer counts among all, only among its tenant's: an endpoint
 * that never answers holds up nobody else.
 */
#ifndef RELAY365_TOKEN_GATE_H
#define RELAY365_TOKEN_GATE_H

#include "base/loop.h"

#define GATE_MOST 20
#define GATE_TENANT 8
#define GATE_SLOW_MS 2000

struct gate;

/* One that wants through; embedded in its owner and zeroed at first. */
struct gate_ticket {
	void (*go)(struct gate_ticket *ticket); /* it may start now */
	const char *tenant;			/* its name; must outlive the ticket's use */
	/* private */
	enum { TICKET_NONE, TICKET_WAITS, TICKET_IN } state;
	int64_t since_boot_ms;
	bool slow;
	struct gate_ticket *next, *prev;
};

struct gate *gate_new(struct loop *loop);
void gate_free(struct gate **gate); /* no ticket may be in use */

/* Calls go(), from here when there is room, else later. Nothing when it waits or is in. */
void gate_enter(struct gate *gate, struct gate_ticket *ticket);

/* Done, or not wanted any more. Nothing when it is neither waiting nor in. */
void gate_leave(struct gate *gate, struct gate_ticket *ticket);

#endif
