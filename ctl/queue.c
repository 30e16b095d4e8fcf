/* relay365 queue: who waits, why, until when, and when it would be returned. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/xalloc.h"
#include "ctl/instance.h"
#include "ctl/mailq.h"
#include "ctl/reach.h"
#include "ctl/waiting.h"
#include "proto/control.h"
#include "proto/json_time.h"

enum { REASON_SHOWN = 600 };

/* One queue directory's part of the list. */
struct listing {
	const struct ctl *ctl;
	const cJSON *mailboxes; /* as tokend tells them; NULL: it is down */
	cJSON *messages;
	const char *queue_dir;
	int64_t life_s, bounce_life_s; /* 0: not known */
};

static const cJSON *state_of(const struct listing *listing, const struct conf_mailbox *mailbox)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, listing->mailboxes)
		if (strcmp(ctl_text(item, "name"), mailbox->name) == 0)
			return item;
	return NULL;
}

/* Postfix's own words when it does not even try hide the cause; tokend knows it. */
static bool hides_cause(const char *reason)
{
	return reason[0] == '\0' || strstr(reason, "delivery temporarily suspended") != NULL;
}

/* Each different reason once, with how many recipients have it. */
static cJSON *reasons_of(const cJSON *message, const char *problem)
{
	cJSON *reasons = cJSON_CreateArray(), *item;
	const cJSON *recipient;

	cJSON_ArrayForEach (recipient, cJSON_GetObjectItemCaseSensitive(message, "recipients")) {
		const char *reason = ctl_text(recipient, "delay_reason");
		bool known = false;

		if (problem[0] != '\0' && hides_cause(reason))
			reason = problem;
		cJSON_ArrayForEach (item, reasons) {
			if (strcmp(ctl_text(item, "reason"), reason) != 0)
				continue;
			known = true;
			cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "recipients"),
					     (double)ctl_number(item, "recipients") + 1);
		}
		if (known)
			continue;
		item = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(item, "reason", reason);
		(void)cJSON_AddNumberToObject(item, "recipients", 1);
		(void)cJSON_AddItemToArray(reasons, item);
	}
	return reasons;
}

static void add_message(void *arg, const cJSON *message)
{
	struct listing *listing = arg;
	const char *sender = ctl_text(message, "sender");
	bool bounce = strcmp(sender, "MAILER-DAEMON") == 0;
	const struct conf_mailbox *mailbox =
		conf_mailbox_by_sender(listing->ctl->conf, bounce ? "" : sender);
	const cJSON *state = mailbox == NULL ? NULL : state_of(listing, mailbox);
	bool held = strcmp(ctl_text(message, "queue_name"), "hold") == 0;
	int64_t arrived_s = ctl_number(message, "arrival_time");
	int64_t life_s = bounce ? listing->bounce_life_s : listing->life_s;
	cJSON *item = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(item, "queue_id", ctl_text(message, "queue_id"));
	(void)cJSON_AddStringToObject(item, "queue", ctl_text(message, "queue_name"));
	(void)cJSON_AddStringToObject(item, "queue_directory", listing->queue_dir);
	(void)cJSON_AddStringToObject(item, "sender", bounce ? "" : sender);
	(void)cJSON_AddNumberToObject(
		item, "recipients",
		cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(message, "recipients")));
	if (mailbox != NULL)
		(void)cJSON_AddStringToObject(item, "mailbox", mailbox->name);
	json_add_time(item, "arrived", arrived_s * 1000);
	json_add_time(item, "expires", held || life_s == 0 ? 0 : (arrived_s + life_s) * 1000);
	(void)cJSON_AddStringToObject(item, "until", held ? "" : ctl_text(state, "waits_until"));
	(void)cJSON_AddItemToObject(item, "reasons",
				    reasons_of(message, held ? "" : ctl_text(state, "problem")));
	(void)cJSON_AddItemToArray(listing->messages, item);
}

static void read_lives(struct listing *listing, const char *config_dir)
{
	const char *const args[] = {"-hx", "maximal_queue_lifetime", "bounce_queue_lifetime",
				    NULL};
	struct buf text = BUF_INIT(4096);
	char *second;

	if (instance_run(config_dir, "postconf", args, NULL, &text, NULL) == 0) {
		char *first = xstrdup(buf_text(&text));

		second = first + strcspn(first, "\n");
		if (*second == '\n')
			*second++ = '\0';
		second[strcspn(second, "\n")] = '\0';
		listing->life_s = waiting_time_s(first);
		listing->bounce_life_s = waiting_time_s(second);
		free(first);
	}
	buf_clear(&text);
}

static int add_instance(struct listing *listing, struct err *err)
{
	char *config_dir = instance_config_dir(listing->queue_dir, err);
	int result = -1;

	if (config_dir == NULL)
		return -1;
	read_lives(listing, config_dir);
	result = instance_queue(config_dir, add_message, listing, err);
	free(config_dir);
	return result;
}

/* Sendmail does not tell in which year a message came; it returns it after Timeout.queuereturn.
 */
