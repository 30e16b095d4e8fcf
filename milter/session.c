#include "milter/session.h"

#include "base/clock.h"
#include "base/plain.h"
#include "base/xalloc.h"
#include "milter/session_private.h"
#include "quota/limits.h"
#include "quota/locks_control.h"

#include <stddef.h>

static void copy(char *to, size_t cap, const char *from)
{
	size_t len = from == NULL ? 0 : strlen(from);

	if (len >= cap)
		len = cap - 1;
	if (len > 0)
		memcpy(to, from, len);
	to[len] = '\0';
}

static void fold(char *text)
{
	for (; *text != '\0'; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text - 'A' + 'a');
}

struct session *session_new(struct live *live, struct quota *quota, struct usage *usage)
{
	struct session *session = xmalloc(sizeof(*session));

	/* All else is set with each message. */
	memset(session, 0, offsetof(struct session, sender));
	session->live = live;
	session->quota = quota;
	session->usage = usage;
	return session;
}

void session_free(struct session **session)
{
	if (*session == NULL)
		return;
	session_abort(*session);
	sender_header_clear(&(*session)->header);
	quota_message_free(&(*session)->reserved);
	free(*session);
	*session = NULL;
}

void session_abort(struct session *session)
{
	if (session->reserved != NULL)
		quota_release(session->reserved);
	live_put(&session->conf);
	session->from = NULL;
	session->tallies = 0;
}

/*
 * Who sends. Of local mail the MTA tells no more than the envelope sender, so
 * a local user is known by its local part.
 */
static void name_source(struct session *session, const struct session_mail *mail)
{
	bool local = mail->simulated || session->client[0] == '\0';
	char user[ROUTE_ADDRESS_MAX + 1];

	copy(user, sizeof(user), session->sender);
	user[strcspn(user, "@")] = '\0';
	session->from = conf_source_of(live_conf(session->conf), mail->login,
				       local ? NULL : session->client, local ? user : NULL);
	if (session->from != NULL)
		copy(session->source, sizeof(session->source), session->from->name);
	else if (mail->login != NULL && mail->login[0] != '\0')
		copy(session->source, sizeof(session->source), mail->login);
	else
		copy(session->source, sizeof(session->source), local ? "local" : session->client);
	fold(session->source);
}

/*
 * A lock of the source, or of the login or the client's address behind it. The
 * client of a session that the MTA plays is nobody.
 */
static void look_for_lock(struct session *session, const struct session_mail *mail)
{
	const char *const names[] = {session->source, mail->login,
				     mail->simulated ? NULL : session->client};
	struct locks *locks = live_locks(session->live);

	session->locked = false;
	for (size_t i = 0; i < ARRAY_LEN(names) && !session->locked; i++)
		session->locked = locks_find(locks, LOCK_SOURCE, names[i], &session->lock);
}

void session_mail(struct session *session, const struct session_mail *mail)
{
	session_abort(session);
	session->conf = live_get(session->live);
	route_address(mail->sender == NULL ? "" : mail->sender, session->sender);
	conf_client_text(mail->client == NULL ? "" : mail->client, session->client,
			 sizeof(session->client));
	name_source(session, mail);
	look_for_lock(session, mail);
	copy(session->queue_id, sizeof(session->queue_id), mail->queue_id);
	session->simulated = mail->simulated;
	session->bytes = mail->bytes;
	session->seen = 0;
	session->noted.exceeded = false;
	session->refused.code[0] = '\0';
	sender_header_clear(&session->header);
	session->hour.incident = 0;
}

static enum log_event event_of(enum quota_action action)
{
	static const enum log_event events[] = {
		[QUOTA_REJECT] = EV_REJECT, [QUOTA_DEFER] = EV_DEFER, [QUOTA_HOLD] = EV_HOLD,
		[QUOTA_WAIT] = EV_WAIT,	    [QUOTA_WARN] = EV_WARN,
	};

	return events[action];
}

/* Of verdicts that accept, hold is worse than wait, wait than warn, warn than shadow. */
static int badness(const struct quota_verdict *verdict)
{
	if (!verdict->exceeded)
		return 0;
	if (verdict->shadowed)
		return 1;
	return verdict->action == QUOTA_HOLD ? 4 : verdict->action == QUOTA_WAIT ? 3 : 2;
}

