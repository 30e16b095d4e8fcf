#include "token/sign_in.h"

#include "token/answer.h"
#include "token/assertion.h"
#include "token/form.h"
#include "token/grant.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"

enum {
	INTERVAL_S = 5, /* RFC 8628, section 3.2, when the server names none */
	INTERVAL_MOST_S = 120,
	SLOW_DOWN_S = 5, /* more between two requests, section 3.5 */
	LIFE_MOST_S = 3600,
	BROWSER_LIFE_S = 900,
};

enum state {
	STATE_NONE,
	STATE_STARTING,
	STATE_WAITING,
	STATE_REDEEMING,
	STATE_DONE,
	STATE_FAILED
};

struct sign_in {
	struct identity_parts parts;
	struct identity *identity; /* NULL: nothing is under way */
	const struct conf_mailbox *mailbox;
	enum state state;
	struct http_request *request;
	struct loop_timer timer;
	int64_t until_boot_ms;
	int interval_s;
	struct secret device_code;
	struct secret imported; /* refresh token */
	char verifier[ASSERTION_RANDOM_MAX];
	char nonce[ASSERTION_RANDOM_MAX]; /* "state" of the authorization request */
	char user_code[64];
	char uri[512];
	char message[700];
	char url[GRANT_URL_MAX];
	char reason[768];
};

static void end(struct sign_in *sign_in, enum state state)
{
	http_abort(&sign_in->request);
	loop_timer_stop(sign_in->parts.loop, &sign_in->timer);
	secret_clear(&sign_in->device_code);
	secret_clear(&sign_in->imported);
	explicit_bzero(sign_in->verifier, sizeof(sign_in->verifier));
	sign_in->state = state;
	sign_in->identity = NULL;
	sign_in->mailbox = NULL;
}

static void say(const struct sign_in *sign_in, const char *result, const char *reason)
{
	struct log_line line;

	log_begin(&line, EV_SIGN_IN, NULL);
	log_str(&line, "mailbox", sign_in->mailbox->name);
	log_str(&line, "result", result);
	log_str(&line, "reason", reason);
	log_end(&line);
}

static void fail(struct sign_in *sign_in, const char *reason)
{
	(void)snprintf(sign_in->reason, sizeof(sign_in->reason), "%s", reason);
	say(sign_in, "failed", sign_in->reason);
	end(sign_in, STATE_FAILED);
}

static struct http_request *post(struct sign_in *sign_in, const char *url, struct secret *form,
				 void (*done)(void *arg, const struct http_answer *answer),
				 struct err *err)
{
	const struct conf_tenant *conf = sign_in->mailbox->tenant;
	const struct http_target target = {.url = url,
					   .ca_file = conf->ca_file,
					   .proxy = conf->proxy,
					   .proxy_secret_file = conf->proxy_secret_file};

	return http_send(sign_in->parts.http, &target, form, done, sign_in, err);
}

/* ---- tokens ---- */

static void take_tokens(struct sign_in *sign_in, struct answer *answer, int64_t took_ms)
{
	struct identity *identity = sign_in->identity;

	if (!secret_is_set(&answer->refresh)) {
		answer_clear(answer);
		fail(sign_in, "the endpoint gave no refresh token; scope must contain "
			      "offline_access");
		return;
	}
	say(sign_in, "ok", NULL);
	end(sign_in, STATE_DONE);
	identity_signed_in(identity, answer, took_ms);
}

/* ---- device code ---- */

static void on_poll_answer(void *arg, const struct http_answer *http)
{
	struct sign_in *sign_in = arg;
	struct answer answer;

	sign_in->request = NULL;
	answer_parse(http, &answer);
	if (answer.ok) {
		take_tokens(sign_in, &answer, http->took_ms);
		return;
	}
	if (strcmp(answer.error, "slow_down") == 0)
		sign_in->interval_s += SLOW_DOWN_S;
	else if (http->status == 0) /* "exponential backoff" on a time-out */
		sign_in->interval_s *= 2;
	else if (strcmp(answer.error, "authorization_pending") != 0 && answer.permanent) {
		fail(sign_in, answer.reason);
		return;
	}
	if (sign_in->interval_s > INTERVAL_MOST_S)
		sign_in->interval_s = INTERVAL_MOST_S;
	loop_timer_in(sign_in->parts.loop, &sign_in->timer, sign_in->interval_s * 1000LL);
}

