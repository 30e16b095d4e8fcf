/*
 * relay365 authorize MAILBOX: a user signs in for a mailbox. relay365-tokend
 * does all of it and keeps what comes of it; here its progress is shown. With
 * --browser the last address of the browser is handed on, with --import the
 * refresh token of sasl-xoauth2.
 */
#include "base/compat.h"

#include "ctl/ctl.h"
#include "ctl/token_file.h"

#include "proto/control.h"

#include <time.h>

enum { LOOK_MS = 500, ADDRESS_MAX = 12000 };

struct authorize {
	const struct ctl *ctl;
	char *socket;
	const char *mailbox;
	const char *import; /* token file of sasl-xoauth2, or NULL */
};

static int ask(const struct authorize *a, const char *verb, const char *key, const char *value,
	       cJSON **json_r)
{
	const struct control_pair pairs[] = {{"mailbox", a->mailbox}, {key, value}};
	struct err err = ERR_INIT;

	if (control_ask(a->socket, verb, pairs, key == NULL ? 1 : 2, CTL_TIMEOUT_MS, json_r,
			&err) == 0)
		return CTL_OK;
	return ctl_print_daemon_error(a->ctl, "tokend", &err,
				      err.class == ERR_TEMP	? CTL_TRY_LATER
				      : err.class == ERR_CONFIG ? CTL_CONFIG
								: CTL_PROBLEM);
}

/* What the user must do; to standard error, so that --json has standard output to itself. */
static void show_task(cJSON *status)
{
	long long minutes = ctl_number(status, "seconds_left") / 60;

	ctl_plain(status);
	if (ctl_text(status, "authorize_url")[0] != '\0')
		(void)fprintf(stderr,
			      "Open this address in a browser, on any machine, and sign in:\n\n"
			      "%s\n\nThe browser ends at an address that begins with "
			      "http://localhost and shows no page.\nPaste that whole address "
			      "here: ",
			      ctl_text(status, "authorize_url"));
	else
		(void)fprintf(stderr,
			      "Open %s in a browser, on any machine, enter the code %s and sign "
			      "in.\nWaiting for that for %lld minutes.\n",
			      ctl_text(status, "verification_uri"), ctl_text(status, "user_code"),
			      minutes);
	(void)fflush(stderr);
}

static int hand_on_address(const struct authorize *a)
{
	char address[ADDRESS_MAX];
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	int result;

	if (fgets(address, sizeof(address), stdin) == NULL) {
		(void)fputs("\n", stderr);
		(void)err_set(&err, ERR_PERM, "there was no address to read");
		return ctl_print_error(a->ctl, &err, CTL_PROBLEM);
	}
	address[strcspn(address, "\r\n")] = '\0';
	result = ask(a, "authorize-answer", "address", address, &answer);
	explicit_bzero(address, sizeof(address));
	cJSON_Delete(answer);
	return result;
}

static int show_end(const struct authorize *a, cJSON *status)
{
	const cJSON *token = cJSON_GetObjectItemCaseSensitive(status, "token");
	const cJSON *claims = cJSON_GetObjectItemCaseSensitive(token, "claims");
	bool done = strcmp(ctl_text(status, "state"), "done") == 0;
	int result = done && ctl_text(claims, "wrong")[0] == '\0' ? CTL_OK : CTL_PROBLEM;

	if (a->ctl->json)
		return ctl_print_json(status, result);
	ctl_plain(status);
	if (done)
		(void)printf("Mailbox %s has a token%s%s, and keeps it by itself from now on.\n",
			     a->mailbox, ctl_text(claims, "user")[0] == '\0' ? "" : " of ",
			     ctl_text(claims, "user"));
	if (done && a->import != NULL)
		(void)printf("Delete %s once sasl-xoauth2 does not use it any more.\n",
			     a->import);
	if (!done)
		(void)fprintf(stderr, "relay365: the sign-in failed: %s\n",
			      ctl_text(status, "reason"));
	if (ctl_text(claims, "wrong")[0] != '\0')
		(void)printf("But Exchange will refuse it: %s.\n", ctl_text(claims, "wrong"));
	if (ctl_text(claims, "note")[0] != '\0')
		(void)printf("Note: %s.\n", ctl_text(claims, "note"));
	cJSON_Delete(status);
	return result;
}

/* Until it is done or has failed. */
static int follow(const struct authorize *a, bool browser)
{
	const struct timespec pause = {0, LOOK_MS * 1000000L};
	struct err err = ERR_INIT;
	bool shown = false;

	for (;;) {
		cJSON *status = NULL;
		const char *state;
		int result = ask(a, "authorize-status", NULL, NULL, &status);

		if (result != CTL_OK)
			return result;
		state = ctl_text(status, "state");
		if (strcmp(state, "none") == 0) {
			cJSON_Delete(status);
			(void)err_set(
				&err, ERR_TEMP,
				"the sign-in was given up, since the configuration was read "
				"again or the daemon restarted; start again");
			return ctl_print_error(a->ctl, &err, CTL_TRY_LATER);
		}
		if (strcmp(state, "done") == 0 || strcmp(state, "failed") == 0)
			return show_end(a, status);
		if (strcmp(state, "waiting") == 0 && !shown) {
			show_task(status);
			shown = true;
			if (browser)
				result = hand_on_address(a);
		}
		cJSON_Delete(status);
		if (result != CTL_OK)
			return result;
		(void)nanosleep(&pause, NULL);
	}
}

static int import(const struct authorize *a, cJSON **started_r)
{
	const struct conf *conf = a->ctl->conf;
	const struct conf_mailbox *mailbox =
		conf_mailbox_by_name(conf, a->mailbox, strlen(a->mailbox));
	struct secret refresh = SECRET_INIT;
	struct err err = ERR_INIT;
	int result;

	if (mailbox == NULL)
		mailbox = conf_mailbox_by_address(conf, a->mailbox);
	if (token_file_read(a->import, mailbox == NULL ? NULL : mailbox->tenant->client_id,
			    &refresh, &err) < 0)
		return ctl_print_error(a->ctl, &err, CTL_CONFIG);
	result = ask(a, "authorize-import", "refresh_token", refresh.data, started_r);
	secret_clear(&refresh);
	return result;
}

int ctl_authorize(const struct ctl *ctl)
{
	bool browser = false;
	struct authorize a = {.ctl = ctl};
	const struct ctl_option options[] = {{"--browser", &browser, NULL},
					     {"--import", NULL, &a.import}};
	const char *rest[16];
	cJSON *started = NULL;
	int result;

	if (ctl->argc > (int)ARRAY_LEN(rest) ||
	    ctl_options(ctl, options, ARRAY_LEN(options), rest) != 1 ||
	    (browser && a.import != NULL)) {
		(void)fputs("usage: relay365 [-c FILE] [--json] authorize MAILBOX "
			    "[--browser | --import FILE]\n",
			    stderr);
		return CTL_USAGE;
	}
	a.mailbox = rest[0];
	a.socket = ctl_tokend_socket(ctl->conf);
	result = a.import != NULL ? import(&a, &started)
				  : ask(&a, "authorize", "method", browser ? "browser" : "device",
					&started);
	cJSON_Delete(started);
	if (result == CTL_OK)
		result = follow(&a, browser);
	free(a.socket);
	return result;
}