static void note(struct session *session, const struct quota_verdict *verdict,
		 const struct conf_mailbox *mailbox)
{
	/* Of two waits the later is the one that the message will wait for. */
	if (badness(verdict) < badness(&session->noted))
		return;
	session->noted = *verdict;
	copy(session->noted_mailbox, sizeof(session->noted_mailbox), mailbox->name);
}

static struct quota_facts facts_of(const struct session *session,
				   const struct conf_mailbox *mailbox)
{
	return (struct quota_facts){
		.mailbox = mailbox->address,
		.tenant = mailbox->tenant == NULL ? NULL : mailbox->tenant->name,
		.source = session->source,
		.sender = session->sender,
		.sender_domain = route_domain(session->sender),
		.priority = (session->from != NULL && session->from->priority) ||
			    conf_is_priority_sender(mailbox, session->sender),
		.undivided = session->simulated,
	};
}

static struct tally *find_tally(struct session *session, const struct conf_mailbox *mailbox)
{
	for (size_t i = 0; i < session->tallies; i++)
		if (session->tally[i].mailbox == mailbox)
			return &session->tally[i];
	return NULL;
}

static struct tally *new_tally(struct session *session, const struct conf_mailbox *mailbox)
{
	struct tally *t;

	if (session->tallies == SESSION_MAILBOXES_MAX)
		return NULL;
	t = &session->tally[session->tallies++];
	*t = (struct tally){.mailbox = mailbox, .facts = facts_of(session, mailbox)};
	return t;
}

/* Refuses the recipient now, or, where that can't be, the message at its end. */
static enum session_result refuse(struct session *session, const struct reply *reply)
{
	if (!session->simulated)
		return SESSION_REFUSE;
	session->refused = *reply;
	return SESSION_CONTINUE;
}

/* The limit of one message. The MTA itself splits what it takes in a simulated session. */
static bool too_many(struct session *session, const struct tally *tally, struct reply *reply_r)
{
	int64_t max = tally->mailbox->recipients_per_message;
	bool shadow = live_conf(session->conf)->shadow;

	if (session->simulated || tally->recipients < max)
		return false;
	session_log_too_many(session, tally);
	if (!shadow)
		reply_too_many_recipients(tally->mailbox->address, max, reply_r);
	return !shadow;
}

static enum session_result count(struct session *session, struct tally *tally,
				 const char *recipient, struct reply *reply_r)
{
	const struct conf_mailbox *mailbox = tally->mailbox;
	bool external = conf_is_external(mailbox, recipient);
	struct quota_need need = {
		.messages = 1, .recipients = 1, .external = external, .bytes = session->bytes};
	struct quota_verdict verdict;

	tally->facts.recipient = recipient;
	if (session->reserved == NULL)
		session->reserved = quota_message_new(session->quota);
	quota_reserve(session->reserved, &tally->facts, &need, &verdict);
	tally->facts.recipient = NULL;
	if (verdict.exceeded && verdict.refused) {
		reply_verdict(&verdict, clock_wall_ms(), reply_r);
		session_log_verdict(session, event_of(verdict.action), &verdict, mailbox->name);
		return refuse(session, reply_r);
	}
	if (verdict.exceeded)
		note(session, &verdict, mailbox);
	tally->recipients++;
	tally->external += external;
	return SESSION_CONTINUE;
}

/* Whether the source is one that the configuration lets send through this mailbox. */
static bool may_use(const struct session *session, const struct conf_mailbox *mailbox)
{
	const struct conf_source *from = session->from;

	if (from == NULL || from->mailboxes.count == 0)
		return true;
	for (size_t i = 0; i < from->mailboxes.count; i++)
		if (strcmp(from->mailboxes.item[i], mailbox->name) == 0)
			return true;
	return false;
}

/* The null sender is anybody's. */
static bool is_own(const struct session *session, const struct conf_mailbox *mailbox)
{
	return session->sender[0] == '\0' || conf_is_sender(mailbox, session->sender);
}

static bool is_too_large(struct session *session, const struct conf_mailbox *mailbox,
			 struct reply *reply_r)
{
	if (session->bytes <= mailbox->message_size)
		return false;
	session_log_policy(session, EV_REJECT, "message_size", mailbox, NULL);
	reply_too_large(mailbox, session->bytes, reply_r);
	return !live_conf(session->conf)->shadow;
}