static void on_timer(struct loop_timer *timer)
{
	struct sign_in *sign_in = timer->owner;
	const struct grant grant = {.tenant = sign_in->mailbox->tenant};
	struct secret form = SECRET_INIT;
	struct err err = ERR_INIT;

	if (clock_boot_ms() >= sign_in->until_boot_ms) {
		fail(sign_in, "the time for signing in is over; start again");
		return;
	}
	if (!secret_is_set(&sign_in->device_code))
		return;
	if (grant_device_poll_form(&grant, &sign_in->device_code, clock_wall_ms(), &form, &err) ==
	    0)
		sign_in->request =
			post(sign_in, grant.tenant->token_endpoint, &form, on_poll_answer, &err);
	secret_clear(&form);
	if (sign_in->request == NULL)
		fail(sign_in, err.text);
}

static void copy_text(const cJSON *json, const char *name, char *to, size_t cap)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));
	size_t n = 0;

	/* It goes to a terminal. */
	for (; text != NULL && text[n] != '\0' && n + 1 < cap; n++)
		to[n] = (unsigned char)text[n] < ' ' || text[n] == 0x7f ? ' ' : text[n];
	to[n] = '\0';
}

static int seconds_of(const cJSON *json, const char *name, int fallback, int most)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
	double n = cJSON_IsNumber(item) ? item->valuedouble : 0;

	if (!(n >= 1))
		return fallback;
	return n > most ? most : (int)n;
}

static bool take_device_code(struct sign_in *sign_in, const cJSON *json)
{
	cJSON *code = cJSON_GetObjectItemCaseSensitive(json, "device_code");

	if (!cJSON_IsString(code) || code->valuestring[0] == '\0' ||
	    secret_set(&sign_in->device_code, code->valuestring, strlen(code->valuestring)) < 0)
		return false;
	explicit_bzero(code->valuestring, strlen(code->valuestring));
	copy_text(json, "user_code", sign_in->user_code, sizeof(sign_in->user_code));
	copy_text(json, "verification_uri", sign_in->uri, sizeof(sign_in->uri));
	copy_text(json, "message", sign_in->message, sizeof(sign_in->message));
	sign_in->interval_s = seconds_of(json, "interval", INTERVAL_S, INTERVAL_MOST_S);
	sign_in->until_boot_ms =
		clock_boot_ms() + seconds_of(json, "expires_in", 900, LIFE_MOST_S) * 1000LL;
	return sign_in->user_code[0] != '\0' && sign_in->uri[0] != '\0';
}

static void on_device_answer(void *arg, const struct http_answer *http)
{
	struct sign_in *sign_in = arg;
	cJSON *json =
		http->status == 200 ? cJSON_ParseWithLength(http->body, http->body_len) : NULL;
	struct answer answer;

	sign_in->request = NULL;
	if (cJSON_IsObject(json) && take_device_code(sign_in, json)) {
		sign_in->state = STATE_WAITING;
		loop_timer_in(sign_in->parts.loop, &sign_in->timer, sign_in->interval_s * 1000LL);
	} else if (http->status == 200) {
		fail(sign_in, "device_endpoint's answer is not understood");
	} else {
		answer_parse(http, &answer);
		fail(sign_in, answer.reason);
		answer_clear(&answer);
	}
	cJSON_Delete(json);
}

static void begin(struct sign_in *sign_in, struct identity *identity,
		  const struct conf_mailbox *mailbox)
{
	end(sign_in, STATE_STARTING);
	sign_in->identity = identity;
	sign_in->mailbox = mailbox;
	sign_in->user_code[0] = sign_in->uri[0] = sign_in->message[0] = '\0';
	sign_in->url[0] = sign_in->reason[0] = '\0';
}

