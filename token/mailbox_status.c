#include "token/mailbox_private.h"

#include "explain/explain.h"
#include "quota/locks_control.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/json_time.h"

/* Minutes until the next try after the first, second and every later quota reply in a row. */
static const int circuit_minutes[] = {15, 30, 60};

static void open_circuit(struct mailbox *mailbox, const char *reply)
{
	unsigned int step = mailbox->memo->circuit_step;
	int minutes;

	if (mailbox_circuit_left_ms(mailbox) > 0)
		return; /* the other submissions of the same moment */
	if (step >= ARRAY_LEN(circuit_minutes))
		step = ARRAY_LEN(circuit_minutes) - 1;
	minutes = circuit_minutes[step];
	mailbox->memo->circuit_step++;
	mailbox->memo->circuit_until_boot_ms = clock_boot_ms() + minutes * 60000LL;
	log_say(EV_WARNING,
		"%s: Microsoft says its sending quota is exceeded though relay365 counts %lld of "
		"%lld; "
		"somebody else sends with it. Next try in %d minutes. Reply: %s",
		mailbox->address, (long long)delivered_used(mailbox->delivered),
		(long long)mailbox->conf->recipients_per_day, minutes, reply);
}

/* External recipients only: the tenant's or the domain's limit, not the mailbox's. */
static bool is_external_quota(const struct explanation *what)
{
	return strncmp(what->id, "5.7.23", 6) == 0;
}

/* The account or the tenant is blocked: each further try makes that worse. */
static bool is_account_blocked(const struct explanation *what)
{
	static const char *const blocked[] = {"5.1.8", "5.7.705", "5.7.75x"};

	for (size_t i = 0; i < ARRAY_LEN(blocked); i++)
		if (strcmp(what->id, blocked[i]) == 0)
			return true;
	return false;
}

/* Nothing is retried until an admin has mended it, and says so. */
static void lock_mailbox(struct mailbox *mailbox, const struct explanation *what)
{
	struct lock lock = {.by = "microsoft", .since_wall_ms = clock_wall_ms()};

	if (locks_find(mailbox->locks, LOCK_MAILBOX, mailbox->address, NULL))
		return;
	(void)snprintf(lock.key, sizeof(lock.key), LOCK_MAILBOX "%s", mailbox->address);
	(void)snprintf(lock.reason, sizeof(lock.reason), "%s (%s); %s", what->meaning, what->id,
		       what->action);
	(void)locks_add(mailbox->locks, &lock, 0, NULL);
	locks_log(&lock);
	mailbox_pump(mailbox);
}

/* What a new token may mend. */
static bool doubts_token(const struct explanation *what)
{
	return strcmp(what->id, "5.7.3") == 0 || strcmp(what->id, "5.5.127") == 0;
}

/* Texts of Postfix's own that say nothing of the cause. */
static bool hides_cause(const char *status)
{
	static const char *const opaque[] = {
		"SASL authentication failed; cannot authenticate to server",
		"SASL authentication failed; non-protocol error",
		"local data error while talking to", "no mechanism available"};

	for (size_t i = 0; i < ARRAY_LEN(opaque); i++)
		if (strstr(status, opaque[i]) != NULL)
			return true;
	return false;
}

static void log_delivery(const struct mailbox *mailbox, const char *status, const char *result)
{
	char number[MAILBOX_INCIDENT_MAX];
	struct log_line line;

	log_begin(&line, EV_DELIVERY, NULL);
	log_str(&line, "mailbox", mailbox->name);
	log_str(&line, "result", result);
	if (mailbox->conf != NULL)
		log_ratio(&line, "delivered", delivered_used(mailbox->delivered),
			  mailbox->conf->recipients_per_day);
	log_str(&line, "reply", status);
	log_str(&line, "incident", mailbox_incident(mailbox, number));
	log_end(&line);
}

/* The incident of a refusal: that of a sign-in ends with the next probe too, and is its own. */
static void incident_of(const struct mailbox *mailbox, const char *status, char *id_r, size_t cap)
{
	(void)snprintf(id_r, cap, "%s/%s",
		       strstr(status, "uthenticat") != NULL ? "sign-in" : "mailbox",
		       mailbox->name);
}

