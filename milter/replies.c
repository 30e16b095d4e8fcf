#include "milter/replies.h"

#include "base/clock.h"
#include "base/plain.h"

enum { KEY_SHOWN = 254, WINDOW_TEXT = 32, NAME_TEXT = QUOTA_NAME_MAX + 16, SENDER_SHOWN = 100 };

static void fill(struct reply *reply, const char *code, const char *status)
{
	(void)snprintf(reply->code, sizeof(reply->code), "%s", code);
	(void)snprintf(reply->status, sizeof(reply->status), "%s", status);
	/* The text must stay one printable line, whatever a sender put into its address. */
	for (char *p = reply->text; *p != '\0'; p++)
		if ((unsigned char)*p < 32 || (unsigned char)*p > 126)
			*p = '?';
}

/* "24 h", "7 days", "90 s": the largest unit that divides it. */
static const char *window_text(int64_t window_ms, char out[WINDOW_TEXT])
{
	int64_t s = window_ms / 1000;
	const char *unit = "s";

	if (s >= 48 * 3600 && s % (24 * 3600) == 0) {
		s /= 24 * 3600;
		unit = "days";
	} else if (s % 3600 == 0) {
		s /= 3600;
		unit = "h";
	} else if (s % 60 == 0) {
		s /= 60;
		unit = "min";
	}
	(void)snprintf(out, WINDOW_TEXT, "%lld %s", (long long)s, unit);
	return out;
}

static const char *unit_text(enum quota_count count)
{
	return count == QUOTA_EXTERNAL_RECIPIENTS ? "external recipients"
						  : policy_count_name(count);
}

/* Whose limit it is: an address speaks for itself. */
static void owner_text(const struct quota_verdict *verdict, char *out, size_t cap)
{
	if (verdict->per == QUOTA_PER_MAILBOX || verdict->per == QUOTA_PER_SENDER)
		(void)snprintf(out, cap, "%.*s", KEY_SHOWN, verdict->key);
	else if (verdict->per == QUOTA_PER_EVERYONE)
		(void)snprintf(out, cap, "limit %s", verdict->limit);
	else
		(void)snprintf(out, cap, "%s %.*s", policy_per_name(verdict->per), KEY_SHOWN,
			       verdict->key);
}

/* " (limit per-user)", for a limit of the admin's; built-in ones have an underscore each. */
static const char *name_text(const struct quota_verdict *verdict, char out[NAME_TEXT])
{
	out[0] = '\0';
	if (verdict->per != QUOTA_PER_EVERYONE && strchr(verdict->limit, '_') == NULL)
		(void)snprintf(out, NAME_TEXT, " (limit %s)", verdict->limit);
	return out;
}

void reply_use(const struct quota_verdict *verdict, char *out, size_t cap)
{
	char owner[KEY_SHOWN + 64], window[WINDOW_TEXT], name[NAME_TEXT];

	owner_text(verdict, owner, sizeof(owner));
	(void)snprintf(out, cap, "%s: %lld of %lld %s used in %s%s%s", owner,
		       (long long)verdict->used, (long long)verdict->max,
		       unit_text(verdict->count), window_text(verdict->window_ms, window),
		       name_text(verdict, name),
		       verdict->cap < verdict->max ? ", the rest is kept for priority mail" : "");
	(void)plain(out);
}

static void never_text(const struct quota_verdict *verdict, struct reply *reply)
{
	char owner[KEY_SHOWN + 64], window[WINDOW_TEXT], name[NAME_TEXT];

	owner_text(verdict, owner, sizeof(owner));
	(void)snprintf(reply->text, sizeof(reply->text),
		       "%s: this message needs more than the %lld %s that are allowed in %s%s; "
		       "it can never fit",
		       owner, (long long)verdict->cap, unit_text(verdict->count),
		       window_text(verdict->window_ms, window), name_text(verdict, name));
}

static void room_text(const struct quota_verdict *verdict, int64_t now_wall_ms,
		      struct reply *reply)
{
	size_t at = strlen(reply->text);
	char when[CLOCK_TEXT_MAX];

	if (verdict->room_at_wall_ms <= 0)
		return;
	(void)clock_for_people(verdict->room_at_wall_ms, now_wall_ms, when);
	(void)snprintf(reply->text + at, sizeof(reply->text) - at, "; room for %lld at %s",
		       (long long)verdict->room, when);
}

void reply_verdict(const struct quota_verdict *verdict, int64_t now_wall_ms,
		   struct reply *reply_r)
{
	bool reject = verdict->action == QUOTA_REJECT;

	if (verdict->crowded) {
		(void)snprintf(reply_r->text, sizeof(reply_r->text),
			       "limit %s: too many different senders are being counted; "
			       "try again later",
			       verdict->limit);
		fill(reply_r, "451", "4.3.2");
		return;
	}
	if (verdict->never) {
		never_text(verdict, reply_r);
	} else {
		reply_use(verdict, reply_r->text, sizeof(reply_r->text));
		room_text(verdict, now_wall_ms, reply_r);
	}
	fill(reply_r, reject ? "550" : "451", reject ? "5.7.1" : "4.7.1");
}

