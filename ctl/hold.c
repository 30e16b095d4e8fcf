/*
 * relay365 hold and release: mail that is queued is kept back, and let go. A
 * message belongs to a mailbox by its sender, and to a source by what Postfix
 * has written into its queue file.
 */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"
#include "ctl/instance.h"
#include "ctl/maillog.h"
#include "ctl/mailq.h"
#include "quota/locks.h"

#include <strings.h>

enum { ID_MAX = 64, IDS_AT_ONCE = 1000, ENVELOPE_MAX = 4 << 20 };

/* What the log tells of a message that the milter has put on hold. */
struct evidence {
	char id[ID_MAX];
	char *why;
};

struct work {
	const struct ctl *ctl;
	bool hold;			 /* else release */
	const char *key;		 /* as the admin gave it; NULL: only list */
	char lock_key[LOCK_KEY_MAX + 1]; /* the same as locks_key() tells it; "" for a queue id */
	bool any;			 /* also what the milter has not put on hold */
	bool log_read;			 /* else nobody knows who held it */
	struct evidence *evidence;
	size_t known;
	cJSON *messages; /* those that it is about */
	struct buf ids;	 /* those of one instance, one a line */
	size_t count;
	bool already; /* the message that is to be held is on hold */
	const char *config_dir;
	const char *queue_dir;
};

/* ---- the log ---- */

static void each_line(void *arg, const struct logline *line)
{
	struct work *work = arg;
	struct evidence *e;

	if (line->id.len == 0 || !logtext_begins(&line->text, "hold ") ||
	    !logtext_begins(&line->program, "relay365"))
		return;
	if ((work->known & (work->known - 1)) == 0)
		work->evidence = xreallocarray(
			work->evidence, work->known == 0 ? 1 : work->known * 2, sizeof(*e));
	e = &work->evidence[work->known++];
	(void)logtext_copy(&line->id, e->id, sizeof(e->id));
	e->why = xstrndup(line->text.data, line->text.len);
}

static const char *why_held(const struct work *work, const char *id)
{
	for (size_t i = work->known; i > 0; i--) /* the latest: ids come again */
		if (strcmp(work->evidence[i - 1].id, id) == 0)
			return work->evidence[i - 1].why;
	return NULL;
}

/* ---- whose a message is ---- */

static void copy_attribute(const char *envelope, const char *name, char *out, size_t cap)
{
	const char *at = strstr(envelope, name);

	out[0] = '\0';
	if (at != NULL)
		(void)snprintf(out, cap, "%.*s", (int)strcspn(at + strlen(name), "\n"),
			       at + strlen(name));
}

/* Whether a lock of this key would concern the source of the queue file. */
static bool is_of_source(const struct work *work, const char *id, const char *sender)
{
	const char *const args[] = {"-eq", id, NULL};
	const char *wanted = work->lock_key + strlen(LOCK_SOURCE);
	struct buf envelope = BUF_INIT(ENVELOPE_MAX);
	const struct conf_source *source;
	char login[320], client[64], user[320];
	bool same = false, local;

	if (instance_run(work->config_dir, "postcat", args, NULL, &envelope, NULL) == 0) {
		copy_attribute(buf_text(&envelope), "\nnamed_attribute: sasl_username=", login,
			       sizeof(login));
		copy_attribute(buf_text(&envelope),
			       "\nnamed_attribute: log_client_address=", client, sizeof(client));
		(void)snprintf(user, sizeof(user), "%.*s", (int)strcspn(sender, "@"), sender);
		local = client[0] == '\0';
		source = conf_source_of(work->ctl->conf, login, local ? NULL : client,
					local ? user : NULL);
		same = (source != NULL && strcasecmp(source->name, wanted) == 0) ||
		       strcasecmp(login, wanted) == 0 || strcasecmp(client, wanted) == 0 ||
		       (local && source == NULL && strcmp(wanted, "local") == 0);
	}
	buf_clear(&envelope);
	return same;
}

static bool is_wanted(const struct work *work, const char *id, const char *sender)
{
	const struct conf_mailbox *mailbox;

	if (work->key == NULL)
		return true;
	if (work->lock_key[0] == '\0')
		return strcmp(work->key, id) == 0;
	if (strncmp(work->lock_key, LOCK_SOURCE, strlen(LOCK_SOURCE)) == 0)
		return is_of_source(work, id, sender);
	mailbox = conf_mailbox_by_sender(work->ctl->conf, sender);
	return mailbox != NULL &&
	       strcasecmp(mailbox->address, work->lock_key + strlen(LOCK_MAILBOX)) == 0;
}