/* Whether the envelope alone keeps the recipient from going through the mailbox. */
static bool is_forbidden(struct session *session, const struct conf_mailbox *mailbox,
			 struct reply *reply_r)
{
	if (session->locked) {
		session_log_locked(session, mailbox);
		reply_locked(&session->lock, clock_wall_ms(), reply_r);
	} else if (!may_use(session, mailbox)) {
		session_log_policy(session, EV_REJECT, "sources", mailbox, NULL);
		reply_not_allowed(session->source, mailbox->address, reply_r);
	} else if (mailbox->other_senders == OTHERS_REJECT && !is_own(session, mailbox)) {
		session_log_policy(session, EV_REJECT, "senders", mailbox, NULL);
		reply_other_sender(session->sender, mailbox, reply_r);
	} else {
		return is_too_large(session, mailbox, reply_r);
	}
	return !live_conf(session->conf)->shadow;
}

enum session_result session_rcpt(struct session *session, const struct session_rcpt *rcpt,
				 struct reply *reply_r)
{
	char recipient[ROUTE_ADDRESS_MAX + 1];
	const struct conf_mailbox *mailbox;
	const struct conf *conf;
	struct tally *tally;

	if (session->conf == NULL || session->refused.code[0] != '\0')
		return SESSION_CONTINUE;
	if (rcpt->queue_id != NULL)
		copy(session->queue_id, sizeof(session->queue_id), rcpt->queue_id);
	conf = live_conf(session->conf);
	route_recipient(rcpt->recipient == NULL ? "" : rcpt->recipient, rcpt->local, recipient);
	if (session->simulated && rcpt->mailer == NULL)
		mailbox = route_unknown(conf, rcpt->local, recipient, session->sender);
	else
		mailbox = route_mailbox(conf, rcpt->mailer, rcpt->host, session->sender);
	if (mailbox == NULL && rcpt->hostless && conf->relay_hosts.count > 0) {
		reply_unseen("relay_hosts", reply_r);
		session_log_trouble(session, "relay_hosts", reply_r->text);
		return refuse(session, reply_r);
	}
	if (mailbox == NULL)
		return SESSION_CONTINUE;
	tally = find_tally(session, mailbox);
	/* The envelope is the same for all recipients: judged once. */
	if (tally == NULL && is_forbidden(session, mailbox, reply_r))
		return refuse(session, reply_r);
	if (tally == NULL)
		tally = new_tally(session, mailbox);
	if (tally == NULL) {
		reply_too_many_recipients(mailbox->address, mailbox->recipients_per_message,
					  reply_r);
		return refuse(session, reply_r);
	}
	if (too_many(session, tally, reply_r))
		return SESSION_REFUSE;
	fold(recipient);
	return count(session, tally, recipient, reply_r);
}

static bool counts_anything(const struct session *session)
{
	for (size_t i = 0; i < session->tallies; i++)
		if (session->tally[i].recipients > 0)
			return true;
	return false;
}

/* Charges. Refused only when the ledger can't be written and that is not to be accepted. */
static enum session_result charge(struct session *session, struct quota_use *use_r,
				  struct reply *reply_r)
{
	const struct conf *conf = live_conf(session->conf);
	struct err err = ERR_INIT;

	if (quota_charge(session->reserved, conf->accept_on_ledger_error || conf->shadow, use_r,
			 &err) >= 0)
		return SESSION_CONTINUE;
	session_log_trouble(session, "ledger", err.text);
	reply_no_ledger(reply_r);
	return SESSION_REFUSE;
}

void session_field(struct session *session, const char *name, const char *value)
{
	if (session->conf == NULL)
		return;
	session->seen += (int64_t)(strlen(name) + strlen(": \r\n") + strlen(value));
	for (const char *p = value; (p = strchr(p, '\n')) != NULL; p++)
		session->seen++; /* a CR that the MTA did not show */
	sender_add_field(&session->header, name, value);
}

void session_body(struct session *session, size_t len)
{
	session->seen += (int64_t)len;
}

/* Notes what must be changed so that Microsoft takes the mailbox for the sender. */
static void rewrite(struct session *session, const struct conf_mailbox *mailbox,
		    struct sender_change *change)
{
	bool change_envelope = !is_own(session, mailbox);
	bool change_header = sender_needs_change(mailbox, &session->header);
	char other[FROM_ADDRESS_MAX + 1];

