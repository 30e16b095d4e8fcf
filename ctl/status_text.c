#include "base/compat.h"

#include "ctl/ctl.h"

static const cJSON *get(const cJSON *object, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(object, name);
}

/* "4512" as "75 min". */
static void add_duration(struct buf *text, long long seconds)
{
	if (seconds >= 2 * 86400)
		(void)buf_addf(text, "%lld d", seconds / 86400);
	else if (seconds >= 2 * 3600)
		(void)buf_addf(text, "%lld h", seconds / 3600);
	else if (seconds >= 120)
		(void)buf_addf(text, "%lld min", seconds / 60);
	else
		(void)buf_addf(text, "%lld s", seconds);
}

static void add_token(struct buf *text, const cJSON *token)
{
	const cJSON *error = get(token, "last_error");

	(void)buf_addf(
		text, "  %-16s %-9s %s",
		ctl_text(token, ctl_text(token, "mailbox")[0] == '\0' ? "tenant" : "mailbox"),
		ctl_text(token, "state"), ctl_text(token, "grant"));
	if (ctl_text(token, "expires_at")[0] != '\0') {
		(void)buf_addf(text, ", expires %s in ", ctl_text(token, "expires_at"));
		add_duration(text, ctl_number(token, "expires_in_s"));
	}
	(void)buf_adds(text, "\n");
	if (ctl_text(get(token, "claims"), "wrong")[0] != '\0')
		(void)buf_addf(text, "    Exchange will refuse it: %s\n",
			       ctl_text(get(token, "claims"), "wrong"));
	if (error == NULL)
		return;
	(void)buf_addf(text, "    last error %s: %s; next try in ", ctl_text(error, "at"),
		       ctl_text(error, "reason"));
	add_duration(text, ctl_number(error, "retry_in_s"));
	(void)buf_adds(text, "\n");
}

static const cJSON *by_name(const cJSON *list, const char *name)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, list)
		if (strcmp(ctl_text(item, "name"), name) == 0)
			return item;
	return NULL;
}

/* "[#######...............]" for what is used of a limit. */
static void add_bar(struct buf *text, long long used, long long max)
{
	const int width = 20;
	int full = max <= 0 ? 0 : (int)(used >= max ? width : used * width / max);

	(void)buf_adds(text, "[");
	for (int i = 0; i < width; i++)
		(void)buf_adds(text, i < full ? "#" : ".");
	(void)buf_adds(text, "]");
}

static void add_use(struct buf *text, const char *what, long long used, long long max,
		    const char *room_at)
{
	(void)buf_addf(text, "    %-10s", what);
	add_bar(text, used, max);
	(void)buf_addf(text, " %lld of %lld recipients in 24 h", used, max);
	if (room_at[0] != '\0')
		(void)buf_addf(text, ", room at %s", room_at);
	(void)buf_adds(text, "\n");
}

/* That Exchange took the token; if it did not, that is among the problems. */
static void add_probe(struct buf *text, const cJSON *probe)
{
	if (strcmp(ctl_text(probe, "result"), "ok") == 0)
		(void)buf_addf(text, "    signed in at %s, in %lld ms\n", ctl_text(probe, "at"),
			       ctl_number(probe, "took_ms"));
}

static void add_mailbox(struct buf *text, const cJSON *mailbox, const cJSON *accepted)
{
	(void)buf_addf(text, "  %s <%s>\n", ctl_text(mailbox, "name"),
		       ctl_text(mailbox, "address"));
	if (accepted != NULL)
		add_use(text, "accepted", ctl_number(accepted, "used"),
			ctl_number(accepted, "max"), ctl_text(accepted, "room_at"));
	add_use(text, "delivered", ctl_number(mailbox, "delivered"),
		ctl_number(mailbox, "recipients_per_day"), ctl_text(mailbox, "room_at"));
	(void)buf_addf(text, "    sending    %lld of %lld connections, %lld waiting\n",
		       ctl_number(mailbox, "leases"), ctl_number(mailbox, "connections"),
		       ctl_number(mailbox, "waiting"));
	add_probe(text, get(mailbox, "probe"));
	if (ctl_text(mailbox, "last_refusal")[0] != '\0')
		(void)buf_addf(text, "    last refusal %s: %s\n",
			       ctl_text(mailbox, "last_refusal_at"),
			       ctl_text(mailbox, "last_refusal"));
}