static void each_message(void *arg, const cJSON *message)
{
	struct work *work = arg;
	const char *id = ctl_text(message, "queue_id");
	const char *sender = ctl_text(message, "sender");
	const char *why = why_held(work, id);
	bool held = strcmp(ctl_text(message, "queue_name"), "hold") == 0;
	char since[CLOCK_TEXT_MAX];
	cJSON *item;

	if (strcmp(sender, "MAILER-DAEMON") == 0)
		sender = "";
	if (!is_wanted(work, id, sender))
		return;
	if (held == work->hold) {
		work->already |= work->hold && work->lock_key[0] == '\0';
		return;
	}
	/* Who names one message means it; a key only means what relay365 has held. */
	if (!work->hold && why == NULL && !work->any && work->lock_key[0] != '\0')
		return;
	item = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(item, "queue_id", id);
	(void)cJSON_AddStringToObject(item, "queue_directory", work->queue_dir);
	(void)cJSON_AddStringToObject(item, "sender", sender);
	(void)cJSON_AddNumberToObject(
		item, "recipients",
		cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(message, "recipients")));
	(void)cJSON_AddStringToObject(
		item, "arrived",
		clock_rfc3339(ctl_number(message, "arrival_time") * 1000, since));
	if (why != NULL)
		(void)cJSON_AddStringToObject(item, "why", why);
	(void)cJSON_AddItemToArray(work->messages, item);
	(void)buf_addf(&work->ids, "%s\n", id);
	work->count++;
}

/* ---- Sendmail ---- */

/* By its sender, or by the reason that the milter gave: "source erp: 500 of 500 ...". */
static bool is_wanted_item(const struct work *work, const struct mailq_item *item)
{
	static const char source[] = "source ";
	const char *wanted = work->lock_key + strlen(LOCK_SOURCE), *name = item->reason;

	if (strncmp(work->lock_key, LOCK_SOURCE, strlen(LOCK_SOURCE)) != 0)
		return is_wanted(work, item->id, item->sender);
	if (strncmp(name, source, sizeof(source) - 1) != 0)
		return false;
	name += sizeof(source) - 1;
	return strncasecmp(name, wanted, strlen(wanted)) == 0 && name[strlen(wanted)] == ':';
}

static void each_item(void *arg, const struct mailq_item *item)
{
	struct work *work = arg;
	cJSON *json;

	if (work->key != NULL && !is_wanted_item(work, item))
		return;
	json = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(json, "queue_id", item->id);
	(void)cJSON_AddStringToObject(json, "sender", item->sender);
	(void)cJSON_AddNumberToObject(json, "recipients", item->recipients);
	(void)cJSON_AddStringToObject(json, "why", item->reason);
	(void)cJSON_AddItemToArray(work->messages, json);
	work->count++;
}

static int do_sendmail(struct work *work, const char *command, struct err *err)
{
	const cJSON *item;

	if (mailq_list(command, true, each_item, work, err) < 0)
		return CTL_PROBLEM;
	if (work->key == NULL)
		return CTL_OK;
	cJSON_ArrayForEach (item, work->messages)
		if (mailq_release(command, ctl_text(item, "queue_id"), err) < 0)
			return CTL_PROBLEM;
	return CTL_OK;
}

/* ---- postsuper ---- */

/* Some at a time: they go through a pipe that must hold them. */
static int change(const struct work *work, struct err *err)
{
	const char *const args[] = {work->hold ? "-h" : "-H", "-", NULL};

	for (const char *at = buf_text(&work->ids); *at != '\0';) {
		struct buf part = BUF_INIT(65536), output = BUF_INIT(65536);
		int result;

		for (int n = 0; n < IDS_AT_ONCE && *at != '\0'; n++) {
			size_t len = strcspn(at, "\n") + 1;

			(void)buf_add(&part, at, len);
			at += len;
		}
		result = instance_run(work->config_dir, "postsuper", args, buf_text(&part),
				      &output, err);
		buf_clear(&part);
		buf_clear(&output);
		if (result < 0)
			return -1;
	}
	return 0;
}

/* So that release knows that it was us. */
static void log_held(const struct work *work)
{
	const cJSON *item;
	struct log_line line;

	cJSON_ArrayForEach (item, work->messages) {
		log_begin(&line, EV_HOLD, ctl_text(item, "queue_id"));
		log_str(&line, "by", "admin");
		log_str(&line, "key", work->lock_key[0] == '\0' ? work->key : work->lock_key);
		log_end(&line);
	}
}

static int do_instance(struct work *work, struct err *err)
{
	char *config_dir = instance_config_dir(work->queue_dir, err);
	int result = -1;

	if (config_dir == NULL)
		return -1;
	work->config_dir = config_dir;
	if (instance_queue(config_dir, each_message, work, err) == 0)
		result = work->key == NULL ? 0 : change(work, err);
	buf_clear(&work->ids);
	free(config_dir);
	return result;
}

static int do_all(struct work *work, struct err *err)
{
	const struct conf_list *folders = &work->ctl->conf->queue_directories;

	for (size_t i = 0; i < folders->count; i++) {
		work->queue_dir = folders->item[i];
		if (do_instance(work, err) < 0)
			return err->class == ERR_CONFIG ? CTL_CONFIG : CTL_PROBLEM;
	}
	return CTL_OK;
}

/* ---- the commands ---- */