static void tell_alarm(const struct mailbox *mailbox, const struct explanation *what,
		       const char *status)
{
	char id[ALARM_ID_MAX], text[ALARM_TEXT_MAX];

	incident_of(mailbox, status, id, sizeof(id));
	(void)snprintf(text, sizeof(text), "Microsoft refuses the mail of mailbox %s: %s (%s)",
		       mailbox->name, what->meaning, status);
	alarm_raise(id, 1, text, what->action);
}

static void clear_alarms(const struct mailbox *mailbox)
{
	char id[ALARM_ID_MAX];

	incident_of(mailbox, "", id, sizeof(id));
	alarm_clear(id);
	incident_of(mailbox, "authentication", id, sizeof(id));
	alarm_clear(id);
}

/* Raised once for each cause; cleared by the first success. */
static void set_trouble(struct mailbox *mailbox, const struct explanation *what,
			const char *status)
{
	char text[sizeof(mailbox->trouble)];
	struct log_line line;

	(void)snprintf(text, sizeof(text), "Microsoft refuses its mail: %s; %s", what->meaning,
		       what->action);
	if (strcmp(text, mailbox->trouble) == 0)
		return;
	memcpy(mailbox->trouble, text, sizeof(text));
	tell_alarm(mailbox, what, status);
	log_begin(&line, EV_DELIVERY_ALARM, NULL);
	log_str(&line, "mailbox", mailbox->name);
	log_str(&line, "class", explain_class_name(what->class));
	log_str(&line, "reply", status);
	log_str(&line, "text", mailbox->trouble);
	log_end(&line);
}

static void clear_trouble(struct mailbox *mailbox)
{
	struct log_line line;

	clear_alarms(mailbox); /* what an earlier process told of, too */
	if (mailbox->trouble[0] == '\0')
		return;
	mailbox->trouble[0] = '\0';
	log_begin(&line, EV_DELIVERY_OK, NULL);
	log_str(&line, "mailbox", mailbox->name);
	log_end(&line);
}

static void remember(struct mailbox *mailbox, const char *status)
{
	(void)snprintf(mailbox->last_reply, sizeof(mailbox->last_reply), "%s", status);
	mailbox->last_reply_wall_ms = clock_wall_ms();
}

/* A reply that is not a success: explained, or its cause put in place of an opaque text. */
static bool explain(struct mailbox *mailbox, const char *status, char *better_r, size_t cap)
{
	const struct explanation *verdict, *what;
	int code = (int)strcspn(status, " ");

	if (hides_cause(status) && mailbox->problem[0] != '\0') {
		(void)snprintf(better_r, cap, "%.*s relay365: %s", code, status,
			       mailbox->problem);
		log_delivery(mailbox, status, "explained");
		return true;
	}
	verdict = explain_verdict(status);
	if (verdict == NULL)
		return false;
	/* The cause may stand further on, "Error: 535 5.7.139 ...", but so do addresses. */
	what = verdict->class == EXPLAIN_CONFIG ? explain_reply(status) : verdict;
	if (verdict->class == EXPLAIN_QUOTA && !is_external_quota(verdict) &&
	    mailbox->conf != NULL)
		open_circuit(mailbox, status);
	if (what->class != EXPLAIN_TRANSIENT && what->class != EXPLAIN_MESSAGE &&
	    mailbox->conf != NULL)
		set_trouble(mailbox, what, status);
	if (is_account_blocked(verdict) && mailbox->conf != NULL)
		lock_mailbox(mailbox, verdict);
	if (doubts_token(what) && mailbox->conf != NULL)
		identity_doubt(mailbox->identity);
	/* A text that is changed never changes what happens to the mail: the code stays. */
	(void)snprintf(better_r, cap, "%s [relay365: %s; %s]", status, what->meaning,
		       what->action);
	log_delivery(mailbox, status, explain_class_name(what->class));
	return true;
}

bool mailbox_status(struct mailbox *mailbox, const char *status, int recipients, char *better_r,
		    size_t cap)
{
	if (status[0] == '2')
		return false;
	if (status[0] == '5')
		mailbox->bounced += (unsigned long)recipients;
	else
		mailbox->deferred += (unsigned long)recipients;
	remember(mailbox, status);
	return explain(mailbox, status, better_r, cap);
}

/* 2.1.5 is the answer to an address probe. */
bool mailbox_is_delivery(const char *status)
{
	return status[0] == '2' && strncmp(status, "2.1.5", 5) != 0;
}