static void add_daemon(struct buf *text, const cJSON *status, const char *name)
{
	const cJSON *daemon = get(status, name);
	const char *how = ctl_text(get(status, "daemons"), name);

	if (how[0] == '\0') /* submit, where there is none */
		return;
	if (strcmp(how, "up") == 0)
		(void)buf_addf(text, "relay365-%s: up since %s (pid %lld, %s)\n", name,
			       ctl_text(daemon, "started"), ctl_number(daemon, "pid"),
			       ctl_text(daemon, "version"));
	else
		(void)buf_addf(text, "relay365-%s: %s\n", name,
			       strcmp(how, "denied") == 0   ? "not proven"
			       : strcmp(how, "silent") == 0 ? "does not answer"
							    : how);
}

static const cJSON *by_key(const cJSON *list, const char *key)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, list)
		if (strcmp(ctl_text(item, "key"), key) == 0)
			return item;
	return NULL;
}

static void add_lock(struct buf *text, const cJSON *lock, const char *only)
{
	const char *until = ctl_text(lock, "until");

	(void)buf_addf(text, "  %s until %s, by %s: %s%s\n", ctl_text(lock, "key"),
		       until[0] != '\0' ? until : "unlocked", ctl_text(lock, "by"),
		       ctl_text(lock, "reason"), only);
}

/* What either daemon remembers; the same as a rule. */
static void add_locks(struct buf *text, const cJSON *tokend, const cJSON *milter)
{
	const cJSON *item;

	if (cJSON_GetArraySize(tokend) + cJSON_GetArraySize(milter) == 0)
		return;
	(void)buf_adds(text, "\nLocks\n");
	cJSON_ArrayForEach (item, tokend)
		add_lock(text, item,
			 by_key(milter, ctl_text(item, "key")) == NULL ? " (tokend only)" : "");
	cJSON_ArrayForEach (item, milter)
		if (by_key(tokend, ctl_text(item, "key")) == NULL)
			add_lock(text, item, " (milter only)");
}

/* What the milter has noticed, and is no problem yet. */
static void add_warnings(struct buf *text, const cJSON *milter)
{
	const cJSON *incidents = get(milter, "incidents"), *runaways = get(milter, "runaways");
	const cJSON *item;

	if (cJSON_GetArraySize(incidents) + cJSON_GetArraySize(runaways) == 0)
		return;
	(void)buf_adds(text, "\nWarnings\n");
	cJSON_ArrayForEach (item, incidents) {
		(void)buf_addf(text, "  %s  %s: %s", ctl_text(item, "incident"),
			       ctl_text(item, "limit"), ctl_text(item, "text"));
		if (ctl_text(item, "full_at")[0] != '\0' &&
		    ctl_number(item, "used") < ctl_number(item, "max"))
			(void)buf_addf(text, ", full at %s", ctl_text(item, "full_at"));
		(void)buf_adds(text, "\n");
	}
	cJSON_ArrayForEach (item, runaways)
		(void)buf_addf(
			text,
			"  %s  source %s sends far more than usual: %lld recipients in this "
			"hour, at most %lld in others\n",
			ctl_text(item, "incident"), ctl_text(item, "source"),
			ctl_number(item, "hour"), ctl_number(item, "usual"));
}

void ctl_status_text(const cJSON *status, struct buf *text)
{
	const cJSON *tokend = get(status, "tokend");
	const cJSON *milter = get(status, "milter");
	const cJSON *problems = get(status, "problems");
	const cJSON *item;

	add_daemon(text, status, "tokend");
	add_daemon(text, status, "milter");
	add_daemon(text, status, "submit");
	(void)buf_adds(text, "\nTokens\n");
	cJSON_ArrayForEach (item, get(tokend, "tokens"))
		add_token(text, item);
	(void)buf_adds(text, "\nMailboxes\n");
	cJSON_ArrayForEach (item, get(tokend, "mailboxes"))
		add_mailbox(text, item,
			    by_name(get(milter, "mailboxes"), ctl_text(item, "name")));
	add_locks(text, get(tokend, "locks"), get(milter, "locks"));
	add_warnings(text, milter);
	if (cJSON_GetArraySize(problems) == 0) {
		(void)buf_adds(text, "\nAll is well.\n");
		return;
	}
	(void)buf_adds(text, "\nProblems\n");
	cJSON_ArrayForEach (item, problems)
		(void)buf_addf(text, "  %s\n", item->valuestring);
}
