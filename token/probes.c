#include "token/probes.h"

#include "token/probe.h"

#include "alarm/alarm.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "proto/json_time.h"

enum {
	AT_ONCE = 4,
	AGAIN_MS =
		15 * 60 * 1000, /* while it fails: permissions take 30 to 120 minutes to spread */
};

struct trial {
	struct probes *probes;
	char name[CONF_NAME_MAX + 1];
	const struct conf_mailbox *mailbox; /* NULL: not in the configuration now */
	struct identity *identity;
	bool queued, first; /* first: somebody waits for it */
	bool running;
	struct identity_waiter waiter;
	struct probe *probe;
	struct loop_timer again;
	long long number;     /* of the one that was asked for last */
	long long running_as; /* of the one that runs */
	/* The verdict. */
	long long told; /* its number; 0: none yet */
	bool ok;
	bool refused; /* by the server; else there was no verdict of its */
	int64_t at_wall_ms;
	int64_t took_ms;
	char reply[512];
	char problem[512];
	const struct explanation *what; /* NULL: not known */
	char *transcript;
	struct trial *next;
};

struct probes {
	struct loop *loop;
	struct http *http;
	struct trial *first;
	bool automatic;
	unsigned int running;
	struct loop_timer pump_timer;
};

/* ---- verdicts ---- */

static void log_verdict(const struct trial *trial)
{
	struct log_line line;

	log_begin(&line, EV_PROBE, NULL);
	log_str(&line, "mailbox", trial->name);
	log_str(&line, "result", trial->ok ? "ok" : trial->refused ? "refused" : "error");
	log_int(&line, "took_ms", trial->took_ms);
	if (!trial->ok && trial->reply[0] != '\0')
		log_str(&line, "reply", trial->reply);
	if (trial->what != NULL)
		log_str(&line, "text", trial->what->meaning);
	else if (trial->problem[0] != '\0')
		log_str(&line, "text", trial->problem);
	log_end(&line);
}

static void tell_alarm(const struct trial *trial)
{
	char id[ALARM_ID_MAX], what[ALARM_TEXT_MAX];
	bool lasts = trial->refused &&
		     (trial->what == NULL || trial->what->class != EXPLAIN_TRANSIENT);

	(void)snprintf(id, sizeof(id), "sign-in/%s", trial->name);
	if (trial->ok)
		alarm_clear(id);
	if (!lasts)
		return;
	(void)snprintf(what, sizeof(what),
		       "Exchange does not let mailbox %s sign in, and its mail waits: %s (%s)",
		       trial->name,
		       trial->what == NULL ? "the reason is not known" : trial->what->meaning,
		       trial->reply);
	alarm_raise(id, 1, what,
		    trial->what == NULL ? "run: relay365 probe --transcript"
					: trial->what->action);
}

/* What a newer token may mend. */
static bool doubts_token(const struct explanation *what)
{
	return what != NULL &&
	       (strcmp(what->id, "5.7.3") == 0 || strcmp(what->id, "5.5.127") == 0);
}

static void pump_soon(struct probes *probes)
{
	loop_timer_in(probes->loop, &probes->pump_timer, 0);
}

static void conclude(struct trial *trial, const struct probe_result *result)
{
	trial->running = false;
	trial->probes->running--;
	trial->told = trial->running_as;
	trial->ok = result->ok;
	trial->at_wall_ms = clock_wall_ms();
	trial->took_ms = result->took_ms;
	(void)snprintf(trial->reply, sizeof(trial->reply), "%s", result->reply);
	(void)snprintf(trial->problem, sizeof(trial->problem), "%s", result->problem);
	trial->refused = !result->ok && result->problem[0] == '\0';
	trial->what = trial->refused ? explain_reply(trial->reply) : NULL;
	free(trial->transcript);
	trial->transcript = xstrdup(result->transcript);
	log_verdict(trial);
	tell_alarm(trial);
	if (doubts_token(trial->what))
		identity_doubt(trial->identity);
	if (!trial->ok && trial->probes->automatic)
		loop_timer_in(trial->probes->loop, &trial->again, AGAIN_MS);
	pump_soon(trial->probes);
}

