#include "token/identity_private.h"

#include "token/grant.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"

enum {
	RETRY_FIRST_MS = 5000, /* after a passing error, doubled each time */
	RETRY_MOST_MS = 300000,
	RETRY_PERMANENT_MS = 300000, /* after one that an admin must mend: Entra counts loops */
	RETRY_AFTER_MOST_MS = 3600000,
	ALARM_FAILURES = 5, /* passing ones in a row, about a minute, before an admin is told */
};

/* Up to a tenth less, so that many identities don't ask at the same moment. */
static int64_t jitter(int64_t ms)
{
	return ms - (int64_t)((double)ms * 0.1 * ((double)(random() % 1000) / 1000.0));
}

static void log_result(const struct identity *identity, const struct answer *answer,
		       int64_t took_ms, int64_t next_ms)
{
	struct log_line line;
	bool alarm = !answer->ok && answer->permanent && !identity->alarmed;

	log_begin(&line, alarm ? EV_TOKEN_ALARM : EV_TOKEN, NULL);
	log_str(&line, "tenant", identity->name);
	log_str(&line, "result", answer->ok ? "ok" : "error");
	log_str(&line, "grant", grant_name(identity->conf));
	if (answer->ok) {
		log_int(&line, "expires_in", answer->expires_in_s);
	} else {
		log_str(&line, "class", explain_class_name(answer->class));
		if (answer->aadsts != 0)
			log_int(&line, "aadsts", answer->aadsts);
		log_int(&line, "retry_in", next_ms / 1000);
		if (answer->correlation_id[0] != '\0')
			log_str(&line, "correlation_id", answer->correlation_id);
		log_str(&line, "reason", answer->reason);
	}
	log_int(&line, "waiters", identity->waiters);
	log_int(&line, "took_ms", took_ms);
	log_end(&line);
}

static void take(struct identity *identity, struct answer *answer)
{
	bool rotated = secret_is_set(&answer->refresh);

	identity->refreshed_wall_ms = clock_wall_ms(); /* using it counts too */
	if (rotated)
		secret_move(&identity->refresh, &answer->refresh);
	claims_read(&answer->token, identity->conf, identity->mailbox, &identity->claims);
	identity_keep(identity, &answer->token, answer->expires_in_s * 1000, rotated);
}

/* A token that ends before mail can use it is an error that passes: asking on is no cure. */
static void refuse_short_life(struct identity *identity, struct answer *answer)
{
	if (!answer->ok || answer->expires_in_s * 1000 >= IDENTITY_SHORT_LIFE_MS)
		return;
	if (secret_is_set(&answer->refresh))
		take(identity, answer);
	answer->ok = false;
	answer->class = EXPLAIN_TRANSIENT;
	answer->action = "find out why the tokens are so short: a token lifetime policy, a proxy";
	(void)snprintf(answer->reason, sizeof(answer->reason),
		       "the token endpoint's token lives %lld s, which is too short to send with",
		       (long long)answer->expires_in_s);
}

static int64_t success(struct identity *identity, struct answer *answer)
{
	identity->failures = 0;
	identity->permanent = identity->alarmed = false;
	identity->reason[0] = '\0';
	identity->aadsts = 0;
	identity->tried_both = false;
	take(identity, answer);
	return jitter(answer_renew_in_ms(answer));
}

static int64_t failure(struct identity *identity, const struct answer *answer)
{
	int64_t next_ms = RETRY_FIRST_MS;

	identity->failures++;
	identity->permanent = answer->permanent;
	identity->aadsts = answer->aadsts;
	identity->failed_wall_ms = clock_wall_ms();
	(void)snprintf(identity->reason, sizeof(identity->reason), "%s", answer->reason);
	if (answer->permanent)
		return jitter(RETRY_PERMANENT_MS);
	for (unsigned int i = 1; i < identity->failures && next_ms < RETRY_MOST_MS; i++)
		next_ms *= 2;
	next_ms = jitter(next_ms > RETRY_MOST_MS ? RETRY_MOST_MS : next_ms);
	if (answer->retry_after_ms > next_ms)
		next_ms = answer->retry_after_ms;
	return next_ms > RETRY_AFTER_MOST_MS ? RETRY_AFTER_MOST_MS : next_ms;
}

/* A fault that passes becomes an alarm too, once it costs mail its token. */
static void tell_alarm(const struct identity *identity, const struct answer *answer)
{
	char id[ALARM_ID_MAX], what[ALARM_TEXT_MAX];

	(void)snprintf(id, sizeof(id), "token/%s", identity->name);
	if (answer->ok) {
		alarm_clear(id);
		return;
	}
	if (!answer->permanent &&
	    (identity_has_token(identity) || identity->failures < ALARM_FAILURES))
		return;
	(void)snprintf(what, sizeof(what),
		       "there is no access token for %s, and its mail waits: %s", identity->name,
		       answer->reason);
	if (identity_has_token(identity))
		(void)snprintf(
			what, sizeof(what),
			"the access token for %s can't be renewed and mail will wait when it "
			"ends: %s",
			identity->name, answer->reason);
	alarm_raise(id, identity_has_token(identity) ? 1 : 2, what, answer->action);
}