	if (!change_envelope && !change_header)
		return;
	(void)sender_judge(mailbox, &session->header, other);
	session_log_policy(session, EV_REWRITE, NULL, mailbox, change_header ? other : NULL);
	if (live_conf(session->conf)->shadow)
		return;
	if (change_envelope)
		copy(change->envelope, sizeof(change->envelope), mailbox->address);
	if (change_header && !change->header)
		sender_change_header(mailbox, &session->header, change);
}

/* The sender policy of one mailbox that the message goes through. */
static enum session_result judge_sender(struct session *session,
					const struct conf_mailbox *mailbox,
					const struct session_ending *ending,
					struct session_outcome *outcome)
{
	bool shadow = live_conf(session->conf)->shadow;
	char other[FROM_ADDRESS_MAX + 1];
	enum sender_verdict verdict;

	if (mailbox->other_senders == OTHERS_ACCEPT)
		return SESSION_CONTINUE;
	if (!ending->saw_header ||
	    (mailbox->other_senders == OTHERS_REWRITE && !ending->can_change)) {
		session_log_policy(session, EV_DEFER, "senders", mailbox, NULL);
		reply_unseen("the check of senders", &outcome->reply);
		return shadow ? SESSION_CONTINUE : SESSION_REFUSE;
	}
	if (mailbox->other_senders == OTHERS_REWRITE) {
		rewrite(session, mailbox, &outcome->change);
		return SESSION_CONTINUE;
	}
	verdict = sender_judge(mailbox, &session->header, other);
	if (verdict == SENDER_OWN)
		return SESSION_CONTINUE;
	session_log_policy(session, EV_REJECT, "senders", mailbox, other);
	reply_other_field(verdict == SENDER_OTHER_FROM ? "From" : "Sender", other, mailbox,
			  &outcome->reply);
	return shadow ? SESSION_CONTINUE : SESSION_REFUSE;
}

static enum session_result judge_senders(struct session *session,
					 const struct session_ending *ending,
					 struct session_outcome *outcome)
{
	enum session_result result = SESSION_CONTINUE;

	for (size_t i = 0; i < session->tallies && result == SESSION_CONTINUE; i++)
		if (session->tally[i].recipients > 0)
			result =
				judge_sender(session, session->tally[i].mailbox, ending, outcome);
	return result;
}

/* What the message has more of than was announced. */
static enum session_result count_bytes(struct session *session,
				       const struct session_ending *ending,
				       struct session_outcome *outcome)
{
	struct quota_need need = {.bytes = session->seen - session->bytes};
	const struct conf *conf = live_conf(session->conf);
	struct quota_verdict verdict;

	if (!limits_count_bytes(conf))
		return SESSION_CONTINUE;
	if (!ending->saw_body) {
		reply_unseen("a limit of bytes", &outcome->reply);
		session_log_trouble(session, "bytes", outcome->reply.text);
		return conf->shadow ? SESSION_CONTINUE : SESSION_REFUSE;
	}
	session->bytes = session->bytes > session->seen ? session->bytes : session->seen;
	for (size_t i = 0; i < session->tallies && need.bytes > 0; i++) {
		const struct conf_mailbox *mailbox = session->tally[i].mailbox;
		struct quota_facts facts = session->tally[i].facts;

		if (session->tally[i].recipients == 0)
			continue;
		if (is_too_large(session, mailbox, &outcome->reply))
			return SESSION_REFUSE;
		facts.undivided = facts.more = true;
		quota_reserve(session->reserved, &facts, &need, &verdict);
		if (!verdict.exceeded)
			continue;
		if (!verdict.refused) {
			note(session, &verdict, mailbox);
			continue;
		}
		reply_verdict(&verdict, clock_wall_ms(), &outcome->reply);
		session_log_verdict(session, event_of(verdict.action), &verdict, mailbox->name);
		return SESSION_REFUSE;
	}
	return SESSION_CONTINUE;
}

