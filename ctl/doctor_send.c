#include "ctl/doctor.h"

#include "base/clock.h"
#include "base/xalloc.h"
#include "ctl/child.h"
#include "explain/explain.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum { FOLLOW_MS = 120 * 1000, LOOK_MS = 200, LINE_SIZE = 8192 };

/* Where Postfix logs to: its own file, or where syslog has it. */
static FILE *open_log(const struct doctor *doctor, char **path_r)
{
	const char *const usual[] = {"/var/log/mail.log", "/var/log/maillog", "/var/log/syslog",
				     "/var/log/messages"};
	char *own = facts_value(doctor->postfix.expanded, "maillog_file");
	FILE *log = NULL;

	*path_r = own[0] == '\0' ? NULL : own;
	if (own[0] != '\0')
		log = fopen(own, "r");
	else
		free(own);
	for (size_t i = 0; log == NULL && i < ARRAY_LEN(usual); i++) {
		log = fopen(usual[i], "r");
		if (log != NULL) {
			free(*path_r);
			*path_r = xstrdup(usual[i]);
		}
	}
	if (log != NULL)
		(void)fseek(log, 0, SEEK_END);
	return log;
}

/* The queue id of a "cleanup[1]: 4XyZ: message-id=<...>" line. */
static bool take_queue_id(const char *line, const char *message_id, char *id, size_t cap)
{
	const char *at = strstr(line, ": message-id=<");
	const char *begin = at;

	if (at == NULL || strstr(at, message_id) == NULL)
		return false;
	while (begin > line && begin[-1] != ' ')
		begin--;
	if ((size_t)(at - begin) >= cap)
		return false;
	(void)snprintf(id, cap, "%.*s", (int)(at - begin), begin);
	return true;
}

/* True when the line tells of the end, or of a delay, of our message. */
static bool take_status(const char *line, const char *id, char *said, size_t cap)
{
	char mark[80];
	const char *status = strstr(line, "status=");

	(void)snprintf(mark, sizeof(mark), " %s: to=<", id);
	if (status == NULL || strstr(line, mark) == NULL)
		return false;
	(void)snprintf(said, cap, "%.*s", (int)strcspn(status, "\n"), status);
	return true;
}

/* Reads on until the message has left, or the time is over; said is the last status. */
static void follow(FILE *log, const char *message_id, char *said, size_t cap)
{
	int64_t until_ms = clock_boot_ms() + FOLLOW_MS;
	char line[LINE_SIZE], id[64] = "";

	while (clock_boot_ms() < until_ms) {
		while (fgets(line, sizeof(line), log) != NULL) {
			if (id[0] == '\0')
				(void)take_queue_id(line, message_id, id, sizeof(id));
			else if (take_status(line, id, said, cap) &&
				 strncmp(said, "status=deferred", 15) != 0)
				return;
		}
		clearerr(log);
		(void)poll(NULL, 0, LOOK_MS);
	}
}

static void judge(struct doctor *doctor, const char *said, const char *log)
{
	const struct explanation *what = explain_line(said);

	if (strncmp(said, "status=sent", 11) == 0)
		doctor_add(doctor, DOCTOR_OK, NULL, "to %s: %s", doctor->send_to, said);
	else if (said[0] == '\0')
		doctor_add(doctor, DOCTOR_FAULT, "look into it, and at mailq",
			   "to %s: nothing is heard of the message in %s", doctor->send_to, log);
	else
		doctor_add(doctor, DOCTOR_FAULT, what != NULL ? what->action : NULL,
			   "to %s: %s%s%s", doctor->send_to,
			   what != NULL ? what->meaning : "not delivered", ": ", said);
}

static const char *sender(const struct conf *conf)
{
	for (size_t i = 0; i < conf->mailboxes; i++)
		if (conf->mailbox[i].is_default)
			return conf->mailbox[i].address;
	return conf->mailboxes == 0 ? "" : conf->mailbox[0].address;
}

void doctor_send(struct doctor *doctor)
{
	char *config =
		facts_value(doctor->postfix.expanded == NULL ? "" : doctor->postfix.expanded,
			    "config_directory");
	const char *from = sender(doctor->conf);
	char message_id[96], said[LINE_SIZE] = "", *message, *path = NULL;
	FILE *log = NULL;

	if (doctor->send_to != NULL && doctor->instances > 0)
		log = open_log(doctor, &path);
	if (log != NULL) {
		const char *const argv[] = {"sendmail", "-C", config,	       "-i", "-f",
					    from,	"--", doctor->send_to, NULL};

		(void)snprintf(message_id, sizeof(message_id), "relay365-doctor.%lld.%ld@%s",
			       (long long)clock_wall_ms(), (long)getpid(),
			       strrchr(from, '@') + 1);
		message = xasprintf("From: %s\nTo: %s\nSubject: relay365 doctor\n"
				    "Message-ID: <%s>\n\nThis message shows that mail flows.\n",
				    from, doctor->send_to, message_id);
		if (child_exec(argv, message, NULL, NULL, SETUP_TIMEOUT_MS) != 0)
			doctor_add(doctor, DOCTOR_FAULT, "look into the mail log",
				   "sendmail(1) does not take a message from %s", from);
		else
			follow(log, message_id, said, sizeof(said));
		if (!doctor_failed(doctor, "send"))
			judge(doctor, said, path);
		free(message);
		(void)fclose(log);
	} else if (doctor->send_to != NULL) {
		doctor_add(doctor, DOCTOR_UNPROVEN,
			   "run this as root, where Postfix logs to a file",
			   "no mail log can be read, so no message was sent");
	}
	free(path);
	free(config);
}
