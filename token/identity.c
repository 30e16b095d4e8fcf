#include "token/identity.h"

#include "token/answer.h"
#include "token/grant.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"

enum {
	RETRY_FIRST_MS = 5000, /* after a passing error, doubled each time */
	RETRY_MOST_MS = 300000,
	RETRY_PERMANENT_MS = 300000, /* after one that an admin must mend: Entra counts loops */
	RETRY_AFTER_MOST_MS = 3600000,
	ALARM_FAILURES = 5, /* passing ones in a row, about a minute, before an admin is told */
	REFRESH_BEFORE_MS = 600000, /* before the end, or half the lifetime if that is less */
};

struct identity {
	struct loop *loop;
	struct http *http;
	const struct conf_tenant *conf;
	char name[CONF_NAME_MAX + 1];

	struct secret token;
	int64_t expires_boot_ms; /* by the boot clock: a wall clock's step changes nothing */
	int64_t expires_wall_ms; /* for people */
	int64_t got_wall_ms;
	int64_t doubted_boot_ms; /* when a refusal last made us fetch another; 0: never */

	struct http_request *request;
	struct loop_timer timer; /* next fetch: renewal or retry */
	uint64_t fingerprint;	 /* of the credential's files, when they were last read */
	unsigned int failures;	 /* in a row */
	bool permanent;
	bool alarmed; /* an admin was told of the trouble that lasts */
	char reason[512];
	char error[64];
	long aadsts;
	int64_t failed_wall_ms;
	unsigned long requests;

	struct identity_waiter *first, *last;
	unsigned int waiters;
};

static void fetch(struct identity *identity);

/* ---- who waits ---- */

static void unlink_waiter(struct identity_waiter *waiter)
{
	struct identity *identity = waiter->identity;

	if (waiter->prev != NULL)
		waiter->prev->next = waiter->next;
	else
		identity->first = waiter->next;
	if (waiter->next != NULL)
		waiter->next->prev = waiter->prev;
	else
		identity->last = waiter->prev;
	waiter->next = waiter->prev = NULL;
	waiter->identity = NULL;
	identity->waiters--;
}

void identity_cancel(struct identity_waiter *waiter)
{
	if (waiter->identity != NULL)
		unlink_waiter(waiter);
}

static bool has_token(const struct identity *identity)
{
	return secret_is_set(&identity->token) &&
	       identity->expires_boot_ms - clock_boot_ms() >= IDENTITY_LEAST_LIFE_MS;
}

static int64_t retry_in_ms(const struct identity *identity)
{
	int64_t left = identity->timer.at_boot_ms - clock_boot_ms();

	return identity->timer.place == 0 || left < 1000 ? 1000 : left;
}

static void tell(struct identity *identity, struct identity_waiter *waiter)
{
	struct identity_token token = {identity->token.data, identity->token.len,
				       identity->expires_wall_ms};

	if (has_token(identity))
		waiter->done(waiter, &token, NULL, 0);
	else
		waiter->done(waiter, NULL, identity->reason, retry_in_ms(identity));
}

static void tell_all(struct identity *identity)
{
	while (identity->first != NULL) {
		struct identity_waiter *waiter = identity->first;

		unlink_waiter(waiter);
		tell(identity, waiter);
	}
}

void identity_get(struct identity *identity, struct identity_waiter *waiter)
{
	bool failing = identity->failures > 0 && identity->request == NULL;

	/* A changed credential may have been mended: don't make the admin wait for the timer. */
	if (failing && !has_token(identity) &&
	    grant_fingerprint(identity->conf) != identity->fingerprint)
		failing = false;
	if (has_token(identity) || failing) {
		tell(identity, waiter);
		return;
	}
	waiter->identity = identity;
	waiter->next = NULL;
	waiter->prev = identity->last;
	if (identity->last != NULL)
		identity->last->next = waiter;
	else
		identity->first = waiter;
	identity->last = waiter;
	identity->waiters++;
	fetch(identity);
}

/* ---- fetching ---- */

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

