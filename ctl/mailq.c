#include "ctl/mailq.h"

#include "base/xalloc.h"
#include "ctl/child.h"
#include "ctl/instance.h"

#include <ctype.h>
#include <unistd.h>

enum { OUTPUT_MAX = 256 << 20, ID_MIN = 8 };

const char *mailq_command(const struct conf *conf, const char *given)
{
	if (given != NULL)
		return given;
	if (access("/etc/mail/sendmail.cf", R_OK) < 0 || access("/usr/sbin/sendmail", X_OK) < 0)
		return NULL;
	for (size_t i = 0; i < conf->queue_directories.count; i++) {
		char *postfix = instance_config_dir(conf->queue_directories.item[i], NULL);

		free(postfix);
		if (postfix != NULL)
			return NULL;
	}
	return "/usr/sbin/sendmail";
}

static void copy(char *to, size_t cap, const char *from, size_t len)
{
	(void)snprintf(to, cap, "%.*s", (int)(len < cap ? len : cap), from);
}

/* "6AQBepFj010150*     312 Thu Nov 26 11:40 <erp@contoso.com>"; false: no such line. */
static bool is_head(const char *line, size_t len, struct mailq_item *item)
{
	size_t id = 0, at = len;

	while (id < len && isalnum((unsigned char)line[id]))
		id++;
	if (id < ID_MIN || id > MAILQ_ID_MAX || id == len)
		return false;
	while (at > id && line[at - 1] != ' ')
		at--;
	memset(item, 0, sizeof(*item));
	copy(item->id, sizeof(item->id), line, id);
	if (line[at] == '<' && line[len - 1] == '>')
		copy(item->sender, sizeof(item->sender), line + at + 1, len - at - 2);
	else
		copy(item->sender, sizeof(item->sender), line + at, len - at);
	return true;
}

/* A line below: a reason in parentheses, a quarantine's, or a recipient. */
static void add_line(struct mailq_item *item, const char *line, size_t len)
{
	static const char quarantine[] = "QUARANTINE: ";
	size_t skip = sizeof(quarantine) - 1;

	if (len > skip && strncmp(line, quarantine, skip) == 0)
		copy(item->reason, sizeof(item->reason), line + skip, len - skip);
	else if (len > 2 && line[0] == '(')
		copy(item->reason, sizeof(item->reason), line + 1,
		     len - 1 - (line[len - 1] == ')'));
	else
		item->recipients++;
}

void mailq_parse(const char *text, void (*each)(void *arg, const struct mailq_item *item),
		 void *arg)
{
	static const char total[] = "Total requests:";
	struct mailq_item item = {.id = ""}, next;

	for (const char *at = text; *at != '\0';) {
		const char *line = at;
		size_t len = strcspn(at, "\n");

		at += len + (at[len] == '\n');
		while (len > 0 && isspace((unsigned char)line[len - 1]))
			len--;
		if (is_head(line, len, &next)) {
			if (item.id[0] != '\0')
				each(arg, &item);
			item = next;
			continue;
		}
		while (len > 0 && isspace((unsigned char)*line)) {
			line++;
			len--;
		}
		/* What stands before the first message, and between queues, is none's. */
		if (len == 0 || item.id[0] == '\0' || line[0] == '/' || line[0] == '-' ||
		    strncmp(line, total, sizeof(total) - 1) == 0)
			continue;
		add_line(&item, line, len);
	}
	if (item.id[0] != '\0')
		each(arg, &item);
}

/* Runs the command with these further words. */
static int run(const char *command, const char *words, struct buf *output, struct err *err)
{
	char *whole = xasprintf("%s %s", command, words);
	int status = child_run(whole, NULL, output, INSTANCE_TIMEOUT_MS);

	free(whole);
	if (status == 0 && !output->overflowed)
		return 0;
	return err_set(err, ERR_TEMP, "%s %s failed with status %d", command, words, status);
}

int mailq_list(const char *command, bool quarantine,
	       void (*each)(void *arg, const struct mailq_item *item), void *arg, struct err *err)
{
	struct buf output = BUF_INIT(OUTPUT_MAX);
	int result = run(command, quarantine ? "-bp -qQ" : "-bp", &output, err);

	if (result == 0)
		mailq_parse(buf_text(&output), each, arg);
	buf_clear(&output);
	return result;
}

int mailq_release(const char *command, const char *id, struct err *err)
{
	struct buf output = BUF_INIT(OUTPUT_MAX);
	char words[MAILQ_ID_MAX + 32];
	int result;

	(void)snprintf(words, sizeof(words), "-Q -qQ -qI%s", id);
	result = run(command, words, &output, err);
	buf_clear(&output);
	return result;
}
