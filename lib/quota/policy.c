#include "quota/policy.h"

static const char *const action_names[] = {"reject", "defer", "hold", "wait", "warn"};
static const char *const count_names[] = {"messages", "recipients", "external-recipients",
					  "bytes"};
static const char *const per_names[] = {"mailbox", "tenant",	    "source",
					"sender",  "sender-domain", "everyone"};

const char *policy_action_name(enum quota_action action)
{
	return action_names[action];
}

const char *policy_count_name(enum quota_count count)
{
	return count_names[count];
}

const char *policy_per_name(enum quota_per per)
{
	return per_names[per];
}

const char *policy_key(enum quota_per per, const struct quota_facts *facts)
{
	const char *key = NULL;

	switch (per) {
	case QUOTA_PER_MAILBOX:
		key = facts->mailbox;
		break;
	case QUOTA_PER_TENANT:
		key = facts->tenant;
		break;
	case QUOTA_PER_SOURCE:
		key = facts->source;
		break;
	case QUOTA_PER_SENDER:
		key = facts->sender;
		break;
	case QUOTA_PER_SENDER_DOMAIN:
		key = facts->sender_domain;
		break;
	case QUOTA_PER_EVERYONE:
		return "*";
	}
	return key == NULL || key[0] == '\0' ? NULL : key;
}

bool policy_excepts(const struct quota_limit *limit, const char *folded_key)
{
	const struct conf_limit *conf = limit->conf;

	if (conf == NULL)
		return false;
	for (size_t i = 0; i < conf->except.count; i++)
		if (strcmp(conf->except.item[i], folded_key) == 0)
			return true;
	return false;
}

static bool is_exempt(const struct quota_limit *limit, const char *recipient)
{
	const struct conf_limit *conf = limit->conf;

	if (conf == NULL || recipient == NULL)
		return false;
	for (size_t i = 0; i < conf->exempt_recipients.count; i++)
		if (conf_pattern_matches(conf->exempt_recipients.item[i], recipient))
			return true;
	return false;
}

int64_t policy_need(const struct quota_limit *limit, const struct quota_facts *facts,
		    const struct quota_need *need)
{
	if (is_exempt(limit, facts->recipient))
		return 0;
	switch (limit->count) {
	case QUOTA_MESSAGES:
		return need->messages;
	case QUOTA_RECIPIENTS:
		return need->recipients;
	case QUOTA_EXTERNAL_RECIPIENTS:
		return need->external;
	case QUOTA_BYTES:
		return need->bytes;
	}
	return 0;
}

int64_t policy_cap(const struct quota_limit *limit, bool priority)
{
	int64_t percent = limit->reserve_percent;

	if (priority || percent <= 0)
		return limit->max;
	return limit->max - (limit->max / 100 * percent + limit->max % 100 * percent / 100);
}

/* How bad it is; what refuses starts at WORST_ACCEPTED + 1. */
enum { NOTHING, SHADOWED, WARN, WAIT, HOLD, WORST_ACCEPTED = HOLD, DEFER, REJECT, NEVER };

static int rank_of(enum quota_action action)
{
	static const int ranks[] = {REJECT, DEFER, HOLD, WAIT, WARN};

	return ranks[action];
}

/* What one limit that is exceeded wants; *never_r: whether it could ever fit. */
static enum quota_action wanted(const struct policy_use *use, const struct quota_facts *facts,
				int64_t now_ms, bool *never_r)
{
	const struct quota_limit *limit = use->limit;

	*never_r = use->need > use->cap || (facts->undivided && use->mine > use->cap - use->need);
	if (limit->action == QUOTA_HOLD || limit->action == QUOTA_WARN)
		return limit->action;
	if (*never_r)
		return QUOTA_REJECT;
	if (limit->action != QUOTA_WAIT)
		return limit->action;
	if (use->room_at_ms >= 0 && use->room_at_ms - now_ms <= limit->max_wait_ms)
		return QUOTA_WAIT;
	return limit->then;
}

static void fill(const struct policy_use *use, enum quota_action action, bool never,
		 struct quota_verdict *verdict)
{
	const struct quota_limit *limit = use->limit;

	verdict->exceeded = true;
	verdict->shadowed = limit->shadow;
	verdict->refused = !limit->shadow && rank_of(action) > WORST_ACCEPTED;
	verdict->never = never;
	verdict->action = action;
	(void)snprintf(verdict->limit, sizeof(verdict->limit), "%s", limit->name);
	(void)snprintf(verdict->key, sizeof(verdict->key), "%s", use->key);
	verdict->per = limit->per;
	verdict->count = limit->count;
	verdict->window_ms = limit->window_ms;
	verdict->used = use->used;
	verdict->max = limit->max;
	verdict->cap = use->cap;
	verdict->need = use->need;
	verdict->room_at_ms = use->room_at_ms;
	verdict->room = use->room;
	verdict->incident = use->incident;
}

void policy_decide(const struct policy_use *uses, size_t count, const struct quota_facts *facts,
		   int64_t now_ms, struct quota_verdict *verdict_r)
{
	int worst = NOTHING;

	/* The strings only as far as anybody looks at them: this runs for every recipient. */
	verdict_r->exceeded = verdict_r->refused = false;
	for (size_t i = 0; i < count; i++) {
		enum quota_action action;
		bool never;
		int rank;

		if (!policy_exceeds(&uses[i]))
			continue;
		action = wanted(&uses[i], facts, now_ms, &never);
		rank = rank_of(action);
		if (uses[i].limit->shadow)
			rank = SHADOWED;
		else if (rank == REJECT && never)
			rank = NEVER;
		if (rank <= worst)
			continue;
		if (worst == NOTHING)
			memset(verdict_r, 0, sizeof(*verdict_r));
		worst = rank;
		fill(&uses[i], action, never, verdict_r);
	}
}
