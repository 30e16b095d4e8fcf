#include "token/gate.h"

#include "base/clock.h"
#include "base/xalloc.h"

struct list {
	struct gate_ticket *first, *last;
};

struct gate {
	struct loop *loop;
	struct loop_timer timer;
	struct list waiting, in; /* in order of arrival */
	unsigned int counted;	 /* in, and not slow */
	bool pumping;
};

static void append(struct list *list, struct gate_ticket *ticket)
{
	ticket->next = NULL;
	ticket->prev = list->last;
	if (list->last != NULL)
		list->last->next = ticket;
	else
		list->first = ticket;
	list->last = ticket;
}

static void take_out(struct list *list, struct gate_ticket *ticket)
{
	if (ticket->prev != NULL)
		ticket->prev->next = ticket->next;
	else
		list->first = ticket->next;
	if (ticket->next != NULL)
		ticket->next->prev = ticket->prev;
	else
		list->last = ticket->prev;
	ticket->next = ticket->prev = NULL;
}

static unsigned int of_tenant(const struct gate *gate, const char *tenant)
{
	unsigned int n = 0;

	for (const struct gate_ticket *t = gate->in.first; t != NULL; t = t->next)
		n += strcmp(t->tenant, tenant) == 0;
	return n;
}

/* Those that have become slow; sets the timer for the next that will. */
static void find_slow(struct gate *gate)
{
	int64_t now_ms = clock_boot_ms(), next_ms = -1;

	for (struct gate_ticket *t = gate->in.first; t != NULL; t = t->next) {
		int64_t left = t->since_boot_ms + GATE_SLOW_MS - now_ms;

		if (t->slow)
			continue;
		if (left <= 0) {
			t->slow = true;
			gate->counted--;
		} else if (next_ms < 0 || left < next_ms) {
			next_ms = left;
		}
	}
	if (next_ms >= 0)
		loop_timer_in(gate->loop, &gate->timer, next_ms);
	else
		loop_timer_stop(gate->loop, &gate->timer);
}

static struct gate_ticket *next_to_go(const struct gate *gate)
{
	if (gate->counted >= GATE_MOST)
		return NULL;
	for (struct gate_ticket *t = gate->waiting.first; t != NULL; t = t->next)
		if (of_tenant(gate, t->tenant) < GATE_TENANT)
			return t;
	return NULL;
}

static void pump(struct gate *gate)
{
	struct gate_ticket *ticket;

	if (gate->pumping)
		return; /* the call further up goes on */
	gate->pumping = true;
	while ((ticket = next_to_go(gate)) != NULL) {
		take_out(&gate->waiting, ticket);
		append(&gate->in, ticket);
		ticket->state = TICKET_IN;
		ticket->slow = false;
		ticket->since_boot_ms = clock_boot_ms();
		gate->counted++;
		ticket->go(ticket);
	}
	gate->pumping = false;
	find_slow(gate);
}

static void on_timer(struct loop_timer *timer)
{
	struct gate *gate = timer->owner;

	find_slow(gate);
	pump(gate);
}

void gate_enter(struct gate *gate, struct gate_ticket *ticket)
{
	if (ticket->state != TICKET_NONE)
		return;
	ticket->state = TICKET_WAITS;
	append(&gate->waiting, ticket);
	pump(gate);
}

void gate_leave(struct gate *gate, struct gate_ticket *ticket)
{
	if (ticket->state == TICKET_NONE)
		return;
	if (ticket->state == TICKET_IN && !ticket->slow)
		gate->counted--;
	take_out(ticket->state == TICKET_IN ? &gate->in : &gate->waiting, ticket);
	ticket->state = TICKET_NONE;
	pump(gate);
}

struct gate *gate_new(struct loop *loop)
{
	struct gate *gate = xcalloc(1, sizeof(*gate));

	gate->loop = loop;
	gate->timer.due = on_timer;
	gate->timer.owner = gate;
	return gate;
}

void gate_free(struct gate **gate)
{
	if (*gate == NULL)
		return;
	loop_timer_stop((*gate)->loop, &(*gate)->timer);
	free(*gate);
	*gate = NULL;
}