static int64_t success(struct identity *identity, struct answer *answer)
{
	int64_t life_ms = answer->expires_in_s * 1000;
	int64_t before_ms = life_ms / 2 < REFRESH_BEFORE_MS ? life_ms / 2 : REFRESH_BEFORE_MS;
	int64_t next_ms = life_ms - before_ms;

	if (answer->refresh_in_s > 0 && answer->refresh_in_s * 1000 < next_ms)
		next_ms = answer->refresh_in_s * 1000;
	secret_move(&identity->token, &answer->token);
	identity->got_wall_ms = clock_wall_ms();
	identity->expires_wall_ms = identity->got_wall_ms + life_ms;
	identity->expires_boot_ms = clock_boot_ms() + life_ms;
	identity->failures = 0;
	identity->permanent = identity->alarmed = false;
	identity->reason[0] = identity->error[0] = '\0';
	identity->aadsts = 0;
	return jitter(next_ms);
}

static int64_t failure(struct identity *identity, const struct answer *answer)
{
	int64_t next_ms = RETRY_FIRST_MS;

	identity->failures++;
	identity->permanent = answer->permanent;
	identity->aadsts = answer->aadsts;
	identity->failed_wall_ms = clock_wall_ms();
	(void)snprintf(identity->reason, sizeof(identity->reason), "%s", answer->reason);
	(void)snprintf(identity->error, sizeof(identity->error), "%s", answer->error);
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
	if (!answer->permanent && (has_token(identity) || identity->failures < ALARM_FAILURES))
		return;
	(void)snprintf(what, sizeof(what),
		       "there is no access token for %s, and its mail waits: %s", identity->name,
		       answer->reason);
	if (has_token(identity))
		(void)snprintf(
			what, sizeof(what),
			"the access token for %s can't be renewed and mail will wait when it "
			"ends: %s",
			identity->name, answer->reason);
	alarm_raise(id, has_token(identity) ? 1 : 2, what, answer->action);
}

static void conclude(struct identity *identity, struct answer *answer, int64_t took_ms)
{
	int64_t next_ms = answer->ok ? success(identity, answer) : failure(identity, answer);

	secret_clear(&answer->token);
	loop_timer_in(identity->loop, &identity->timer, next_ms);
	log_result(identity, answer, took_ms, next_ms);
	tell_alarm(identity, answer);
	identity->alarmed = !answer->ok && (answer->permanent || identity->alarmed);
	tell_all(identity);
}

static void on_answer(void *arg, const struct http_answer *http)
{
	struct identity *identity = arg;
	struct answer answer;

	identity->request = NULL;
	answer_parse(http, &answer);
	conclude(identity, &answer, http->took_ms);
}

static void fetch(struct identity *identity)
{
	const struct conf_tenant *conf = identity->conf;
	const struct http_target target = {
		.url = conf->token_endpoint, .ca_file = conf->ca_file, .proxy = conf->proxy};
	struct secret form = SECRET_INIT;
	struct answer failed = {.permanent = true,
				.class = EXPLAIN_CONFIG,
				.retry_after_ms = -1,
				.action = "correct this, then run: relay365 reload"};
	struct err err = ERR_INIT;

	if (identity->request != NULL)
		return;
	loop_timer_stop(identity->loop, &identity->timer);
	identity->fingerprint = grant_fingerprint(conf);
	if (grant_form(conf, clock_wall_ms(), &form, &err) == 0) {
		identity->requests++;
		identity->request =
			http_send(identity->http, &target, &form, on_answer, identity, &err);
	}
	secret_clear(&form);
	if (identity->request != NULL)
		return;
	(void)snprintf(failed.reason, sizeof(failed.reason), "%s", err.text);
	conclude(identity, &failed, 0);
}

static void on_timer(struct loop_timer *timer)
{
	fetch(timer->owner);
}