int sign_in_device(struct sign_in *sign_in, struct identity *identity,
		   const struct conf_mailbox *mailbox, struct err *err)
{
	struct secret form = SECRET_INIT;

	if (mailbox->tenant->device_endpoint[0] == '\0')
		return err_set(err, ERR_CONFIG,
			       "tenant \"%s\" has no device_endpoint; sign in with a browser: "
			       "relay365 authorize %s --browser",
			       mailbox->tenant->name, mailbox->name);
	begin(sign_in, identity, mailbox);
	if (grant_device_form(mailbox->tenant, &form, err) == 0)
		sign_in->request = post(sign_in, mailbox->tenant->device_endpoint, &form,
					on_device_answer, err);
	secret_clear(&form);
	if (sign_in->request != NULL)
		return 0;
	end(sign_in, STATE_NONE);
	return -1;
}

/* ---- browser ---- */

int sign_in_browser(struct sign_in *sign_in, struct identity *identity,
		    const struct conf_mailbox *mailbox, struct err *err)
{
	char challenge[ASSERTION_RANDOM_MAX];

	if (mailbox->tenant->authorize_endpoint[0] == '\0')
		return err_set(err, ERR_CONFIG, "tenant \"%s\" has no authorize_endpoint",
			       mailbox->tenant->name);
	begin(sign_in, identity, mailbox);
	if (assertion_random(sign_in->verifier) < 0 || assertion_random(sign_in->nonce) < 0 ||
	    assertion_challenge(sign_in->verifier, challenge) < 0) {
		end(sign_in, STATE_NONE);
		return err_set(err, ERR_TEMP, "there are no random numbers to be had");
	}
	if (grant_authorize_url(mailbox->tenant, mailbox->address, sign_in->nonce, challenge,
				sign_in->url, err) < 0) {
		end(sign_in, STATE_NONE);
		return -1;
	}
	sign_in->state = STATE_WAITING;
	sign_in->until_boot_ms = clock_boot_ms() + BROWSER_LIFE_S * 1000LL;
	loop_timer_in(sign_in->parts.loop, &sign_in->timer, BROWSER_LIFE_S * 1000LL);
	return 0;
}

static void on_code_answer(void *arg, const struct http_answer *http)
{
	struct sign_in *sign_in = arg;
	struct answer answer;

	sign_in->request = NULL;
	answer_parse(http, &answer);
	if (answer.ok)
		take_tokens(sign_in, &answer, http->took_ms);
	else
		fail(sign_in, answer.reason);
}

int sign_in_answer(struct sign_in *sign_in, const char *address, struct err *err)
{
	const char *query = strchr(address, '?');
	char code[8192], nonce[ASSERTION_RANDOM_MAX], error[64];
	const struct grant grant = {
		.tenant = sign_in->mailbox == NULL ? NULL : sign_in->mailbox->tenant};
	struct secret form = SECRET_INIT;

	query = query == NULL ? address : query + 1;
	if (sign_in->state != STATE_WAITING || sign_in->url[0] == '\0')
		return err_set(err, ERR_PERM, "no sign-in with a browser is under way");
	if (form_get(query, "state", nonce, sizeof(nonce)) < 0 ||
	    strcmp(nonce, sign_in->nonce) != 0)
		return err_set(
			err, ERR_PERM,
			"this address is not of this sign-in; paste the whole address that "
			"the browser shows last");
	if (form_get(query, "error", error, sizeof(error)) >= 0) {
		const struct explanation *what = explain_oauth_error(error);

		fail(sign_in, what == NULL ? "the sign-in was refused" : what->meaning);
		return 0;
	}
	if (form_get(query, "code", code, sizeof(code)) < 0)
		return err_set(err, ERR_PERM, "this address holds no code");
	sign_in->state = STATE_REDEEMING;
	if (grant_code_form(&grant, code, sign_in->verifier, clock_wall_ms(), &form, err) == 0)
		sign_in->request =
			post(sign_in, grant.tenant->token_endpoint, &form, on_code_answer, err);
	secret_clear(&form);
	explicit_bzero(code, sizeof(code));
	if (sign_in->request != NULL)
		return 0;
	fail(sign_in, err->text);
	return -1;
}

