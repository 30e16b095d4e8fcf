/* relay365 why: what happened to a message, as the mail log tells it. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/clock.h"
#include "base/xalloc.h"
#include "ctl/instance.h"
#include "ctl/maillog.h"
#include "explain/explain.h"
#include "proto/control.h"
#include "proto/json_time.h"

enum { ID_MAX = 64, RECIPIENTS_MAX = 2000, TEXT_SHOWN = 1000 };

/* One message; a queue id that comes again begins another. */
struct story {
	const char *id;
	cJSON *json;
	cJSON *steps;	   /* what the MTA and relay365 did with the message as a whole */
	cJSON *recipients; /* the last attempt of each */
	long others;	   /* recipients beyond RECIPIENTS_MAX */
};

static void begin(struct story *story)
{
	cJSON_Delete(story->json);
	story->json = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(story->json, "queue_id", story->id);
	story->steps = cJSON_AddArrayToObject(story->json, "steps");
	story->recipients = cJSON_AddArrayToObject(story->json, "recipients");
	story->others = 0;
}

static void add_at(cJSON *to, const struct logline *line)
{
	json_add_time(to, "at", line->at_ms);
}

static void add_copy(cJSON *to, const char *name, const struct logtext *text)
{
	char copy[LOGLINE_MAX];

	(void)cJSON_AddStringToObject(to, name, logtext_copy(text, copy, sizeof(copy)));
}

static void add_step(struct story *story, const struct logline *line)
{
	cJSON *step = cJSON_CreateObject();

	add_at(step, line);
	add_copy(step, "program", &line->program);
	add_copy(step, "text", &line->text);
	(void)cJSON_AddItemToArray(story->steps, step);
}

static cJSON *recipient_of(struct story *story, const char *address)
{
	cJSON *item;

	cJSON_ArrayForEach (item, story->recipients)
		if (strcmp(ctl_text(item, "recipient"), address) == 0)
			return item;
	if (cJSON_GetArraySize(story->recipients) == RECIPIENTS_MAX) {
		story->others++;
		return NULL;
	}
	item = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(item, "recipient", address);
	(void)cJSON_AddNumberToObject(item, "attempts", 0);
	(void)cJSON_AddItemToArray(story->recipients, item);
	return item;
}

static void add_attempt(struct story *story, const struct logline *line,
			const struct logtext *address, const struct logtext *status)
{
	char copy[LOGLINE_MAX];
	cJSON *item = recipient_of(story, logtext_copy(address, copy, sizeof(copy)));
	double attempts;

	if (item == NULL)
		return;
	attempts = (double)ctl_number(item, "attempts") + 1;
	cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "attempts"), attempts);
	cJSON_DeleteItemFromObjectCaseSensitive(item, "at");
	cJSON_DeleteItemFromObjectCaseSensitive(item, "status");
	add_at(item, line);
	add_copy(item, "status", status);
}

/* Postfix: "to=<a>, relay=..., status=deferred (...)"; Sendmail: "to=<a>,<b>, ..., stat=...". */
static bool is_attempt(struct story *story, const struct logline *line)
{
	struct logtext list, address, status;

	if (!logtext_begins(&line->text, "to=") || !logline_behind(line, "to", &list))
		return false;
	if (!logline_behind(line, "status", &status) && !logline_behind(line, "stat", &status))
		return false;
	while (logline_next_address(&list, &address))
		add_attempt(story, line, &address, &status);
	return true;
}

/* The line with which an MTA takes a message in. */
static bool is_first(const struct logline *line)
{
	struct logtext value;

	return logtext_begins(&line->text, "client=") || logtext_begins(&line->text, "uid=") ||
	       (logtext_begins(&line->text, "from=") && logline_value(line, "msgid", &value));
}

static void each_line(void *arg, const struct logline *line)
{
	struct story *story = arg;

	if (!logtext_is(&line->id, story->id))
		return;
	if (story->json == NULL || (is_first(line) && cJSON_GetArraySize(story->recipients) > 0))
		begin(story);
	if (!is_attempt(story, line))
		add_step(story, line);
}

/* ---- what it comes to ---- */

static void advise(struct story *story)
{
	const struct explanation *what = NULL;
	const cJSON *item;
	cJSON *advice;

	cJSON_ArrayForEach (item, story->recipients)
		if (strncmp(ctl_text(item, "status"), "sent", 4) != 0 && what == NULL)
			what = explain_line(ctl_text(item, "status"));
	if (what == NULL)
		return;
	advice = cJSON_AddObjectToObject(story->json, "advice");
	(void)cJSON_AddStringToObject(advice, "meaning", what->meaning);
	(void)cJSON_AddStringToObject(advice, "action", what->action);
}

struct search {
	struct story *story;
	cJSON *found;
};