static void add_item(void *arg, const struct mailq_item *message)
{
	struct listing *listing = arg;
	const struct conf_mailbox *mailbox =
		conf_mailbox_by_sender(listing->ctl->conf, message->sender);
	const cJSON *state = mailbox == NULL ? NULL : state_of(listing, mailbox);
	cJSON *item = cJSON_CreateObject(), *reasons, *reason = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(item, "queue_id", message->id);
	(void)cJSON_AddStringToObject(item, "queue", listing->queue_dir);
	(void)cJSON_AddStringToObject(item, "sender", message->sender);
	(void)cJSON_AddNumberToObject(item, "recipients", message->recipients);
	if (mailbox != NULL)
		(void)cJSON_AddStringToObject(item, "mailbox", mailbox->name);
	json_add_time(item, "expires", 0);
	(void)cJSON_AddStringToObject(item, "until", ctl_text(state, "waits_until"));
	reasons = cJSON_AddArrayToObject(item, "reasons");
	(void)cJSON_AddStringToObject(reason, "reason",
				      ctl_text(state, "problem")[0] != '\0'
					      ? ctl_text(state, "problem")
					      : message->reason);
	(void)cJSON_AddNumberToObject(reason, "recipients", message->recipients);
	(void)cJSON_AddItemToArray(reasons, reason);
	(void)cJSON_AddItemToArray(listing->messages, item);
}

static int add_sendmail(struct listing *listing, const char *command, struct err *err)
{
	listing->queue_dir = "deferred";
	if (mailq_list(command, false, add_item, listing, err) < 0)
		return -1;
	listing->queue_dir = "hold";
	return mailq_list(command, true, add_item, listing, err);
}

static void print_time(const char *what, const char *time)
{
	if (time[0] != '\0')
		(void)printf("    %s %s\n", what, time);
}

static void print_message(const cJSON *message)
{
	const char *mailbox = ctl_text(message, "mailbox");
	const cJSON *item;

	(void)printf("%s  %s  <%s> to %lld recipient%s%s%s%s\n", ctl_text(message, "queue_id"),
		     ctl_text(message, "queue"), ctl_text(message, "sender"),
		     ctl_number(message, "recipients"),
		     ctl_number(message, "recipients") == 1 ? "" : "s",
		     mailbox[0] == '\0' ? "" : ", mailbox ", mailbox,
		     strcmp(ctl_text(message, "queue"), "hold") == 0
			     ? "; relay365 why tells who held it, relay365 release lets it go"
			     : "");
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(message, "reasons"))
		if (ctl_text(item, "reason")[0] != '\0')
			(void)printf("    %.*s\n", REASON_SHOWN, ctl_text(item, "reason"));
	print_time("since", ctl_text(message, "arrived"));
	print_time("waits until", ctl_text(message, "until"));
	print_time("expires", ctl_text(message, "expires"));
}

static int print(const struct ctl *ctl, cJSON *all, int status)
{
	const cJSON *item, *messages = cJSON_GetObjectItemCaseSensitive(all, "messages");

	if (ctl->json)
		return ctl_print_json(all, status);
	ctl_plain(all);
	cJSON_ArrayForEach (item, messages)
		print_message(item);
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(all, "problems"))
		(void)fprintf(stderr, "relay365: %s\n", item->valuestring);
	if (status == CTL_OK && cJSON_GetArraySize(messages) == 0)
		(void)printf("No mail waits.\n");
	cJSON_Delete(all);
	return status;
}

int ctl_queue(const struct ctl *ctl)
{
	const struct conf_list *folders = &ctl->conf->queue_directories;
	cJSON *all = cJSON_CreateObject(), *tokend = NULL, *problems;
	struct listing listing = {.ctl = ctl};
	char *socket = ctl_tokend_socket(ctl->conf);
	const char *sendmail = NULL, **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	const struct ctl_option options[] = {{"--sendmail", NULL, &sendmail}};
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest), status = CTL_OK;
	struct err err = ERR_INIT;
	char *what;

	free(rest);
	if (n != 0) {
		(void)fputs("usage: relay365 [-c FILE] [--json] queue [--sendmail COMMAND]\n",
			    stderr);
		cJSON_Delete(all);
		free(socket);
		return CTL_USAGE;
	}
	listing.messages = cJSON_AddArrayToObject(all, "messages");
	problems = cJSON_AddArrayToObject(all, "problems");
	if (control_call(socket, "status", NULL, NULL, CTL_TIMEOUT_MS, &tokend, &err) < 0) {
		what = reach_text(reach_of(socket), "relay365-tokend");
		(void)err_add(&err, "%s", what);
		free(what);
		(void)cJSON_AddItemToArray(problems, cJSON_CreateString(err.text));
		status = CTL_TRY_LATER;
	}
	listing.mailboxes = cJSON_GetObjectItemCaseSensitive(tokend, "mailboxes");
	sendmail = mailq_command(ctl->conf, sendmail);
	for (size_t i = 0; i < (sendmail == NULL ? folders->count : 1); i++) {
		listing.queue_dir = folders->item[i];
		if ((sendmail != NULL ? add_sendmail(&listing, sendmail, &err)
				      : add_instance(&listing, &err)) == 0)
			continue;
		(void)cJSON_AddItemToArray(problems, cJSON_CreateString(err.text));
		status = CTL_PROBLEM;
	}
	cJSON_Delete(tokend);
	free(socket);
	return print(ctl, all, status);
}