static void print_text(const struct work *work, int status)
{
	const char *done = work->hold ? "put on hold" : "released";
	const cJSON *item;

	cJSON_ArrayForEach (item, work->messages) {
		const char *since = ctl_text(item, "arrived");

		(void)printf("%s  <%s> to %lld recipient%s%s%s\n", ctl_text(item, "queue_id"),
			     ctl_text(item, "sender"), ctl_number(item, "recipients"),
			     ctl_number(item, "recipients") == 1 ? "" : "s",
			     since[0] == '\0' ? "" : ", since ", since);
		if (ctl_text(item, "why")[0] != '\0')
			(void)printf("    %s\n", ctl_text(item, "why"));
		else if (work->key == NULL && work->log_read)
			(void)printf("    not held by relay365, as far as the log goes\n");
	}
	if (status != CTL_OK)
		return;
	if (work->key != NULL)
		(void)printf("%zu message%s %s\n", work->count, work->count == 1 ? "" : "s",
			     done);
	else if (work->count == 0)
		(void)printf("No mail is held.\n");
}

static int print_json(const struct work *work, int status, const struct err *err)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddItemToObject(json, "messages", work->messages);
	if (err->text[0] != '\0')
		(void)cJSON_AddStringToObject(json, "error", err->text);
	return ctl_print_json(json, status);
}

static int finish(struct work *work, int status, struct err *err)
{

	for (size_t i = 0; i < work->known; i++)
		free(work->evidence[i].why);
	free(work->evidence);
	/* A key may find nothing; a message that is named must be there. */
	if (status == CTL_OK && work->key != NULL && work->lock_key[0] == '\0' &&
	    work->count == 0 && !work->already)
		status = CTL_PROBLEM;
	if (status == CTL_PROBLEM && err->text[0] == '\0')
		(void)err_set(err, ERR_PERM, "no mailbox, source or message %s called \"%s\"",
			      work->hold ? "in the queue is" : "on hold is", work->key);
	if (work->ctl->json)
		return print_json(work, status, err);
	if (err->text[0] != '\0')
		(void)fprintf(stderr, "relay365: %s\n", err->text);
	else if (work->already)
		(void)fprintf(stderr, "relay365: message %s is on hold already\n", work->key);
	ctl_plain(work->messages);
	print_text(work, status);
	cJSON_Delete(work->messages);
	return status;
}

/* A key that the configuration knows, else a queue id. */
static void understand_key(struct work *work)
{
	if (work->key != NULL && locks_key(work->ctl->conf, work->key, work->lock_key, NULL) < 0)
		work->lock_key[0] = '\0';
}

/*
 * Without a log it is not known who held what: that matters to a list and to a key.
 * A log that the admin names must be there.
 */
static int do_postfix(struct work *work, const char *log, struct err *err)
{
	bool needed = log != NULL || (work->lock_key[0] != '\0' && !work->any);
	struct err why = ERR_INIT;
	int status;

	work->log_read = maillog_read(&log, log != NULL ? 1 : 0, work->ctl->conf, each_line, work,
				      &why) == 0;
	if (!work->log_read && needed) {
		*err = why;
		return CTL_PROBLEM;
	}
	status = do_all(work, err);
	if (status == CTL_OK && work->key == NULL && work->count > 0 && !work->log_read) {
		*err = why;
		(void)err_add(err, "who held them is not known");
		status = CTL_PROBLEM;
	}
	return status;
}

int ctl_release(const struct ctl *ctl)
{
	const char *log = NULL, *sendmail = NULL;
	const char **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	struct work work = {.ctl = ctl, .ids = BUF_INIT(64 << 20)};
	const struct ctl_option options[] = {{"--log", NULL, &log},
					     {"--any", &work.any, NULL},
					     {"--sendmail", NULL, &sendmail}};
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest), status;
	struct err err = ERR_INIT;

	work.key = n == 1 ? rest[0] : NULL;
	free(rest);
	if (n < 0 || n > 1) {
		(void)fputs("usage: relay365 [-c FILE] [--json] release [--log FILE] [--any] "
			    "[--sendmail COMMAND] [QUEUE-ID|KEY]\n",
			    stderr);
		return CTL_USAGE;
	}
	work.messages = cJSON_CreateArray();
	understand_key(&work);
	sendmail = mailq_command(ctl->conf, sendmail);
	status = sendmail != NULL ? do_sendmail(&work, sendmail, &err)
				  : do_postfix(&work, log, &err);
	return finish(&work, status, &err);
}

int ctl_hold(const struct ctl *ctl)
{
	struct work work = {.ctl = ctl, .hold = true, .ids = BUF_INIT(64 << 20)};
	struct err err = ERR_INIT;
	int status;

	if (ctl->argc != 1 || ctl->argv[0][0] == '-') {
		(void)fputs("usage: relay365 [-c FILE] [--json] hold QUEUE-ID|KEY\n", stderr);
		return CTL_USAGE;
	}
	work.key = ctl->argv[0];
	work.messages = cJSON_CreateArray();
	understand_key(&work);
	status = do_all(&work, &err);
	log_open("relay365", ctl->conf->log_to_stderr ? LOG_TO_STDERR : LOG_TO_SYSLOG,
		 ctl->conf->log_json, false);
	if (status == CTL_OK)
		log_held(&work);
	return finish(&work, status, &err);
}
