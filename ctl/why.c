/* relay365 why: what happened to a message, as the mail log tells it. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/clock.h"
#include "base/xalloc.h"
#include "ctl/instance.h"
#include "ctl/maillog.h"
#include "ctl/mailq.h"
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

/* ---- where it is now ---- */

struct search {
	const char *id;
	char queue[32]; /* "": it was found in none */
	char sender[MAILQ_TEXT_MAX];
};

static void found(struct search *search, const char *queue, const char *sender)
{
	(void)snprintf(search->queue, sizeof(search->queue), "%s", queue);
	(void)snprintf(search->sender, sizeof(search->sender), "%s", sender);
}

static void each_queued(void *arg, const cJSON *message)
{
	struct search *search = arg;

	if (strcmp(ctl_text(message, "queue_id"), search->id) == 0)
		found(search, ctl_text(message, "queue_name"), ctl_text(message, "sender"));
}

static void each_waiting(void *arg, const struct mailq_item *item)
{
	struct search *search = arg;

	if (strcmp(item->id, search->id) == 0)
		found(search, "deferred", item->sender);
}

static void each_quarantined(void *arg, const struct mailq_item *item)
{
	struct search *search = arg;

	if (strcmp(item->id, search->id) == 0)
		found(search, "hold", item->sender);
}

static int search_sendmail(struct search *search, const char *command, struct err *err)
{
	if (mailq_list(command, false, each_waiting, search, err) < 0)
		return -1;
	return mailq_list(command, true, each_quarantined, search, err);
}

/* In all instances; one that can't be read does not matter where another has it. */
static int search_postfix(struct search *search, const struct conf_list *folders, struct err *err)
{
	int result = 0;

	for (size_t i = 0; i < folders->count && search->queue[0] == '\0'; i++) {
		char *config_dir = instance_config_dir(folders->item[i], err);

		if (config_dir == NULL ||
		    instance_queue(config_dir, each_queued, search, err) < 0)
			result = -1;
		free(config_dir);
	}
	return search->queue[0] == '\0' ? result : 0;
}

/* Why mail of this sender stays, by what tokend knows of its mailbox. */
static void add_problem(cJSON *now, const struct conf *conf, const char *sender)
{
	const struct conf_mailbox *mailbox = conf_mailbox_by_sender(conf, sender);
	char *socket = ctl_tokend_socket(conf);
	const cJSON *item;
	cJSON *tokend = NULL;

	if (mailbox != NULL &&
	    control_call(socket, "status", NULL, NULL, CTL_TIMEOUT_MS, &tokend, NULL) == 0)
		cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(tokend, "mailboxes"))
			if (strcmp(ctl_text(item, "name"), mailbox->name) == 0 &&
			    ctl_text(item, "problem")[0] != '\0')
				(void)cJSON_AddStringToObject(now, "mailbox_problem",
							      ctl_text(item, "problem"));
	cJSON_Delete(tokend);
	free(socket);
}

/* Adds "queue", null when it is in none; or "queue_unread" and why. Returns the exit status. */
static int add_now(struct story *story, const struct ctl *ctl, const char *sendmail)
{
	struct search search = {.id = story->id};
	const char *command = mailq_command(ctl->conf, sendmail);
	struct err err = ERR_INIT;
	cJSON *now;

	if ((command != NULL
		     ? search_sendmail(&search, command, &err)
		     : search_postfix(&search, &ctl->conf->queue_directories, &err)) < 0) {
		(void)cJSON_AddStringToObject(story->json, "queue_unread", err.text);
		return CTL_PROBLEM;
	}
	if (search.queue[0] == '\0') {
		(void)cJSON_AddNullToObject(story->json, "queue");
		return CTL_OK;
	}
	now = cJSON_AddObjectToObject(story->json, "queue");
	(void)cJSON_AddStringToObject(now, "name", search.queue);
	add_problem(now, ctl->conf, search.sender);
	return CTL_OK;
}

static void print_now(const struct story *story)
{
	const cJSON *queue = cJSON_GetObjectItemCaseSensitive(story->json, "queue");
	const char *name = ctl_text(queue, "name");

	if (queue == NULL)
		(void)printf("Whether it is still in the queue can't be seen: %s\n",
			     ctl_text(story->json, "queue_unread"));
	else if (name[0] == '\0')
		(void)printf("It is not in the queue any more.\n");
	else if (strcmp(name, "hold") == 0)
		(void)printf("It is on hold; to let it go: relay365 release %s\n", story->id);
	else
		(void)printf("It is in the %s queue.\n", name);
	if (ctl_text(queue, "mailbox_problem")[0] != '\0')
		(void)printf("Its mailbox: %s\n", ctl_text(queue, "mailbox_problem"));
}

static void print_text(const struct story *story)
{
	const cJSON *item, *advice = cJSON_GetObjectItemCaseSensitive(story->json, "advice");

	cJSON_ArrayForEach (item, story->steps)
		(void)printf("%s  %s: %.*s\n", ctl_text(item, "at"), ctl_text(item, "program"),
			     TEXT_SHOWN, ctl_text(item, "text"));
	cJSON_ArrayForEach (item, story->recipients)
		(void)printf("%s  to <%s>, attempt %lld: %.*s\n", ctl_text(item, "at"),
			     ctl_text(item, "recipient"), ctl_number(item, "attempts"),
			     TEXT_SHOWN, ctl_text(item, "status"));
	if (story->others > 0)
		(void)printf("and %ld attempts for other recipients\n", story->others);
	print_now(story);
	if (advice != NULL)
		(void)printf("That means: %s; %s.\n", ctl_text(advice, "meaning"),
			     ctl_text(advice, "action"));
}

/* The first is the message's id; what is behind it are more files of the log. */
static int tell(const struct ctl *ctl, const char *const *rest, int n, const char *log,
		const char *sendmail)
{
	const char **files = xcalloc((size_t)n, sizeof(*files));
	struct story story = {.id = rest[0]};
	struct err err = ERR_INIT;
	int status;

	files[0] = log;
	memcpy(files + 1, rest + 1, ((size_t)n - 1) * sizeof(*files));
	if (maillog_read(files, log == NULL ? 0 : (size_t)n, ctl->conf, each_line, &story,
			 &err) == 0 &&
	    story.json == NULL)
		(void)err_set(&err, ERR_PERM, "the mail log has no message \"%s\"", story.id);
	free(files);
	if (err.text[0] != '\0') {
		cJSON_Delete(story.json);
		return ctl_print_error(ctl, &err, CTL_PROBLEM);
	}
	advise(&story);
	status = add_now(&story, ctl, sendmail);
	if (ctl->json)
		return ctl_print_json(story.json, status);
	ctl_plain(story.json);
	print_text(&story);
	cJSON_Delete(story.json);
	return status;
}

int ctl_why(const struct ctl *ctl)
{
	const char *log = NULL, *sendmail = NULL;
	const char **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	const struct ctl_option options[] = {{"--log", NULL, &log},
					     {"--sendmail", NULL, &sendmail}};
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest), status = CTL_USAGE;

	if (n < 1 || (log == NULL && n > 1) || rest[0][0] == '\0' || strlen(rest[0]) > ID_MAX)
		(void)fputs(
			"usage: relay365 [-c FILE] [--json] why QUEUE-ID [--sendmail COMMAND] "
			"[--log FILE...]\n",
			stderr);
	else
		status = tell(ctl, rest, n, log, sendmail);
	free(rest);
	return status;
}