/* ---- sessions ---- */

static void on_done(void *arg, const struct probe_result *result)
{
	struct trial *trial = arg;

	trial->probe = NULL;
	conclude(trial, result);
}

static void give_up(struct trial *trial, const char *problem)
{
	const struct probe_result none = {.reply = "", .problem = problem, .transcript = ""};

	conclude(trial, &none);
}

static void on_token(struct identity_waiter *waiter, const struct identity_token *token,
		     const char *reason, int64_t retry_after_ms)
{
	struct trial *trial = (struct trial *)((char *)waiter - offsetof(struct trial, waiter));
	const struct conf_tenant *tenant = trial->mailbox->tenant;
	const struct probe_target target = {.host = tenant->smtp_host,
					    .port = (int)tenant->smtp_port,
					    .address = tenant->smtp_address,
					    .ca_file = tenant->ca_file,
					    .user = trial->mailbox->address};
	char text[600];
	struct err err = ERR_INIT;

	(void)retry_after_ms;
	if (token == NULL) {
		(void)snprintf(text, sizeof(text), "there is no token to try: %s", reason);
		give_up(trial, text);
		return;
	}
	trial->probe =
		probe_start(trial->probes->http, &target, token->text, on_done, trial, &err);
	if (trial->probe == NULL)
		give_up(trial, err.text);
}

static struct trial *next_to_run(const struct probes *probes)
{
	struct trial *found = NULL;

	for (struct trial *t = probes->first; t != NULL; t = t->next)
		if (t->queued && !t->running && (found == NULL || (t->first && !found->first)))
			found = t;
	return found;
}

static void on_pump(struct loop_timer *timer)
{
	struct probes *probes = timer->owner;
	struct trial *trial;

	while (probes->running < AT_ONCE && (trial = next_to_run(probes)) != NULL) {
		trial->queued = trial->first = false;
		trial->running = true;
		trial->running_as = trial->number;
		probes->running++;
		loop_timer_stop(probes->loop, &trial->again);
		trial->waiter.done = on_token;
		identity_get(trial->identity, &trial->waiter);
	}
}

static void enqueue(struct trial *trial, bool first)
{
	if (!trial->queued)
		trial->number++;
	trial->queued = true;
	trial->first = trial->first || first;
	pump_soon(trial->probes);
}

static void on_again(struct loop_timer *timer)
{
	enqueue(timer->owner, false);
}

/* ---- asked for ---- */

static struct trial *find(const struct probes *probes, const char *name)
{
	struct trial *trial = probes->first;

	while (trial != NULL && strcmp(trial->name, name) != 0)
		trial = trial->next;
	return trial;
}

void probes_renewed(struct probes *probes, const struct identity *identity)
{
	for (struct trial *t = probes->first; probes->automatic && t != NULL; t = t->next)
		if (t->mailbox != NULL && t->identity == identity)
			enqueue(t, false);
}

long long probes_ask(struct probes *probes, const struct conf_mailbox *mailbox)
{
	struct trial *trial = find(probes, mailbox->name);

	if (trial == NULL || trial->mailbox == NULL)
		return 0;
	/* One that is running began with what is in doubt now. */
	enqueue(trial, true);
	return trial->number;
}

static void add_transcript(cJSON *json, const char *text)
{
	cJSON *list = cJSON_AddArrayToObject(json, "transcript");

	while (*text != '\0') {
		size_t n = strcspn(text, "\n");
		char *line = xstrndup(text, n);

		(void)cJSON_AddItemToArray(list, cJSON_CreateString(line));
		free(line);
		text += n + (text[n] == '\n');
	}
}

