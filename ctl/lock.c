/*
 * relay365 lock and unlock: told to both daemons, each of which remembers it;
 * and reset, told to the one whose ledger it is.
 */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/xalloc.h"
#include "proto/control.h"

enum { PAIRS_MAX = 3 };

/* Tells one daemon; its answer, or {"error": ...}, goes into all under name. */
static int tell(cJSON *all, const char *name, char *socket, const char *verb,
		const struct control_pair *pairs, size_t count)
{
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	int result = control_ask(socket, verb, pairs, count, CTL_TIMEOUT_MS, &answer, &err);

	free(socket);
	if (result < 0) {
		answer = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(answer, "error", err.text);
	}
	(void)cJSON_AddItemToObject(all, name, answer);
	if (result == 0)
		return CTL_OK;
	return err.class == ERR_TEMP ? CTL_TRY_LATER : CTL_PROBLEM;
}

static const char *unlocked_text(bool was_locked, bool was_paused)
{
	if (!was_paused)
		return was_locked ? " is unlocked" : " was not locked";
	return was_locked ? " is unlocked, and its pause after a quota reply is over"
			  : ": its pause after a quota reply is over";
}

static void print_one(const char *name, const cJSON *answer)
{
	const cJSON *was = cJSON_GetObjectItemCaseSensitive(answer, "was_locked");
	bool paused = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer, "was_paused"));
	const char *until = ctl_text(answer, "until");

	if (ctl_text(answer, "error")[0] != '\0')
		(void)fprintf(stderr, "relay365-%s: %s\n", name, ctl_text(answer, "error"));
	else if (was != NULL)
		(void)printf("relay365-%s: %s%s\n", name, ctl_text(answer, "key"),
			     unlocked_text(cJSON_IsTrue(was), paused));
	else
		(void)printf("relay365-%s: %s is locked until %s\n", name,
			     ctl_text(answer, "key"),
			     until[0] != '\0' ? until : "somebody unlocks it");
}

static int tell_both(const struct ctl *ctl, const char *verb, const struct control_pair *pairs,
		     size_t count)
{
	cJSON *all = cJSON_CreateObject();
	int tokend = tell(all, "tokend", ctl_tokend_socket(ctl->conf), verb, pairs, count);
	int milter = tell(all, "milter", ctl_milter_socket(ctl->conf), verb, pairs, count);
	int status = tokend != CTL_OK ? tokend : milter;

	if (ctl->json)
		return ctl_print_json(all, status);
	ctl_plain(all);
	print_one("tokend", cJSON_GetObjectItemCaseSensitive(all, "tokend"));
	print_one("milter", cJSON_GetObjectItemCaseSensitive(all, "milter"));
	cJSON_Delete(all);
	return status;
}

static int usage(void)
{
	(void)fputs("usage: relay365 [-c FILE] [--json] lock KEY --reason TEXT [--for 2h]\n"
		    "       relay365 [-c FILE] [--json] unlock KEY\n"
		    "KEY: a mailbox's name or address, a source's name, mailbox:NAME or "
		    "source:NAME.\n",
		    stderr);
	return CTL_USAGE;
}

int ctl_lock(const struct ctl *ctl)
{
	const char *reason = NULL, *time = NULL,
		   **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	const struct ctl_option options[] = {{"--reason", NULL, &reason}, {"--for", NULL, &time}};
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest);
	int64_t ms = time == NULL ? 0 : conf_time_ms(time);
	struct control_pair pairs[PAIRS_MAX];
	size_t count = 0;
	char seconds[24];

	if (n == 1 && reason != NULL && (time == NULL || ms >= 1000)) {
		(void)snprintf(seconds, sizeof(seconds), "%lld", (long long)ms / 1000);
		pairs[count++] = (struct control_pair){"key", rest[0]};
		pairs[count++] = (struct control_pair){"reason", reason};
		if (time != NULL)
			pairs[count++] = (struct control_pair){"seconds", seconds};
	}
	free(rest);
	return count == 0 ? usage() : tell_both(ctl, "lock", pairs, count);
}

int ctl_unlock(const struct ctl *ctl)
{
	struct control_pair pair = {"key", NULL};

	if (ctl->argc != 1)
		return usage();
	pair.value = ctl->argv[0];
	return tell_both(ctl, "unlock", &pair, 1);
}

static void print_reset(const cJSON *answer)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(answer, "counters"), *item;

	cJSON_ArrayForEach (item, list)
		(void)printf("%s%s%s of %s: was %lld, is 0\n", ctl_text(answer, "ledger"),
			     ctl_text(item, "limit")[0] == '\0' ? "" : ", ",
			     ctl_text(item, "limit"), ctl_text(item, "key"),
			     ctl_number(item, "used"));
	if (cJSON_GetArraySize(list) == 0)
		(void)printf("%s: nothing is counted for it\n", ctl_text(answer, "ledger"));
}

int ctl_reset(const struct ctl *ctl)
{
	const char *limit = NULL, **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	bool delivered = false;
	const struct ctl_option options[] = {{"--limit", NULL, &limit},
					     {"--delivered", &delivered, NULL}};
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest), status;
	const struct control_pair pairs[] = {{"key", rest[0]}, {"limit", limit}};
	cJSON *all, *answer;

	free(rest);
	if (n != 1 || (delivered && limit != NULL)) {
		(void)fputs("usage: relay365 [-c FILE] [--json] reset KEY [--limit NAME]\n"
			    "       relay365 [-c FILE] [--json] reset --delivered MAILBOX\n",
			    stderr);
		return CTL_USAGE;
	}
	all = cJSON_CreateObject();
	if (delivered)
		status = tell(all, "tokend", ctl_tokend_socket(ctl->conf), "reset", pairs, 1);
	else
		status = tell(all, "milter", ctl_milter_socket(ctl->conf), "reset", pairs,
			      limit == NULL ? 1 : 2);
	if (ctl->json)
		return ctl_print_json(all, status);
	ctl_plain(all);
	answer = all->child;
	if (status == CTL_OK)
		print_reset(answer);
	else
		print_one(answer->string, answer);
	cJSON_Delete(all);
	return status;
}
