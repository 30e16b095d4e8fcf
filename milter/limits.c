#include "milter/limits.h"

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
	limit->shadow = conf->shadow;
}

struct quota_limit *limits_from_conf(const struct conf *conf, size_t *count_r)
{
	struct quota_limit *limits = xcalloc(conf->mailboxes, sizeof(*limits));

	for (size_t i = 0; i < conf->mailboxes; i++)
		day_limit(conf, &conf->mailbox[i], &limits[i]);
	*count_r = conf->mailboxes;
	return limits;
}
