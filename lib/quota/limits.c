#include "quota/limits.h"

#include "base/xalloc.h"

static enum quota_action action_of(int64_t when_full)
{
	static const enum quota_action actions[] = {
		[FULL_REJECT] = QUOTA_REJECT, [FULL_DEFER] = QUOTA_DEFER,
		[FULL_HOLD] = QUOTA_HOLD,     [FULL_WAIT] = QUOTA_WAIT,
		[FULL_WARN] = QUOTA_WARN,
	};

	return actions[when_full];
}

static void day_limit(const struct conf *conf, const struct conf_mailbox *mailbox,
		      struct quota_limit *limit)
{
	(void)snprintf(limit->name, sizeof(limit->name), "%s", LIMITS_DAY);
	(void)snprintf(limit->key, sizeof(limit->key), "%s", mailbox->address);
	limit->per = QUOTA_PER_MAILBOX;
	limit->count = QUOTA_RECIPIENTS;
	limit->max = mailbox->recipients_per_day;
	limit->window_ms = LIMITS_DAY_MS;
	limit->action = action_of(mailbox->when_full);
	limit->then = action_of(mailbox->then);
	limit->max_wait_ms = mailbox->max_wait_ms;
	limit->reserve_percent = (int)mailbox->reserve_for_priority;
	limit->shadow = conf->shadow;
}

/* Exchange Online counts a tenant's external recipients too, whatever the mailbox. */
static void external_limit(const struct conf *conf, const struct conf_tenant *tenant,
			   struct quota_limit *limit)
{
	(void)snprintf(limit->name, sizeof(limit->name), "%s", LIMITS_EXTERNAL);
	(void)snprintf(limit->key, sizeof(limit->key), "%s", tenant->name);
	limit->per = QUOTA_PER_TENANT;
	limit->count = QUOTA_EXTERNAL_RECIPIENTS;
	limit->max = tenant->external_recipients_per_day;
	limit->window_ms = LIMITS_DAY_MS;
	limit->action = QUOTA_DEFER;
	limit->shadow = conf->shadow;
}

static void own_limit(const struct conf *conf, const struct conf_limit *from,
		      struct quota_limit *limit)
{
	static const enum quota_per per[] = {
		[PER_MAILBOX] = QUOTA_PER_MAILBOX,
		[PER_TENANT] = QUOTA_PER_TENANT,
		[PER_SOURCE] = QUOTA_PER_SOURCE,
		[PER_SENDER] = QUOTA_PER_SENDER,
		[PER_SENDER_DOMAIN] = QUOTA_PER_SENDER_DOMAIN,
		[PER_EVERYONE] = QUOTA_PER_EVERYONE,
	};
	static const enum quota_count count[] = {
		[COUNT_MESSAGES] = QUOTA_MESSAGES,
		[COUNT_RECIPIENTS] = QUOTA_RECIPIENTS,
		[COUNT_EXTERNAL_RECIPIENTS] = QUOTA_EXTERNAL_RECIPIENTS,
		[COUNT_BYTES] = QUOTA_BYTES,
	};

	static const enum quota_action action[] = {
		[ACTION_REJECT] = QUOTA_REJECT,
		[ACTION_DEFER] = QUOTA_DEFER,
		[ACTION_HOLD] = QUOTA_HOLD,
		[ACTION_WARN] = QUOTA_WARN,
	};

	(void)snprintf(limit->name, sizeof(limit->name), "%s", from->name);
	limit->per = per[from->per];
	limit->count = count[from->count];
	limit->max = from->max;
	limit->window_ms = from->window_ms;
	limit->action = action[from->action];
	limit->shadow = conf->shadow || from->shadow;
	limit->conf = from;
}

/* The limit for every key, and one for each key with a maximum of its own. */
static size_t own_limits(const struct conf *conf, const struct conf_limit *from,
			 struct quota_limit *limits)
{
	own_limit(conf, from, &limits[0]);
	for (size_t i = 0; i < from->overrides.count; i++) {
		struct quota_limit *limit = &limits[1 + i];

		own_limit(conf, from, limit);
		(void)snprintf(limit->key, sizeof(limit->key), "%s", from->override[i].key);
		limit->max = from->override[i].max;
	}
	return 1 + from->overrides.count;
}

struct quota_limit *limits_from_conf(const struct conf *conf, size_t *count_r)
{
	size_t most = conf->mailboxes + conf->tenants, n = 0;
	struct quota_limit *limits;

	for (size_t i = 0; i < conf->limits; i++)
		most += 1 + conf->limit[i].overrides.count;
	limits = xcalloc(most, sizeof(*limits));
	for (size_t i = 0; i < conf->mailboxes; i++)
		day_limit(conf, &conf->mailbox[i], &limits[n++]);
	for (size_t i = 0; i < conf->tenants; i++)
		if (conf->tenant[i].external_recipients_per_day > 0)
			external_limit(conf, &conf->tenant[i], &limits[n++]);
	for (size_t i = 0; i < conf->limits; i++)
		n += own_limits(conf, &conf->limit[i], &limits[n]);
	*count_r = n;
	return limits;
}

bool limits_count_bytes(const struct conf *conf)
{
	for (size_t i = 0; i < conf->limits; i++)
		if (conf->limit[i].count == COUNT_BYTES)
			return true;
	return false;
}
