/*
 * What a limit means: the pure decision. Given the limits that a message
 * meets, their use, what it needs and the time, says what happens. No clock,
 * no lock, no I/O: the milter, a replay of a log and "limits --what-if" call
 * the same function and get the same answer.
 */
#ifndef RELAY365_QUOTA_POLICY_H
#define RELAY365_QUOTA_POLICY_H

#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

#define QUOTA_LIMITS_MAX 64 /* limits that one message can meet */
#define QUOTA_KEY_MAX 320   /* bytes of a key: an address is at most 64 + 1 + 255 */
#define QUOTA_NAME_MAX 63   /* bytes of a limit's name */

enum quota_per {
	QUOTA_PER_MAILBOX,
	QUOTA_PER_TENANT,
	QUOTA_PER_SOURCE,
	QUOTA_PER_SENDER,
	QUOTA_PER_SENDER_DOMAIN,
	QUOTA_PER_EVERYONE
};
#define QUOTA_PER_COUNT (QUOTA_PER_EVERYONE + 1)

enum quota_count { QUOTA_MESSAGES, QUOTA_RECIPIENTS, QUOTA_EXTERNAL_RECIPIENTS, QUOTA_BYTES };

enum quota_action {
	QUOTA_REJECT, /* 550 5.7.1 */
	QUOTA_DEFER,  /* 451 4.7.1 */
	QUOTA_HOLD,   /* accept into quarantine */
	QUOTA_WAIT,   /* accept; submission waits, at most max_wait_ms, else then */
	QUOTA_WARN    /* accept and say so */
};

struct quota_limit {
	/* As in the configuration, or "recipients_per_day" for a built-in one; no "/". */
	char name[QUOTA_NAME_MAX + 1];
	/* Only for this mailbox or tenant (built-in limits); "" for each key. */
	char key[QUOTA_KEY_MAX + 1];
	enum quota_per per;
	enum quota_count count;
	int64_t max;
	int64_t window_ms;
	enum quota_action action;
	enum quota_action then; /* QUOTA_REJECT or QUOTA_DEFER, for QUOTA_WAIT */
	int64_t max_wait_ms;
	int reserve_percent; /* of max, that only priority messages may use */
	bool shadow;	     /* decide and tell, never refuse */
	/*
	 * Where overrides, exceptions and exempt recipients stand; NULL for a
	 * built-in limit. Must live as long as the limit is in force.
	 */
	const struct conf_limit *conf;
};

/* What is known of a message; NULL or "": that key is not there. Keys differ by more than case.
 */
struct quota_facts {
	const char *mailbox; /* its address: what Microsoft counts against */
	const char *tenant;
	const char *source;
	const char *sender;
	const char *sender_domain;
	const char *recipient; /* lower case; some limits don't count some recipients */
	bool priority;
	/* No recipient can be refused alone: what the message needs so far must fit as a whole.
	 */
	bool undivided;
	bool more; /* what counts for the whole message comes on top of what it has taken */
};

/*
 * What a recipient takes. messages and bytes are the whole message's: each
 * counter takes them with the first recipient only.
 */
struct quota_need {
	int64_t messages;
	int64_t recipients;
	int64_t external;
	int64_t bytes;
};

/* One limit that the message meets, and how full it is. */
struct policy_use {
	const struct quota_limit *limit;
	const char *key;
	int64_t cap;  /* policy_cap() for this message */
	int64_t used; /* reservations included, this message's own as well */
	int64_t mine; /* what this message has reserved of it already */
	int64_t need;
	unsigned int incident; /* passed on */
	/* Needed only where policy_exceeds(): when there is room (-1: never), and how much. */
	int64_t room_at_ms;
	int64_t room;
};

/* The verdict of the worst limit: never beats reject, defer, hold, wait, warn, and shadow. */
struct quota_verdict {
	bool exceeded; /* else all below is unset */
	bool refused;  /* reject or defer, and not in shadow */
	bool never;    /* it can't fit even into an empty window */
	bool shadowed; /* action would have been done, but for shadow */
	bool crowded;  /* refused because too many keys are being counted */
	enum quota_action action;
	char limit[QUOTA_NAME_MAX + 1];
	char key[QUOTA_KEY_MAX + 1];
	enum quota_per per;
	enum quota_count count;
	int64_t window_ms;
	int64_t used; /* before this need, other messages' reservations included */
	int64_t max;
	int64_t cap; /* what of max this message may use: less without priority */
	int64_t need;
	int64_t room_at_ms; /* as given; quota.h fills in the wall time */
	int64_t room_at_wall_ms;
	int64_t room;	       /* how much there will be then */
	unsigned int incident; /* that the limit is in, for this key; 0: none */
};

/* What the facts say of such a key, as given there; NULL: nothing, limits per it aren't met. */
const char *policy_key(enum quota_per per, const struct quota_facts *facts);

/* Whether a limit for every key leaves this one alone. */
bool policy_excepts(const struct quota_limit *limit, const char *folded_key);

/* What of a need the limit counts; nothing of an exempt recipient. */
int64_t policy_need(const struct quota_limit *limit, const struct quota_facts *facts,
		    const struct quota_need *need);

/* What of max a message may use: all, or what is not kept for priority messages. */
int64_t policy_cap(const struct quota_limit *limit, bool priority);

static inline bool policy_exceeds(const struct policy_use *use)
{
	return use->need > use->cap || use->used > use->cap - use->need;
}

/* Decides. Times are on one scale, whichever; verdict_r's room_at_wall_ms stays 0. */
void policy_decide(const struct policy_use *uses, size_t count, const struct quota_facts *facts,
		   int64_t now_ms, struct quota_verdict *verdict_r);

/* "reject", "recipients", "sender-domain", ... as in the configuration. */
const char *policy_action_name(enum quota_action action);
const char *policy_count_name(enum quota_count count);
const char *policy_per_name(enum quota_per per);

#endif
