#include "token/identity.h"

#include "token/identity_private.h"

#include "token/grant.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "proto/json_time.h"

enum {
	DOUBT_MS = 300000, /* a refusal may cost one token in this time */
	STORING_MS = 1000, /* to the next look, while the disk has not taken the last one */
};

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

bool identity_has_token(const struct identity *identity)
{
	return secret_is_set(&identity->token) &&
	       identity->expires_boot_ms - clock_boot_ms() >= IDENTITY_LEAST_LIFE_MS;
}

int64_t identity_retry_in_ms(const struct identity *identity)
{
	int64_t left = identity->timer.at_boot_ms - clock_boot_ms();

	return identity->timer.place == 0 || left < 1000 ? 1000 : left;
}

static void tell(struct identity *identity, struct identity_waiter *waiter)
{
	struct identity_token token = {identity->token.data, identity->token.len,
				       identity->expires_wall_ms};

	if (identity_has_token(identity))
		waiter->done(waiter, &token, NULL, 0);
	else
		waiter->done(waiter, NULL,
			     identity->reason[0] != '\0'
				     ? identity->reason
				     : "the token that came has ended before it could be used",
			     identity_retry_in_ms(identity));
}

void identity_tell_all(struct identity *identity)
{
	while (identity->first != NULL) {
		struct identity_waiter *waiter = identity->first;

		unlink_waiter(waiter);
		tell(identity, waiter);
	}
}

void identity_tell_renewed(struct identity *identity)
{
	if (identity->parts.renewed != NULL && identity_has_token(identity))
		identity->parts.renewed(identity->parts.arg, identity);
}