/* The verdict as a sentence. */
static void add_text(cJSON *json, const struct trial *trial)
{
	char text[1200];

	if (trial->what != NULL)
		(void)snprintf(text, sizeof(text),
			       "Exchange does not let it sign in: %s; %s (%s)",
			       trial->what->meaning, trial->what->action, trial->reply);
	else if (trial->refused)
		(void)snprintf(text, sizeof(text), "Exchange does not let it sign in: %s",
			       trial->reply);
	else
		(void)snprintf(text, sizeof(text), "signing in could not be tried: %s",
			       trial->problem);
	(void)cJSON_AddStringToObject(json, "text", text);
}

cJSON *probes_verdict(const struct probes *probes, const char *name, long long number,
		      bool transcript)
{
	const struct trial *trial = find(probes, name);
	cJSON *json;

	if (trial == NULL || trial->told == 0 || trial->told < number)
		return NULL;
	json = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(json, "result",
				      trial->ok	       ? "ok"
				      : trial->refused ? "refused"
						       : "error");
	json_add_time(json, "at", trial->at_wall_ms);
	(void)cJSON_AddNumberToObject(json, "took_ms", (double)trial->took_ms);
	if (trial->reply[0] != '\0')
		(void)cJSON_AddStringToObject(json, "reply", trial->reply);
	if (trial->problem[0] != '\0')
		(void)cJSON_AddStringToObject(json, "problem", trial->problem);
	if (!trial->ok)
		add_text(json, trial);
	if (trial->what != NULL) {
		(void)cJSON_AddStringToObject(json, "class",
					      explain_class_name(trial->what->class));
		(void)cJSON_AddStringToObject(json, "meaning", trial->what->meaning);
		(void)cJSON_AddStringToObject(json, "action", trial->what->action);
	}
	if (transcript)
		add_transcript(json, trial->transcript);
	return json;
}

/* ---- life ---- */

static void stop(struct trial *trial)
{
	if (trial->running)
		trial->probes->running--;
	identity_cancel(&trial->waiter);
	probe_abort(&trial->probe);
	loop_timer_stop(trial->probes->loop, &trial->again);
	trial->running = false;
	trial->mailbox = NULL;
	trial->identity = NULL;
}

void probes_stop(struct probes *probes)
{
	for (struct trial *t = probes->first; t != NULL; t = t->next) {
		bool unfinished = t->queued || t->running;

		stop(t);
		t->queued = unfinished;
	}
	loop_timer_stop(probes->loop, &probes->pump_timer);
}

void probes_configure(struct probes *probes, const struct conf *conf,
		      struct identity *(*identity_of)(void *arg, const struct conf_mailbox *m),
		      void *arg)
{
	probes->automatic = conf->probe;
	for (size_t i = 0; i < conf->mailboxes; i++) {
		const struct conf_mailbox *mailbox = &conf->mailbox[i];
		struct trial *trial = find(probes, mailbox->name);

		if (trial == NULL) {
			trial = xcalloc(1, sizeof(*trial));
			trial->probes = probes;
			trial->transcript = xstrdup("");
			(void)snprintf(trial->name, sizeof(trial->name), "%s", mailbox->name);
			trial->again.due = on_again;
			trial->again.owner = trial;
			trial->next = probes->first;
			probes->first = trial;
		}
		trial->mailbox = mailbox;
		trial->identity = identity_of(arg, mailbox);
		/* After a reload a failure is looked at again: an admin was here. */
		if (trial->told != 0 && !trial->ok && probes->automatic)
			enqueue(trial, false);
	}
	for (struct trial *t = probes->first; t != NULL; t = t->next)
		t->queued = t->queued && t->mailbox != NULL;
	pump_soon(probes);
}

struct probes *probes_new(struct loop *loop, struct http *http)
{
	struct probes *probes = xcalloc(1, sizeof(*probes));

	probes->loop = loop;
	probes->http = http;
	probes->pump_timer.due = on_pump;
	probes->pump_timer.owner = probes;
	return probes;
}

void probes_free(struct probes **probes)
{
	struct probes *p = *probes;

	if (p == NULL)
		return;
	probes_stop(p);
	while (p->first != NULL) {
		struct trial *trial = p->first;

		p->first = trial->next;
		free(trial->transcript);
		free(trial);
	}
	free(p);
	*probes = NULL;
}
