#include "token/identity_private.h"

#include "alarm/alarm.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

enum {
	STORE_WAIT_MS = 3000,	 /* for the disk, before the token is served all the same */
	KEPT_MOST_S = 2 * 86400, /* a kept token that claims to live longer: a clock is wrong */
};

/* What tokens belong to: any change makes them useless. */
static void put_owner(const struct identity *identity, struct buf *owner)
{
	const struct conf_tenant *conf = identity->conf;

	(void)buf_addf(owner, "%s %s %s %s", conf->client_id, conf->token_endpoint, conf->scope,
		       identity->mailbox == NULL ? "-" : identity->mailbox->address);
}

enum { OWNER_MAX = 5000 };

void identity_load(struct identity *identity)
{
	struct buf owner = BUF_INIT(OWNER_MAX);
	struct vault_entry entry = {.refreshed_s = 0};
	struct err err = ERR_INIT;
	int64_t left_s;

	put_owner(identity, &owner);
	entry.owner = buf_text(&owner);
	if (vault_read(identity->parts.vault, identity->key, &entry, &err) < 0)
		log_say(EV_WARNING, "%s: its tokens are not taken: %s", identity->name, err.text);
	left_s = entry.expires_s - clock_wall_ms() / 1000;
	if (identity->mailbox != NULL && secret_is_set(&entry.refresh)) {
		secret_move(&identity->refresh, &entry.refresh);
		identity->refreshed_wall_ms = entry.refreshed_s * 1000;
	}
	if (secret_is_set(&entry.access) && left_s > 0 && left_s < KEPT_MOST_S) {
		secret_move(&identity->token, &entry.access);
		identity->expires_wall_ms = entry.expires_s * 1000;
		identity->expires_boot_ms = clock_boot_ms() + left_s * 1000;
		identity->kept = true;
		claims_read(&identity->token, identity->conf, identity->mailbox,
			    &identity->claims);
	}
	secret_clear(&entry.refresh);
	secret_clear(&entry.access);
	buf_clear(&owner);
}

static void serve_fresh(struct identity *identity)
{
	loop_timer_stop(identity->parts.loop, &identity->store_timer);
	identity->storing = false;
	secret_move(&identity->token, &identity->fresh);
	identity->expires_boot_ms = identity->fresh_expires_boot_ms;
	identity->expires_wall_ms = identity->fresh_expires_wall_ms;
	identity->kept = false;
}

/* It was waited for. */
static void serve_stored(struct identity *identity)
{
	serve_fresh(identity);
	identity_tell_all(identity);
	identity_tell_renewed(identity);
}

static void tell_alarm(const struct identity *identity, const char *problem)
{
	char id[ALARM_ID_MAX], what[ALARM_TEXT_MAX];

	(void)snprintf(id, sizeof(id), "vault/%s", identity->name);
	if (problem == NULL) {
		alarm_clear(id);
		return;
	}
	(void)snprintf(what, sizeof(what),
		       "the tokens of %s are kept in memory only, and a restart of "
		       "relay365-tokend would lose them: %s",
		       identity->name, problem);
	log_say(EV_FAULT, "%s", what);
	alarm_raise(id, 1, what,
		    "make room on the disk of state_dir, or mend its permissions; the tokens are "
		    "written with the next renewal");
}

static void on_stored(void *arg, const char *problem)
{
	struct identity *identity = arg;

	tell_alarm(identity, problem);
	if (identity->storing)
		serve_stored(identity);
}

static void on_store_timer(struct loop_timer *timer)
{
	struct identity *identity = timer->owner;

	log_say(EV_WARNING,
		"%s: the disk of state_dir takes longer than %d s to store a new refresh token; "
		"the access token is used meanwhile",
		identity->name, STORE_WAIT_MS / 1000);
	serve_stored(identity);
}

void identity_keep(struct identity *identity, struct secret *token, int64_t life_ms, bool wait)
{
	struct buf owner = BUF_INIT(OWNER_MAX);
	struct vault_entry entry = {.refreshed_s = identity->refreshed_wall_ms / 1000,
				    .refresh = identity->refresh};

	secret_move(&identity->fresh, token);
	identity->fresh_expires_boot_ms = clock_boot_ms() + life_ms;
	identity->fresh_expires_wall_ms = clock_wall_ms() + life_ms;
	put_owner(identity, &owner);
	entry.owner = buf_text(&owner);
	entry.access = identity->fresh;
	entry.expires_s = identity->fresh_expires_wall_ms / 1000;
	identity->storing = wait;
	vault_write(identity->parts.vault, identity->key, &entry, on_stored, identity);
	buf_clear(&owner);
	if (!wait) {
		serve_fresh(identity);
		return;
	}
	identity->store_timer.due = on_store_timer;
	identity->store_timer.owner = identity;
	loop_timer_in(identity->parts.loop, &identity->store_timer, STORE_WAIT_MS);
}

bool identity_is_storing(const struct identity *identity)
{
	return identity->storing;
}

void identity_stop_keep(struct identity *identity)
{
	vault_forget(identity->parts.vault, identity);
	if (identity->storing)
		serve_fresh(identity);
}