void identity_get(struct identity *identity, struct identity_waiter *waiter)
{
	bool failing = identity->failures > 0 && identity->ticket.state == TICKET_NONE;

	/* A changed credential may have been mended: don't make the admin wait for the timer. */
	if (failing && !identity_has_token(identity) &&
	    grant_fingerprint(identity->conf) != identity->fingerprint)
		failing = false;
	if (identity_has_token(identity) || failing) {
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
	identity_fetch(identity);
}

void identity_doubt(struct identity *identity)
{
	int64_t now_ms = clock_boot_ms();
	struct log_line line;

	if (!identity_has_token(identity) || identity->ticket.state != TICKET_NONE ||
	    identity->storing || identity->failures > 0)
		return;
	if (identity->doubted_boot_ms != 0 && now_ms - identity->doubted_boot_ms < DOUBT_MS)
		return;
	identity->doubted_boot_ms = now_ms;
	log_begin(&line, EV_TOKEN, NULL);
	log_str(&line, "tenant", identity->name);
	log_str(&line, "result", "doubted");
	log_str(&line, "reason", "Exchange does not accept the token; another one is fetched");
	log_end(&line);
	/* Not here: who calls has an answer to give first, and files are read for a request. */
	loop_timer_in(identity->parts.loop, &identity->timer, 0);
}

/* ---- life ---- */

static void on_timer(struct loop_timer *timer)
{
	struct identity *identity = timer->owner;

	/* The next one must not overtake this one on its way to the disk. */
	if (identity->storing)
		loop_timer_in(identity->parts.loop, timer, STORING_MS);
	else
		identity_fetch(identity);
}

void identity_key(const struct conf_tenant *conf, const struct conf_mailbox *mailbox,
		  char key_r[VAULT_NAME_MAX + 1])
{
	(void)snprintf(key_r, VAULT_NAME_MAX + 1, "%s-%s", conf->delegated ? "mailbox" : "tenant",
		       conf->delegated ? mailbox->name : conf->name);
}

struct identity *identity_new(const struct identity_parts *parts, const struct conf_tenant *conf,
			      const struct conf_mailbox *mailbox)
{
	struct identity *identity = xcalloc(1, sizeof(*identity));

	identity->parts = *parts;
	identity->conf = conf;
	identity->mailbox = mailbox;
	identity_key(conf, mailbox, identity->key);
	(void)snprintf(identity->name, sizeof(identity->name), "%s%s",
		       mailbox == NULL ? "" : "mailbox/",
		       mailbox == NULL ? conf->name : mailbox->name);
	identity->timer.due = on_timer;
	identity->timer.owner = identity;
	identity_load(identity);
	identity_fetch(identity);
	return identity;
}

void identity_free(struct identity **identity)
{
	struct identity *i = *identity;

	if (i == NULL)
		return;
	identity_stop_fetch(i);
	identity_stop_keep(i);
	loop_timer_stop(i->parts.loop, &i->timer);
	(void)snprintf(i->reason, sizeof(i->reason),
		       "the configuration was read again; ask once more");
	secret_clear(&i->token);
	identity_tell_all(i);
	secret_clear(&i->refresh);
	free(i);
	*identity = NULL;
}

static bool same_grant(const struct identity *identity, const struct conf_tenant *b,
		       const struct conf_mailbox *mailbox)
{
	const struct conf_tenant *a = identity->conf;

	return strcmp(a->token_endpoint, b->token_endpoint) == 0 &&
	       strcmp(a->client_id, b->client_id) == 0 && strcmp(a->scope, b->scope) == 0 &&
	       (mailbox == NULL || strcmp(mailbox->address, identity->mailbox->address) == 0);
}

static bool same_path(const char *a, const char *b)
{
	return strcmp(a == NULL ? "" : a, b == NULL ? "" : b) == 0;
}

/* Whether "the next certificate" still means the one that it meant. */
static bool same_certificates(const struct conf_tenant *a, const struct conf_tenant *b)
{
	return same_path(a->certificate, b->certificate) &&
	       same_path(a->next_certificate, b->next_certificate);
}

void identity_configure(struct identity *identity, const struct conf_tenant *conf,
			const struct conf_mailbox *mailbox)
{
	bool same = same_grant(identity, conf, mailbox);

	/* A request under way asks with the old settings. */
	identity_stop_fetch(identity);
	identity_stop_keep(identity);
	if (!same_certificates(identity->conf, conf))
		identity->next = false;
	identity->conf = conf;
	identity->mailbox = mailbox;
	if (!same) {
		secret_clear(&identity->token);
		secret_clear(&identity->refresh);
		identity_load(identity);
	}
	identity->alarmed = false;
	identity->failures = 0;
	identity->tried_both = false;
	if (!identity_has_token(identity) || identity->first != NULL ||
	    identity->timer.place == 0)
		identity_fetch(identity);
}

const char *identity_name(const struct identity *identity)
{
	return identity->name;
}

const char *identity_own_key(const struct identity *identity)
{
	return identity->key;
}

const struct conf_tenant *identity_tenant(const struct identity *identity)
{
	return identity->conf;
}

const char *identity_problem(const struct identity *identity)
{
	return identity_has_token(identity) ? "" : identity->reason;
}

int64_t identity_idle_end_s(const struct identity *identity)
{
	return secret_is_set(&identity->refresh)
		       ? identity->refreshed_wall_ms / 1000 + IDENTITY_IDLE_DAYS * 86400LL
		       : 0;
}

static void add_error(const struct identity *identity, cJSON *json)
{
	cJSON *error = cJSON_AddObjectToObject(json, "last_error");

	(void)cJSON_AddStringToObject(error, "reason", identity->reason);
	(void)cJSON_AddBoolToObject(error, "permanent", identity->permanent);
	if (identity->aadsts != 0)
		(void)cJSON_AddNumberToObject(error, "aadsts", (double)identity->aadsts);
	(void)cJSON_AddNumberToObject(error, "failures", identity->failures);
	json_add_time(error, "at", identity->failed_wall_ms);
	(void)cJSON_AddNumberToObject(error, "retry_in_s",
				      (double)(identity_retry_in_ms(identity) / 1000));
}

static const char *state_of(const struct identity *identity)
{
	if (identity_has_token(identity))
		return "valid";
	if (identity->failures > 0)
		return "error";
	return identity->ticket.state != TICKET_NONE ? "fetching" : "none";
}

cJSON *identity_status(const struct identity *identity)
{
	cJSON *json = cJSON_CreateObject(), *claims;

	(void)cJSON_AddStringToObject(json, "tenant", identity->conf->name);
	if (identity->mailbox != NULL)
		(void)cJSON_AddStringToObject(json, "mailbox", identity->mailbox->name);
	(void)cJSON_AddStringToObject(json, "grant", grant_name(identity->conf));
	(void)cJSON_AddStringToObject(json, "state", state_of(identity));
	if (identity_has_token(identity)) {
		json_add_time(json, "expires_at", identity->expires_wall_ms);
		(void)cJSON_AddNumberToObject(
			json, "expires_in_s",
			(double)((identity->expires_boot_ms - clock_boot_ms()) / 1000));
		(void)cJSON_AddBoolToObject(json, "kept", identity->kept);
		claims = claims_json(&identity->claims);
		if (claims != NULL)
			(void)cJSON_AddItemToObject(json, "claims", claims);
	}
	if (identity->conf->next_certificate != NULL &&
	    identity->conf->next_certificate[0] != '\0')
		(void)cJSON_AddStringToObject(json, "certificate",
					      identity->next ? "next" : "first");
	if (secret_is_set(&identity->refresh))
		json_add_time(json, "sign_in_until", identity_idle_end_s(identity) * 1000);
	(void)cJSON_AddNumberToObject(json, "requests", (double)identity->requests);
	(void)cJSON_AddNumberToObject(json, "waiters", identity->waiters);
	if (identity->failures > 0)
		add_error(identity, json);
	return json;
}