/* What another certificate may mend. */
static bool try_other_certificate(struct identity *identity, const struct answer *answer)
{
	const char *next = identity->conf->next_certificate;

	if (answer->ok || next == NULL || next[0] == '\0' || identity->tried_both)
		return false;
	if (!answer->permanent ||
	    (answer->error[0] != '\0' && strcmp(answer->error, "invalid_client") != 0))
		return false;
	identity->tried_both = true;
	identity->next = !identity->next;
	log_say(EV_WARNING, "%s: %s; the %s certificate is tried", identity->name, answer->reason,
		identity->next ? "next" : "first");
	return true;
}

void identity_conclude(struct identity *identity, struct answer *answer, int64_t took_ms)
{
	int64_t next_ms;
	bool ok;

	refuse_short_life(identity, answer);
	ok = answer->ok;
	gate_leave(identity->parts.gate, &identity->ticket);
	if (try_other_certificate(identity, answer)) {
		loop_timer_in(identity->parts.loop, &identity->timer, 0);
		answer_clear(answer);
		return;
	}
	next_ms = ok ? success(identity, answer) : failure(identity, answer);
	if (!ok)
		identity->tried_both = false;
	loop_timer_in(identity->parts.loop, &identity->timer, next_ms);
	log_result(identity, answer, took_ms, next_ms);
	tell_alarm(identity, answer);
	identity->alarmed = !ok && (answer->permanent || identity->alarmed);
	answer_clear(answer);
	if (identity->storing)
		return; /* those who wait hear of it when it is on disk */
	identity_tell_all(identity);
	if (ok)
		identity_tell_renewed(identity);
}

static void on_answer(void *arg, const struct http_answer *http)
{
	struct identity *identity = arg;
	struct answer answer;

	identity->request = NULL;
	answer_parse(http, &answer);
	/* The metadata service says these while it is not ready yet. */
	if (identity->conf->managed_identity && (http->status == 404 || http->status == 410))
		answer.permanent = false;
	identity_conclude(identity, &answer, http->took_ms);
}

static void send_request(struct identity *identity, struct err *err)
{
	const struct conf_tenant *conf = identity->conf;
	const struct grant grant = {conf, identity->next, &identity->refresh};
	struct http_target target = {.url = conf->token_endpoint,
				     .ca_file = conf->ca_file,
				     .proxy = conf->proxy,
				     .proxy_secret_file = conf->proxy_secret_file};
	struct secret form = SECRET_INIT;
	char url[GRANT_URL_MAX];

	if (conf->managed_identity) {
		target.url = url;
		target.proxy = target.proxy_secret_file = "";
		target.header = GRANT_MANAGED_HEADER;
		target.plain = true;
		if (grant_managed_url(conf, url, err) == 0)
			identity->request = http_send(identity->parts.http, &target, NULL,
						      on_answer, identity, err);
	} else if (grant_form(&grant, clock_wall_ms(), &form, err) == 0) {
		identity->request =
			http_send(identity->parts.http, &target, &form, on_answer, identity, err);
	}
	secret_clear(&form);
}

/* No request can be made: nobody has signed in, or a file is not as it should be. */
static void fail_at_once(struct identity *identity, const struct err *err)
{
	struct answer failed = {.permanent = true,
				.class = EXPLAIN_CONFIG,
				.retry_after_ms = -1,
				.action = "correct this, then run: relay365 reload"};
	char action[128];

	(void)snprintf(failed.reason, sizeof(failed.reason), "%s", err->text);
	if (err->class == ERR_TEMP) {
		failed.permanent = false;
		failed.class = EXPLAIN_TRANSIENT;
		failed.action = "see what this machine lacks: memory, file descriptors, a disk";
	}
	if (err->class == ERR_NONE) {
		(void)snprintf(action, sizeof(action), "run: relay365 authorize %s",
			       identity->mailbox->name);
		failed.class = EXPLAIN_SIGN_IN;
		failed.action = action;
		(void)snprintf(failed.reason, sizeof(failed.reason),
			       "nobody has signed in for %s; %s", identity->mailbox->address,
			       action);
	}
	identity_conclude(identity, &failed, 0);
}

static void on_turn(struct gate_ticket *ticket)
{
	struct identity *identity =
		(struct identity *)((char *)ticket - offsetof(struct identity, ticket));
	struct err err = ERR_INIT;

	identity->fingerprint = grant_fingerprint(identity->conf);
	if (identity->conf->delegated && !secret_is_set(&identity->refresh)) {
		fail_at_once(identity, &err);
		return;
	}
	send_request(identity, &err);
	if (identity->request != NULL)
		identity->requests++;
	else
		fail_at_once(identity, &err);
}

void identity_fetch(struct identity *identity)
{
	if (identity->ticket.state != TICKET_NONE || identity->storing)
		return;
	loop_timer_stop(identity->parts.loop, &identity->timer);
	identity->ticket.go = on_turn;
	identity->ticket.tenant = identity->conf->name;
	gate_enter(identity->parts.gate, &identity->ticket);
}

void identity_stop_fetch(struct identity *identity)
{
	http_abort(&identity->request);
	gate_leave(identity->parts.gate, &identity->ticket);
}

void identity_signed_in(struct identity *identity, struct answer *answer, int64_t took_ms)
{
	identity_stop_fetch(identity);
	identity_stop_keep(identity);
	identity_conclude(identity, answer, took_ms);
}
