/*
 * relay365 token MAILBOX: prints an access token, and nothing else, for
 * passwordeval and the like; with --json also until when it is valid.
 */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/clock.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "proto/json_time.h"
#include "proto/kv.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TOKEN_TIMEOUT_MS = 30000 };

static int ask(int fd, const char *address, struct err *err)
{
	char request[512];
	size_t at = 0;

	if (kv_put(request, sizeof(request), &at, "relay365", KV_VERSION, 1) < 0 ||
	    kv_put(request, sizeof(request), &at, "verb", "token", 5) < 0 ||
	    kv_put(request, sizeof(request), &at, "mailbox", address, strlen(address)) < 0 ||
	    kv_end(request, sizeof(request), &at) < 0)
		return err_set(err, ERR_PERM, "the mailbox's address is too long");
	if (send(fd, request, at, MSG_NOSIGNAL) != (ssize_t)at)
		return err_set(err, ERR_TEMP, "cannot ask relay365-tokend: %s", err_no(errno));
	return 0;
}

/* Reads until a whole message is there. */
static int receive(int fd, struct buf *in, struct kv_message *message_r, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + TOKEN_TIMEOUT_MS;
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	for (;;) {
		int64_t left = until_ms - clock_boot_ms();
		size_t room, used;
		char *to = buf_reserve(in, 1, &room);
		ssize_t n;

		if (left <= 0 || (poll(&pfd, 1, (int)left) == 0))
			return err_set(err, ERR_TEMP, "relay365-tokend did not answer in %d s",
				       TOKEN_TIMEOUT_MS / 1000);
		n = to == NULL ? 0 : recv(fd, to, room, 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return err_set(
				err, ERR_TEMP,
				"relay365-tokend closed the connection; token_users may not name "
				"this user");
		in->len += (size_t)n;
		switch (kv_parse(in->data, in->len, message_r, &used)) {
		case KV_OK:
			return 0;
		case KV_BAD:
			return err_set(err, ERR_TEMP,
				       "relay365-tokend's answer is not understood");
		case KV_MORE:
			break;
		}
	}
}

static int print_json(const struct kv_message *answer, const struct kv_pair *token)
{
	char *copy = xstrndup(token->value, token->value_len);
	cJSON *json = cJSON_CreateObject();
	long long expires_s = 0;

	(void)kv_number(answer, "expires_at", &expires_s);
	(void)cJSON_AddStringToObject(json, "token", copy);
	json_add_time(json, "expires_at", expires_s * 1000);
	explicit_bzero(copy, token->value_len);
	free(copy);
	return ctl_print_json(json, CTL_OK);
}

static int print_answer(const struct ctl *ctl, const struct kv_message *answer)
{
	const struct kv_pair *token = kv_find(answer, "token");
	struct err err = ERR_INIT;
	char reason[ERR_TEXT_MAX];

	if (kv_is(answer, "status", "ok") && token != NULL) {
		if (ctl->json)
			return print_json(answer, token);
		(void)fwrite(token->value, 1, token->value_len, stdout);
		(void)fputc('\n', stdout);
		return CTL_OK;
	}
	if (kv_copy(answer, "reason", reason, sizeof(reason)) < 0)
		(void)snprintf(reason, sizeof(reason), "relay365-tokend gave no reason");
	(void)err_set(&err, ERR_TEMP, "%s", reason);
	return ctl_print_error(ctl, &err,
			       kv_is(answer, "status", "later") ? CTL_TRY_LATER : CTL_PROBLEM);
}

int ctl_token(const struct ctl *ctl)
{
	struct buf in = BUF_INIT(KV_MESSAGE_MAX);
	struct err err = ERR_INIT;
	struct kv_message answer;
	const struct conf_mailbox *mailbox;
	const char *name = ctl->argc == 1 ? ctl->argv[0] : NULL;
	char *path;
	int fd, status;

	if (name == NULL) {
		(void)fputs("usage: relay365 [-c FILE] [--json] token MAILBOX\n", stderr);
		return CTL_USAGE;
	}
	mailbox = conf_mailbox_by_name(ctl->conf, name, strlen(name));
	if (mailbox == NULL)
		mailbox = conf_mailbox_by_address(ctl->conf, name);
	if (mailbox == NULL) {
		(void)err_set(&err, ERR_CONFIG, "%s has no mailbox \"%s\"", ctl->conf->path,
			      name);
		return ctl_print_error(ctl, &err, CTL_CONFIG);
	}
	path = xasprintf("%s/token", ctl->conf->run_dir);
	fd = sock_connect(path, &err);
	free(path);
	if (fd >= 0 && ask(fd, mailbox->address, &err) == 0 &&
	    receive(fd, &in, &answer, &err) == 0)
		status = print_answer(ctl, &answer);
	else
		status = ctl_print_error(ctl, &err, CTL_TRY_LATER);
	if (fd >= 0)
		(void)close(fd);
	buf_clear(&in);
	return status;
}
