#include "token/mailbox_private.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "quota/quota.h"

#include <sys/random.h>

static int percent_of(int64_t used, int64_t max)
{
	if (used * 100 >= max * QUOTA_FULLER_PERCENT)
		return QUOTA_FULLER_PERCENT;
	return used * 100 >= max * QUOTA_FULL_PERCENT ? QUOTA_FULL_PERCENT : 0;
}

static void log_use(const struct mailbox *mailbox, enum log_event event, int64_t used)
{
	char number[MAILBOX_INCIDENT_MAX];
	struct log_line line;

	log_begin(&line, event, NULL);
	log_str(&line, "limit", "recipients_per_day");
	log_str(&line, "key", mailbox->address);
	if (event == EV_LIMIT_HIGH)
		log_int(&line, "percent", mailbox->use_percent);
	log_ratio(&line, "used", used, mailbox->conf->recipients_per_day);
	log_str(&line, "incident", mailbox_incident(mailbox, number));
	log_end(&line);
}

const char *mailbox_incident(const struct mailbox *mailbox, char out[MAILBOX_INCIDENT_MAX])
{
	if (mailbox->use_incident == 0)
		return NULL;
	(void)snprintf(out, MAILBOX_INCIDENT_MAX, "%04x", (unsigned int)mailbox->use_incident);
	return out;
}

static void raise_alarm(const struct mailbox *mailbox, const char *id, int64_t used)
{
	char number[MAILBOX_INCIDENT_MAX], what[ALARM_TEXT_MAX];

	(void)snprintf(
		what, sizeof(what), "%s: %lld of %lld recipients delivered in 24 h; incident %s",
		mailbox->address, (long long)used, (long long)mailbox->conf->recipients_per_day,
		mailbox_incident(mailbox, number));
	alarm_raise(id, 1, what,
		    "when it is full mail waits in the queue until there is room; see with "
		    "\"relay365 limits\" who sends most");
}

void mailbox_watch_use(struct mailbox *mailbox)
{
	int64_t used = delivered_used(mailbox->delivered);
	char id[ALARM_ID_MAX + 1];
	int percent;

	if (mailbox->conf == NULL)
		return;
	percent = percent_of(used, mailbox->conf->recipients_per_day);
	(void)snprintf(id, sizeof(id), "delivered/%s", mailbox->name);
	if (percent > mailbox->use_percent) {
		mailbox->use_percent = percent;
		if (mailbox->use_incident == 0 &&
		    (getrandom(&mailbox->use_incident, sizeof(mailbox->use_incident), 0) < 0 ||
		     mailbox->use_incident == 0))
			mailbox->use_incident = 1;
		log_use(mailbox, EV_LIMIT_HIGH, used);
		/* The milter tells of 80 % already, of what it has accepted. */
		if (percent == QUOTA_FULLER_PERCENT)
			raise_alarm(mailbox, id, used);
	} else if (used * 100 < mailbox->conf->recipients_per_day * QUOTA_REARM_PERCENT) {
		if (mailbox->use_percent > 0)
			log_use(mailbox, EV_LIMIT_OK, used);
		mailbox->use_percent = 0;
		mailbox->use_incident = 0;
		alarm_clear(id); /* what an earlier process told of, too */
	}
}
