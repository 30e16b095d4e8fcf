/* relay365 probe: relay365-tokend signs in with a mailbox's token; here is what came of it. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/clock.h"
#include "proto/control.h"

#include <time.h>

enum { LOOK_MS = 200, ROUND_MS = 60000, STEP_MS = 1000, VERDICT_MS = 120000 };

struct run {
	const struct ctl *ctl;
	char *socket;
	bool transcript;
};

static void pause_ms(long ms)
{
	const struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};

	(void)nanosleep(&pause, NULL);
}

/* By the clock that goes on while the machine sleeps, in steps so that it is seen. */
static void pause_until(int64_t until_boot_ms)
{
	int64_t left_ms;

	while ((left_ms = until_boot_ms - clock_boot_ms()) > 0)
		pause_ms(left_ms < STEP_MS ? (long)left_ms : STEP_MS);
}

cJSON *probe_ask(const char *socket, const char *mailbox, struct err *err)
{
	struct control_pair pairs[] = {{"mailbox", mailbox}, {"number", ""}};
	int64_t until_ms = clock_boot_ms() + VERDICT_MS;
	cJSON *answer = NULL;
	char number[24];

	if (control_ask(socket, "probe", pairs, 1, CTL_TIMEOUT_MS, &answer, err) < 0)
		return NULL;
	(void)snprintf(number, sizeof(number), "%lld", ctl_number(answer, "number"));
	cJSON_Delete(answer);
	pairs[1].value = number;
	for (;;) {
		answer = NULL;
		if (control_ask(socket, "probe-status", pairs, 2, CTL_TIMEOUT_MS, &answer, err) <
		    0)
			return NULL;
		if (strcmp(ctl_text(answer, "result"), "running") != 0)
			return answer;
		cJSON_Delete(answer);
		if (clock_boot_ms() >= until_ms) {
			(void)err_set(err, ERR_TEMP, "there was no verdict in %d s",
				      VERDICT_MS / 1000);
			return NULL;
		}
		pause_ms(LOOK_MS);
	}
}

/* The verdict on one mailbox; NULL when the daemon gave none, which is told. */
static cJSON *ask(const struct run *run, const char *name, cJSON *verdicts)
{
	struct err err = ERR_INIT;
	cJSON *verdict = probe_ask(run->socket, name, &err), *instead;

	if (verdict == NULL && run->ctl->json) {
		instead = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(instead, "mailbox", name);
		(void)cJSON_AddStringToObject(instead, "error", err.text);
		(void)cJSON_AddItemToArray(verdicts, instead);
	} else if (verdict == NULL) {
		(void)fprintf(stderr, "relay365-tokend: %s: %s\n", name, err.text);
	}
	return verdict;
}

static void print_line(const char *before, const char *text)
{
	if (text[0] != '\0')
		(void)printf("  %s%s\n", before, text);
}

static void print_verdict(const struct run *run, cJSON *verdict)
{
	const cJSON *token = cJSON_GetObjectItemCaseSensitive(verdict, "token");
	const cJSON *claims = cJSON_GetObjectItemCaseSensitive(token, "claims");
	bool ok = strcmp(ctl_text(verdict, "result"), "ok") == 0;
	const cJSON *line;

	ctl_plain(verdict);
	(void)printf("%s: %s\n", ctl_text(verdict, "mailbox"),
		     ok ? "Exchange takes its token" : ctl_text(verdict, "text"));
	if (!ok && cJSON_IsObject(claims)) {
		(void)printf("  token: aud %s, appid %s, tid %s, %s %s\n",
			     ctl_text(claims, "aud"), ctl_text(claims, "appid"),
			     ctl_text(claims, "tid"),
			     ctl_text(claims, "user")[0] != '\0' ? "scp" : "roles",
			     ctl_text(claims, "rights"));
		print_line("wrong: ", ctl_text(claims, "wrong"));
		print_line("note: ", ctl_text(claims, "note"));
	}
	if (!run->transcript)
		return;
	cJSON_ArrayForEach (line, cJSON_GetObjectItemCaseSensitive(verdict, "transcript"))
		if (cJSON_IsString(line))
			(void)printf("  %s\n", line->valuestring);
}

/* Tries the mailboxes in all once; verdicts are added there. Returns the exit status so far. */
static int try_once(const struct run *run, const char *only, cJSON *verdicts)
{
	const struct conf *conf = run->ctl->conf;
	int status = CTL_OK;

	for (size_t i = 0; i < conf->mailboxes; i++) {
		const char *name = conf->mailbox[i].name;
		cJSON *verdict;

		if (only != NULL && strcmp(only, name) != 0)
			continue;
		verdict = ask(run, name, verdicts);
		if (verdict == NULL) {
			status = CTL_TRY_LATER;
			continue;
		}
		if (!run->ctl->json)
			print_verdict(run, verdict);
		if (strcmp(ctl_text(verdict, "result"), "refused") == 0)
			status = CTL_PROBLEM;
		else if (strcmp(ctl_text(verdict, "result"), "error") == 0 && status == CTL_OK)
			status = CTL_TRY_LATER;
		(void)cJSON_AddItemToArray(verdicts, verdict);
	}
	return status;
}

static int try_until(const struct run *run, const char *only, int64_t wait_ms)
{
	int64_t until_ms = clock_boot_ms() + wait_ms;

	for (;;) {
		cJSON *verdicts = cJSON_CreateArray();
		int status = try_once(run, only, verdicts);

		if (status == CTL_OK || clock_boot_ms() + ROUND_MS > until_ms) {
			if (run->ctl->json)
				return ctl_print_json(verdicts, status);
			cJSON_Delete(verdicts);
			return status;
		}
		cJSON_Delete(verdicts);
		(void)fprintf(stderr,
			      "What was granted in Exchange takes 30 to 120 minutes to count; "
			      "next try in a minute, for %lld more minutes.\n",
			      (long long)(until_ms - clock_boot_ms()) / 60000);
		(void)fflush(stdout);
		pause_until(clock_boot_ms() + ROUND_MS);
	}
}

int ctl_probe(const struct ctl *ctl)
{
	struct run run = {.ctl = ctl};
	const char *wait = NULL, *rest[16], *only = NULL;
	const struct ctl_option options[] = {{"--wait", NULL, &wait},
					     {"--transcript", &run.transcript, NULL}};
	const struct conf_mailbox *mailbox;
	struct err err = ERR_INIT;
	int64_t wait_ms = 0;
	int n, status;

	n = ctl->argc > (int)ARRAY_LEN(rest)
		    ? -1
		    : ctl_options(ctl, options, ARRAY_LEN(options), rest);
	if (wait != NULL)
		wait_ms = conf_time_ms(wait);
	if (n < 0 || n > 1 || wait_ms < 0) {
		(void)fputs("usage: relay365 [-c FILE] [--json] probe [MAILBOX] [--wait 2h] "
			    "[--transcript]\n",
			    stderr);
		return CTL_USAGE;
	}
	if (n == 1) {
		mailbox = conf_mailbox_by_name(ctl->conf, rest[0], strlen(rest[0]));
		if (mailbox == NULL)
			mailbox = conf_mailbox_by_address(ctl->conf, rest[0]);
		if (mailbox == NULL) {
			(void)err_set(&err, ERR_CONFIG, "%s has no mailbox \"%s\"",
				      ctl->conf->path, rest[0]);
			return ctl_print_error(ctl, &err, CTL_CONFIG);
		}
		only = mailbox->name;
	}
	run.socket = ctl_tokend_socket(ctl->conf);
	status = try_until(&run, only, wait_ms);
	free(run.socket);
	return status;
}