static void each_queued(void *arg, const cJSON *message)
{
	struct search *search = arg;

	if (search->found == NULL &&
	    strcmp(ctl_text(message, "queue_id"), search->story->id) == 0)
		search->found = cJSON_Duplicate(message, true);
}

/* Where it is now, and why it stays, by what tokend knows of its mailbox. */
static void add_now(struct story *story, const struct ctl *ctl)
{
	struct search search = {story, NULL};
	const struct conf_list *folders = &ctl->conf->queue_directories;
	const struct conf_mailbox *mailbox;
	char *socket = ctl_tokend_socket(ctl->conf);
	const cJSON *item;
	cJSON *tokend = NULL, *now;

	for (size_t i = 0; i < folders->count && search.found == NULL; i++) {
		char *config_dir = instance_config_dir(folders->item[i], NULL);

		if (config_dir != NULL)
			(void)instance_queue(config_dir, each_queued, &search, NULL);
		free(config_dir);
	}
	if (search.found == NULL) {
		(void)cJSON_AddNullToObject(story->json, "queue");
		free(socket);
		return;
	}
	now = cJSON_AddObjectToObject(story->json, "queue");
	(void)cJSON_AddStringToObject(now, "name", ctl_text(search.found, "queue_name"));
	mailbox = conf_mailbox_by_sender(ctl->conf, ctl_text(search.found, "sender"));
	if (mailbox != NULL &&
	    control_call(socket, "status", NULL, NULL, CTL_TIMEOUT_MS, &tokend, NULL) == 0)
		cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(tokend, "mailboxes"))
			if (strcmp(ctl_text(item, "name"), mailbox->name) == 0 &&
			    ctl_text(item, "problem")[0] != '\0')
				(void)cJSON_AddStringToObject(now, "mailbox_problem",
							      ctl_text(item, "problem"));
	cJSON_Delete(tokend);
	cJSON_Delete(search.found);
	free(socket);
}

static void print_text(const struct story *story)
{
	const cJSON *item, *advice = cJSON_GetObjectItemCaseSensitive(story->json, "advice");
	const cJSON *queue = cJSON_GetObjectItemCaseSensitive(story->json, "queue");
	const char *name = ctl_text(queue, "name");

	cJSON_ArrayForEach (item, story->steps)
		(void)printf("%s  %s: %.*s\n", ctl_text(item, "at"), ctl_text(item, "program"),
			     TEXT_SHOWN, ctl_text(item, "text"));
	cJSON_ArrayForEach (item, story->recipients)
		(void)printf("%s  to <%s>, attempt %lld: %.*s\n", ctl_text(item, "at"),
			     ctl_text(item, "recipient"), ctl_number(item, "attempts"),
			     TEXT_SHOWN, ctl_text(item, "status"));
	if (story->others > 0)
		(void)printf("and %ld attempts for other recipients\n", story->others);
	if (name[0] == '\0')
		(void)printf("It is not in the queue any more.\n");
	else if (strcmp(name, "hold") == 0)
		(void)printf("It is on hold; to let it go: relay365 release %s\n", story->id);
	else
		(void)printf("It is in the %s queue.\n", name);
	if (ctl_text(queue, "mailbox_problem")[0] != '\0')
		(void)printf("Its mailbox: %s\n", ctl_text(queue, "mailbox_problem"));
	if (advice != NULL)
		(void)printf("That means: %s; %s.\n", ctl_text(advice, "meaning"),
			     ctl_text(advice, "action"));
}

int ctl_why(const struct ctl *ctl)
{
	const char *log = NULL, **rest = xcalloc((size_t)ctl->argc + 2, sizeof(*rest));
	const struct ctl_option options[] = {{"--log", NULL, &log}};
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest), status = CTL_PROBLEM;
	struct story story = {.id = n > 0 ? rest[0] : ""};
	struct err err = ERR_INIT;

	/* Behind --log may come more files. */
	if (n < 1 || (log == NULL && n > 1) || strlen(story.id) > ID_MAX) {
		(void)fputs("usage: relay365 [-c FILE] [--json] why QUEUE-ID [--log FILE...]\n",
			    stderr);
		free(rest);
		return CTL_USAGE;
	}
	rest[0] = log;
	if (maillog_read(rest, log == NULL ? 0 : (size_t)n, each_line, &story, &err) < 0) {
		(void)fprintf(stderr, "relay365: %s\n", err.text);
	} else if (story.json == NULL) {
		(void)fprintf(stderr, "relay365: the mail log has no message \"%s\"\n", story.id);
	} else {
		status = CTL_OK;
		advise(&story);
		add_now(&story, ctl);
	}
	free(rest);
	if (status == CTL_OK && ctl->json)
		return ctl_print_json(story.json, CTL_OK);
	if (status == CTL_OK)
		print_text(&story);
	cJSON_Delete(story.json);
	return status;
}