static void lock_source(struct session *session)
{
	struct lock lock = {.by = "runaway", .since_wall_ms = clock_wall_ms()};
	struct err err = ERR_INIT;

	(void)snprintf(lock.key, sizeof(lock.key), LOCK_SOURCE "%s", session->source);
	(void)snprintf(lock.reason, sizeof(lock.reason),
		       "it sent to %lld recipients in an hour, and usually to %lld at most",
		       (long long)session->hour.recipients, (long long)session->hour.usual);
	/* In force at once; written when the disk allows. */
	if (locks_add(live_locks(session->live), &lock, 0, &err) < 0)
		log_say(EV_WARNING, "source %s is not locked: %s", session->source, err.text);
	else
		locks_log(&lock);
}

/* Counts the message as its source's, and says so when that runs away. */
static void count_usage(struct session *session)
{
	const struct conf *conf = live_conf(session->conf);
	bool watched = session->from == NULL || session->from->runaway_watch;

	for (size_t i = 0; i < session->tallies; i++) {
		const struct tally *t = &session->tally[i];

		if (t->recipients == 0)
			continue;
		usage_add(session->usage, session->source, t->mailbox->address, t->recipients,
			  watched ? conf->runaway_factor : 0, &session->hour);
		if (!session->hour.begins)
			continue;
		session_log_runaway(session, EV_RUNAWAY);
		if (conf->runaway_action == RUNAWAY_LOCK && !conf->shadow)
			lock_source(session);
	}
}

/* Whether the message is to be held for its source. */
static bool runs_away(const struct session *session)
{
	const struct conf *conf = live_conf(session->conf);

	return session->hour.incident != 0 && conf->runaway_action != RUNAWAY_WARN &&
	       !conf->shadow;
}

/* Behind the charge, so that mail that comes again and again counts once. */
static enum session_result hold_runaway(struct session *session, bool can_hold,
					struct session_outcome *outcome)
{
	if (!can_hold) {
		reply_no_quarantine(session->source, &outcome->reply);
		session_log_runaway(session, EV_DEFER);
		return SESSION_REFUSE;
	}
	(void)snprintf(
		outcome->reason, sizeof(outcome->reason),
		"source %.100s sent to %lld recipients in this hour, and usually to %lld at "
		"most",
		session->source, (long long)session->hour.recipients,
		(long long)session->hour.usual);
	(void)plain(outcome->reason);
	session_log_runaway(session, EV_HOLD);
	return SESSION_HOLD;
}

/* What becomes of a message that no recipient was refused for. */
static enum session_result finish(struct session *session, const struct session_ending *ending,
				  struct session_outcome *outcome)
{
	const struct quota_verdict *noted = &session->noted;
	struct quota_use use;
	bool hold;

	if (!counts_anything(session))
		return SESSION_CONTINUE;
	if (judge_senders(session, ending, outcome) == SESSION_REFUSE ||
	    count_bytes(session, ending, outcome) == SESSION_REFUSE)
		return SESSION_REFUSE;
	hold = noted->exceeded && !noted->shadowed && noted->action == QUOTA_HOLD;
	if (hold && !ending->can_hold) {
		reply_no_hold(noted, clock_wall_ms(), &outcome->reply);
		session_log_verdict(session, EV_DEFER, noted, session->noted_mailbox);
		return SESSION_REFUSE;
	}
	if (noted->exceeded)
		session_log_verdict(session, event_of(noted->action), noted,
				    session->noted_mailbox);
	if (charge(session, &use, &outcome->reply) == SESSION_REFUSE)
		return SESSION_REFUSE;
	count_usage(session);
	session_log_accepted(session, &use);
	if (hold) {
		reply_use(noted, outcome->reason, sizeof(outcome->reason));
		return SESSION_HOLD;
	}
	return runs_away(session) ? hold_runaway(session, ending->can_hold, outcome)
				  : SESSION_CONTINUE;
}

enum session_result session_end(struct session *session, const struct session_ending *ending,
				struct session_outcome *outcome_r)
{
	enum session_result result = SESSION_CONTINUE;

	sender_change_init(&outcome_r->change);
	if (ending->queue_id != NULL)
		copy(session->queue_id, sizeof(session->queue_id), ending->queue_id);
	if (session->conf == NULL)
		return SESSION_CONTINUE;
	if (session->refused.code[0] != '\0') {
		outcome_r->reply = session->refused;
		result = SESSION_REFUSE;
	} else {
		result = finish(session, ending, outcome_r);
	}
	session_abort(session);
	return result;
}