void reply_too_many_recipients(const char *mailbox, int64_t max, struct reply *reply_r)
{
	(void)snprintf(
		reply_r->text, sizeof(reply_r->text),
		"%.*s: a message may have %lld recipients; send it to the others once more",
		KEY_SHOWN, mailbox, (long long)max);
	fill(reply_r, "452", "4.5.3");
}

void reply_not_allowed(const char *source, const char *mailbox, struct reply *reply_r)
{
	(void)snprintf(
		reply_r->text, sizeof(reply_r->text),
		"source %.*s may not send through %.*s; its mailboxes in relay365.conf say so",
		KEY_SHOWN / 2, source, KEY_SHOWN / 2, mailbox);
	fill(reply_r, "550", "5.7.1");
}

/* What an admin may do about a sender; the mailbox's name comes last. */
static void advise(const char *what, const char *address, const struct conf_mailbox *mailbox,
		   struct reply *reply)
{
	const char *at = strrchr(address, '@');

	if (at != NULL && at != address && at[1] != '\0')
		(void)snprintf(reply->text, sizeof(reply->text),
			       "%s %.*s: %.*s may not send as it; to allow it, add \"%.*s\" to "
			       "senders of mailbox %s in relay365.conf",
			       what, SENDER_SHOWN, address, SENDER_SHOWN, mailbox->address,
			       SENDER_SHOWN, address, mailbox->name);
	else
		(void)snprintf(
			reply->text, sizeof(reply->text),
			"%s %.*s has no domain, and %.*s may not send as it; give it one, "
			"or set other_senders = \"rewrite\" for mailbox %s in relay365.conf",
			what, SENDER_SHOWN, address, SENDER_SHOWN, mailbox->address,
			mailbox->name);
	fill(reply, "550", "5.7.1");
}

void reply_other_sender(const char *sender, const struct conf_mailbox *mailbox,
			struct reply *reply_r)
{
	advise("sender", sender, mailbox, reply_r);
}

void reply_other_field(const char *field, const char *address, const struct conf_mailbox *mailbox,
		       struct reply *reply_r)
{
	if (address[0] != '\0') {
		advise(field, address, mailbox, reply_r);
		return;
	}
	(void)snprintf(reply_r->text, sizeof(reply_r->text),
		       "the field %s can't be read, or there are several; %.*s may send as its "
		       "senders only",
		       field, KEY_SHOWN, mailbox->address);
	fill(reply_r, "550", "5.7.1");
}

void reply_too_large(const struct conf_mailbox *mailbox, int64_t bytes, struct reply *reply_r)
{
	(void)snprintf(reply_r->text, sizeof(reply_r->text),
		       "%.*s: a message may have %lld bytes; this one has %lld", KEY_SHOWN,
		       mailbox->address, (long long)mailbox->message_size, (long long)bytes);
	fill(reply_r, "552", "5.3.4");
}

void reply_unseen(const char *what, struct reply *reply_r)
{
	(void)snprintf(reply_r->text, sizeof(reply_r->text),
		       "%s of relay365.conf came into force, and this session began without "
		       "that; send it again in a new one",
		       what);
	fill(reply_r, "451", "4.3.5");
}

void reply_locked(const struct lock *lock, int64_t now_wall_ms, struct reply *reply_r)
{
	const char *name = lock->key + strlen(LOCK_SOURCE);
	char until[CLOCK_TEXT_MAX];

	if (lock->until_wall_ms > 0)
		(void)snprintf(reply_r->text, sizeof(reply_r->text),
			       "source %.*s is locked until %s: %s", KEY_SHOWN / 2, name,
			       clock_for_people(lock->until_wall_ms, now_wall_ms, until),
			       lock->reason);
	else
		(void)snprintf(reply_r->text, sizeof(reply_r->text), "source %.*s is locked: %s",
			       KEY_SHOWN / 2, name, lock->reason);
	fill(reply_r, "550", "5.7.1");
}

void reply_no_ledger(struct reply *reply_r)
{
	(void)snprintf(reply_r->text, sizeof(reply_r->text),
		       "relay365 can't write down what it accepts; its log says why. "
		       "Try again later");
	fill(reply_r, "451", "4.3.0");
}

void reply_no_hold(const struct quota_verdict *verdict, int64_t now_wall_ms,
		   struct reply *reply_r)
{
	reply_use(verdict, reply_r->text, sizeof(reply_r->text));
	room_text(verdict, now_wall_ms, reply_r);
	fill(reply_r, "451", "4.7.1");
}

void reply_no_quarantine(const char *source, struct reply *reply_r)
{
	(void)snprintf(
		reply_r->text, sizeof(reply_r->text),
		"source %.*s sends far more than is usual for it, and this MTA can't hold its "
		"mail",
		KEY_SHOWN, source);
	fill(reply_r, "451", "4.7.1");
}

const char *reply_incident(unsigned int incident, char out[REPLY_INCIDENT_MAX])
{
	(void)snprintf(out, REPLY_INCIDENT_MAX, "%04x", incident & 0xffff);
	return out;
}