void mailbox_announce(struct mailbox *mailbox, const char *status, int recipients)
{
	if (mailbox_is_delivery(status))
		delivered_announce(mailbox->delivered, recipients);
}

void mailbox_count(struct mailbox *mailbox, const char *status, int recipients, bool answered)
{
	if (!mailbox_is_delivery(status))
		return;
	if (answered)
		delivered_add(mailbox->delivered, recipients);
	delivered_announce(mailbox->delivered, -recipients);
	if (!answered)
		return;
	mailbox->accepted += (unsigned long)recipients;
	clear_trouble(mailbox);
	mailbox_watch_use(mailbox);
	if (mailbox->memo->circuit_step == 0)
		return;
	mailbox->memo->circuit_step = 0; /* who waits need not wait for the end of this lease */
	mailbox_pump(mailbox);
}

/* What keeps mail from leaving now, if anything does. */
static void add_problem(cJSON *json, struct mailbox *mailbox)
{
	char reason[512];
	int64_t retry_ms, each = 0;
	struct lock lock;

	if (mailbox->conf != NULL)
		each = conf_transaction_recipients(mailbox->conf);
	if (mailbox_is_shut(mailbox, each, false, reason, sizeof(reason), &retry_ms)) {
		(void)cJSON_AddStringToObject(json, "problem", reason);
		if (!locks_find(mailbox->locks, LOCK_MAILBOX, mailbox->address, &lock) ||
		    lock.until_wall_ms > 0)
			json_add_time(json, "waits_until", clock_wall_ms() + retry_ms);
	} else if (mailbox->trouble[0] != '\0')
		(void)cJSON_AddStringToObject(json, "problem", mailbox->trouble);
	else if (identity_problem(mailbox->identity)[0] != '\0')
		(void)cJSON_AddStringToObject(json, "problem",
					      identity_problem(mailbox->identity));
}

cJSON *mailbox_status_json(struct mailbox *mailbox)
{
	cJSON *json = cJSON_CreateObject();
	const struct conf_mailbox *conf = mailbox->conf;
	char number[MAILBOX_INCIDENT_MAX];
	int64_t room_in_ms;

	(void)cJSON_AddStringToObject(json, "name", mailbox->name);
	(void)cJSON_AddStringToObject(json, "address", mailbox->address);
	(void)cJSON_AddStringToObject(json, "tenant", identity_name(mailbox->identity));
	(void)cJSON_AddNumberToObject(json, "delivered",
				      (double)delivered_used(mailbox->delivered));
	if (conf != NULL) {
		int64_t each = conf_transaction_recipients(conf);

		(void)cJSON_AddNumberToObject(json, "recipients_per_day",
					      (double)conf->recipients_per_day);
		(void)cJSON_AddNumberToObject(json, "connections", (double)conf->connections);
		(void)cJSON_AddNumberToObject(json, "transaction_recipients", (double)each);
		(void)cJSON_AddNumberToObject(json, "reserved", (double)mailbox->reserved);
		room_in_ms =
			delivered_room_in_ms(mailbox->delivered, conf->recipients_per_day, each);
		if (room_in_ms > 0)
			json_add_time(json, "room_at", clock_wall_ms() + room_in_ms);
	}
	(void)cJSON_AddNumberToObject(json, "leases", mailbox->open);
	(void)cJSON_AddNumberToObject(json, "waiting", mailbox->waiting);
	if (mailbox_circuit_left_ms(mailbox) > 0)
		json_add_time(json, "paused_until",
			      clock_wall_ms() + mailbox_circuit_left_ms(mailbox));
	(void)cJSON_AddNumberToObject(json, "accepted_recipients", (double)mailbox->accepted);
	(void)cJSON_AddNumberToObject(json, "deferred_recipients", (double)mailbox->deferred);
	(void)cJSON_AddNumberToObject(json, "bounced_recipients", (double)mailbox->bounced);
	if (mailbox_incident(mailbox, number) != NULL)
		(void)cJSON_AddStringToObject(json, "incident", number);
	add_problem(json, mailbox);
	if (mailbox->last_reply[0] != '\0') {
		(void)cJSON_AddStringToObject(json, "last_refusal", mailbox->last_reply);
		json_add_time(json, "last_refusal_at", mailbox->last_reply_wall_ms);
	}
	return json;
}