/* ---- another program's refresh token ---- */

static void on_import_answer(void *arg, const struct http_answer *http)
{
	struct sign_in *sign_in = arg;
	char reason[sizeof(sign_in->reason)];
	struct answer answer;

	sign_in->request = NULL;
	answer_parse(http, &answer);
	if (answer.ok) {
		/* Without a new one the old one stays good: RFC 6749, section 6. */
		if (!secret_is_set(&answer.refresh))
			secret_move(&answer.refresh, &sign_in->imported);
		take_tokens(sign_in, &answer, http->took_ms);
		return;
	}
	(void)snprintf(reason, sizeof(reason), "%s%s", answer.reason,
		       strcmp(answer.error, "invalid_grant") == 0
			       ? "; if the token works elsewhere, then for another application: "
				 "client_id must be the one that it was given to"
			       : "");
	fail(sign_in, reason);
	answer_clear(&answer);
}

int sign_in_import(struct sign_in *sign_in, struct identity *identity,
		   const struct conf_mailbox *mailbox, const struct secret *refresh,
		   struct err *err)
{
	const struct grant grant = {.tenant = mailbox->tenant, .refresh = refresh};
	struct secret form = SECRET_INIT;

	begin(sign_in, identity, mailbox);
	if (secret_set(&sign_in->imported, refresh->data, refresh->len) < 0)
		err_set(err, ERR_TEMP, "no memory for the refresh token");
	else if (grant_form(&grant, clock_wall_ms(), &form, err) == 0)
		sign_in->request = post(sign_in, mailbox->tenant->token_endpoint, &form,
					on_import_answer, err);
	secret_clear(&form);
	if (sign_in->request != NULL)
		return 0;
	end(sign_in, STATE_NONE);
	return -1;
}

/* ---- about it ---- */

static void add(cJSON *json, const char *name, const char *text)
{
	if (text[0] != '\0')
		(void)cJSON_AddStringToObject(json, name, text);
}

cJSON *sign_in_status(const struct sign_in *sign_in, bool storing)
{
	static const char *const names[] = {
		[STATE_NONE] = "none",	     [STATE_STARTING] = "starting",
		[STATE_WAITING] = "waiting", [STATE_REDEEMING] = "starting",
		[STATE_DONE] = "done",	     [STATE_FAILED] = "failed"};
	bool early = sign_in->state == STATE_DONE && storing;
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "state",
				      names[early ? STATE_REDEEMING : sign_in->state]);
	if (sign_in->state == STATE_WAITING) {
		add(json, "user_code", sign_in->user_code);
		add(json, "verification_uri", sign_in->uri);
		add(json, "message", sign_in->message);
		add(json, "authorize_url", sign_in->url);
		(void)cJSON_AddNumberToObject(
			json, "seconds_left",
			(double)((sign_in->until_boot_ms - clock_boot_ms()) / 1000));
	}
	if (sign_in->state == STATE_FAILED)
		add(json, "reason", sign_in->reason);
	return json;
}

struct sign_in *sign_in_new(const struct identity_parts *parts)
{
	struct sign_in *sign_in = xcalloc(1, sizeof(*sign_in));

	sign_in->parts = *parts;
	sign_in->timer.due = on_timer;
	sign_in->timer.owner = sign_in;
	return sign_in;
}

void sign_in_stop(struct sign_in *sign_in)
{
	if (sign_in->identity != NULL)
		end(sign_in, STATE_NONE);
}

void sign_in_free(struct sign_in **sign_in)
{
	if (*sign_in == NULL)
		return;
	end(*sign_in, STATE_NONE);
	free(*sign_in);
	*sign_in = NULL;
}
