#include "milter/session_private.h"

#include "quota/limits.h"

static void begin_line(const struct session *session, struct log_line *line, enum log_event event)
{
	log_begin(line, event, session->queue_id[0] == '\0' ? "NOQUEUE" : session->queue_id);
}

static void log_sender(const struct session *session, struct log_line *line)
{
	char from[ROUTE_ADDRESS_MAX + 3];
	size_t len = strlen(session->sender);

	log_str(line, "source", session->source);
	log_str(line, "client", session->client[0] == '\0' ? NULL : session->client);
	from[0] = '<';
	memcpy(from + 1, session->sender, len);
	from[len + 1] = '>';
	log_mem(line, "from", from, len + 2);
}

/* The number that all lines of an incident carry. */
static void log_incident(struct log_line *line, unsigned int incident)
{
	char text[REPLY_INCIDENT_MAX];

	if (incident != 0)
		log_str(line, "incident", reply_incident(incident, text));
}

void session_log_verdict(const struct session *session, enum log_event event,
			 const struct quota_verdict *verdict, const char *mailbox)
{
	struct log_line line;

	begin_line(session, &line, event);
	log_str(&line, "limit", verdict->limit);
	log_str(&line, "mailbox", mailbox);
	log_sender(session, &line);
	if (verdict->per != QUOTA_PER_MAILBOX)
		log_str(&line, "key", verdict->key);
	log_ratio(&line, "used", verdict->used, verdict->max);
	log_int(&line, "need", verdict->need);
	if (verdict->room_at_wall_ms > 0)
		log_time(&line, "room_at", verdict->room_at_wall_ms);
	if (verdict->shadowed)
		log_str(&line, "shadow", "yes");
	log_incident(&line, verdict->incident);
	log_end(&line);
}

void session_log_policy(const struct session *session, enum log_event event, const char *policy,
			const struct conf_mailbox *mailbox, const char *header_from)
{
	struct log_line line;

	begin_line(session, &line, event);
	log_str(&line, "limit", policy);
	log_str(&line, "mailbox", mailbox->name);
	log_sender(session, &line);
	log_str(&line, "header_from", header_from);
	if (live_conf(session->conf)->shadow)
		log_str(&line, "shadow", "yes");
	log_end(&line);
}

void session_log_locked(const struct session *session, const struct conf_mailbox *mailbox)
{
	struct log_line line;

	begin_line(session, &line, EV_REJECT);
	log_str(&line, "limit", "lock");
	log_str(&line, "mailbox", mailbox->name);
	log_sender(session, &line);
	log_str(&line, "key", session->lock.key);
	log_str(&line, "text", session->lock.reason);
	if (live_conf(session->conf)->shadow)
		log_str(&line, "shadow", "yes");
	log_end(&line);
}

void session_log_too_many(const struct session *session, const struct tally *tally)
{
	struct log_line line;

	begin_line(session, &line, EV_DEFER);
	log_str(&line, "limit", "recipients_per_message");
	log_str(&line, "mailbox", tally->mailbox->name);
	log_sender(session, &line);
	log_ratio(&line, "used", tally->recipients, tally->mailbox->recipients_per_message);
	log_int(&line, "need", 1);
	if (live_conf(session->conf)->shadow)
		log_str(&line, "shadow", "yes");
	log_end(&line);
}

void session_log_trouble(const struct session *session, const char *limit, const char *text)
{
	struct log_line line;

	begin_line(session, &line, EV_DEFER);
	log_str(&line, "limit", limit);
	log_sender(session, &line);
	log_str(&line, "text", text);
	log_end(&line);
}

/* The mailbox's own day, and what is fuller than that. */
static void log_use(const struct session *session, struct log_line *line,
		    const struct conf_mailbox *mailbox, const struct quota_use *fullest)
{
	bool day_is_fullest = strcmp(fullest->limit, LIMITS_DAY) == 0;
	struct quota_row day;

	if (day_is_fullest && session->tallies == 1) {
		log_ratio(line, "used", fullest->used, fullest->max);
		return;
	}
	quota_look(session->quota, LIMITS_DAY, mailbox->address, &day);
	log_ratio(line, "used", day.used, mailbox->recipients_per_day);
	if (fullest->limit[0] != '\0' && !day_is_fullest) {
		log_str(line, "limit", fullest->limit);
		log_ratio(line, "limit_used", fullest->used, fullest->max);
	}
}

void session_log_accepted(const struct session *session, const struct quota_use *fullest)
{
	struct log_line line;

	for (size_t i = 0; i < session->tallies; i++) {
		const struct tally *t = &session->tally[i];

		if (t->recipients == 0)
			continue;
		begin_line(session, &line, EV_ACCEPT);
		log_str(&line, "mailbox", t->mailbox->name);
		log_sender(session, &line);
		log_int(&line, "nrcpt", t->recipients);
		log_int(&line, "ext", t->external);
		log_use(session, &line, t->mailbox, fullest);
		log_incident(&line, session->hour.incident != 0 ? session->hour.incident
								: fullest->incident);
		log_end_later(&line);
	}
}

void session_log_runaway(const struct session *session, enum log_event event)
{
	struct log_line line;

	begin_line(session, &line, event);
	if (event != EV_RUNAWAY)
		log_str(&line, "limit", "runaway");
	log_sender(session, &line);
	log_int(&line, "hour", session->hour.recipients);
	log_int(&line, "usual", session->hour.usual);
	log_incident(&line, session->hour.incident);
	log_end(&line);
}