void identity_doubt(struct identity *identity)
{
	int64_t now_ms = clock_boot_ms();
	struct log_line line;

	if (!has_token(identity) || identity->request != NULL || identity->failures > 0)
		return;
	if (identity->doubted_boot_ms != 0 &&
	    now_ms - identity->doubted_boot_ms < RETRY_PERMANENT_MS)
		return;
	identity->doubted_boot_ms = now_ms;
	log_begin(&line, EV_TOKEN, NULL);
	log_str(&line, "tenant", identity->name);
	log_str(&line, "result", "doubted");
	log_str(&line, "reason", "Exchange does not accept the token; another one is fetched");
	log_end(&line);
	/* Not here: who calls has an answer to give first, and files are read for a request. */
	loop_timer_in(identity->loop, &identity->timer, 0);
}

/* ---- life ---- */

struct identity *identity_new(struct loop *loop, struct http *http,
			      const struct conf_tenant *conf)
{
	struct identity *identity = xcalloc(1, sizeof(*identity));

	identity->loop = loop;
	identity->http = http;
	identity->conf = conf;
	(void)snprintf(identity->name, sizeof(identity->name), "%s", conf->name);
	identity->timer.due = on_timer;
	identity->timer.owner = identity;
	fetch(identity);
	return identity;
}

void identity_free(struct identity **identity)
{
	struct identity *i = *identity;

	if (i == NULL)
		return;
	http_abort(&i->request);
	loop_timer_stop(i->loop, &i->timer);
	secret_clear(&i->token);
	(void)snprintf(i->reason, sizeof(i->reason), "relay365-tokend is stopping");
	tell_all(i);
	free(i);
	*identity = NULL;
}

static bool same_grant(const struct conf_tenant *a, const struct conf_tenant *b)
{
	return strcmp(a->token_endpoint, b->token_endpoint) == 0 &&
	       strcmp(a->client_id, b->client_id) == 0 && strcmp(a->scope, b->scope) == 0;
}

void identity_configure(struct identity *identity, const struct conf_tenant *conf)
{
	/* A request under way asks with the old settings. */
	if (identity->request != NULL)
		http_abort(&identity->request);
	if (!same_grant(identity->conf, conf))
		secret_clear(&identity->token);
	identity->conf = conf;
	identity->alarmed = false;
	identity->failures = 0;
	if (!has_token(identity) || identity->first != NULL || identity->timer.place == 0)
		fetch(identity);
}

const char *identity_name(const struct identity *identity)
{
	return identity->name;
}

const char *identity_problem(const struct identity *identity)
{
	return has_token(identity) ? "" : identity->reason;
}

static void add_time(cJSON *json, const char *name, int64_t wall_ms)
{
	char text[CLOCK_TEXT_MAX];

	(void)cJSON_AddStringToObject(json, name, clock_rfc3339(wall_ms, text));
}

cJSON *identity_status(const struct identity *identity)
{
	cJSON *json = cJSON_CreateObject();
	bool ok = has_token(identity);

	(void)cJSON_AddStringToObject(json, "tenant", identity->name);
	(void)cJSON_AddStringToObject(json, "grant", grant_name(identity->conf));
	(void)cJSON_AddStringToObject(json, "state",
				      ok			  ? "valid"
				      : identity->failures > 0	  ? "error"
				      : identity->request != NULL ? "fetching"
								  : "none");
	if (ok) {
		add_time(json, "expires_at", identity->expires_wall_ms);
		(void)cJSON_AddNumberToObject(
			json, "expires_in_s",
			(double)((identity->expires_boot_ms - clock_boot_ms()) / 1000));
	}
	(void)cJSON_AddNumberToObject(json, "requests", (double)identity->requests);
	(void)cJSON_AddNumberToObject(json, "waiters", identity->waiters);
	if (identity->failures > 0) {
		cJSON *error = cJSON_AddObjectToObject(json, "last_error");

		(void)cJSON_AddStringToObject(error, "reason", identity->reason);
		(void)cJSON_AddBoolToObject(error, "permanent", identity->permanent);
		if (identity->aadsts != 0)
			(void)cJSON_AddNumberToObject(error, "aadsts", (double)identity->aadsts);
		(void)cJSON_AddNumberToObject(error, "failures", identity->failures);
		add_time(error, "at", identity->failed_wall_ms);
		(void)cJSON_AddNumberToObject(error, "retry_in_s",
					      (double)(retry_in_ms(identity) / 1000));
	}
	return json;
}
