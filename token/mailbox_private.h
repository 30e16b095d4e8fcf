/* What mailbox.c and mailbox_status.c share. */
#ifndef RELAY365_TOKEN_MAILBOX_PRIVATE_H
#define RELAY365_TOKEN_MAILBOX_PRIVATE_H

#include "token/mailbox.h"

struct mailbox {
	struct loop *loop;
	const struct conf_mailbox *conf; /* NULL: gone */
	struct identity *identity;
	struct delivered_mailbox *delivered;
	struct lease_book *book;
	struct locks *locks;
	char name[CONF_NAME_MAX + 1];
	char *address;

	struct lease *first, *last; /* waiting for a slot, in order of arrival */
	unsigned int waiting;
	unsigned int open;	    /* slots */
	int64_t reserved;	    /* recipients that the open leases may deliver */
	int64_t next_grant_boot_ms; /* the pace */
	struct loop_timer timer;    /* looks at the queue again */
	bool pumping;

	struct slot *slots;	      /* that are taken, also by leases of an earlier tokend */
	struct loop_timer left_timer; /* looks whether those are over */

	/* The circuit stands here: after a quota reply of Microsoft's, one try after a while. */
	struct memo_page *memo;

	char problem[512]; /* why the last lease was refused, "" after a granted one */
	char trouble[512]; /* what Microsoft refuses until something changes; "" after a success
			    */
	char last_reply[256];
	int64_t last_reply_wall_ms;
	unsigned long granted, refused, accepted, deferred, bounced;

	/* What was told of how full the day is: 80 or 95 percent, and the incident's number. */
	int use_percent;
	uint16_t use_incident;
};

#define MAILBOX_INCIDENT_MAX 5 /* bytes of its number as text, with the NUL */

/* "a1f3" into out; NULL: there is no incident. */
const char *mailbox_incident(const struct mailbox *mailbox, char out[MAILBOX_INCIDENT_MAX]);

/*
 * Whether something that lasts forbids to send to so many recipients; then
 * reason and time are filled in.
 */
bool mailbox_is_shut(struct mailbox *mailbox, int64_t need, bool priority, char *reason,
		     size_t cap, int64_t *retry_ms_r);

/* Whether a status says that a message was delivered; an address probe sends none. */
bool mailbox_is_delivery(const char *status);

/* Looks at the queue again: something has changed. */
void mailbox_pump(struct mailbox *mailbox);

/* Takes a slot. *holder is NULL again when the slot is free, whoever ended the lease. */
void mailbox_open_slot(struct mailbox *mailbox, const struct lease_entry *entry,
		       struct slot **holder);
void mailbox_close_slot(struct mailbox *mailbox, struct slot *slot);

/* Before the end; nothing is struck out, as who holds a lease goes on sending. */
void mailbox_forget_slots(struct mailbox *mailbox);

/*
 * Ends the leases of an earlier tokend that are over, and that of a process
 * which asks for a new one: if it never holds two, its session is over.
 */
void mailbox_end_left(struct mailbox *mailbox, pid_t pid);

/* left_timer is due. */
void mailbox_look_at_left(struct loop_timer *timer);

/* Milliseconds until the circuit lets the next try through; 0: now. */
int64_t mailbox_circuit_left_ms(const struct mailbox *mailbox);

#endif
