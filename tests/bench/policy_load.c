/*
 * Plays Postfix before a policy server (SMTPD_POLICY_README): one connection a
 * worker, kept, and a request for each recipient and at the end of data, which
 * is what a message costs there. load.h has the options.
 */
#include "load.h"

#include "base/err.h"
#include "base/xalloc.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
	int fd;
	unsigned int sender;
	unsigned int number;
};

/* 'c' when the action lets the mail pass, 'r' when it does not; 0: broken. */
static char ask(struct load_worker *worker, struct client *c, const char *state, int recipients)
{
	char text[1024];
	size_t at = 0;
	int len = snprintf(text, sizeof(text),
			   "request=smtpd_access_policy\nprotocol_state=%s\nprotocol_name=ESMTP\n"
			   "client_address=192.0.2.7\nclient_name=client.example\n"
			   "helo_name=client.example\nsender=user%06u@contoso.com\n"
			   "sasl_username=user%06u@contoso.com\nrecipient=r@example.net\n"
			   "recipient_count=%d\nqueue_id=4Q%u\ninstance=4Q.%u\nsize=1024\n\n",
			   state, c->sender, c->sender, recipients, c->number, c->number);

	load_pause(worker);
	if (send(c->fd, text, (size_t)len, MSG_NOSIGNAL) != len) {
		(void)load_fail(worker, "cannot send: %s", err_no(errno));
		return 0;
	}
	for (;;) {
		ssize_t n = recv(c->fd, text + at, sizeof(text) - 1 - at, 0);

		if (n <= 0) {
			(void)load_fail(worker, "the policy server went away");
			return 0;
		}
		at += (size_t)n;
		text[at] = '\0';
		if (at >= 2 && strcmp(text + at - 2, "\n\n") == 0)
			break;
	}
	if (strncmp(text, "action=", 7) != 0) {
		(void)load_fail(worker, "no action: %.60s", text);
		return 0;
	}
	return strncmp(text + 7, "DUNNO", 5) == 0 || strncmp(text + 7, "dunno", 5) == 0 ||
			       strncmp(text + 7, "OK", 2) == 0
		       ? 'c'
		       : 'r';
}

static bool one_message(struct load_worker *worker)
{
	struct client *c = worker->own;
	char verdict = 'c';
	int64_t start;

	if (c == NULL) {
		c = worker->own = xcalloc(1, sizeof(*c));
		c->fd = load_connect(worker);
		if (c->fd < 0)
			return false;
	}
	c->sender = load_random(worker, (uint32_t)worker->options->senders);
	c->number = load_random(worker, UINT32_MAX);
	for (int i = 0; i < worker->options->recipients && verdict == 'c'; i++) {
		start = load_now_ns();
		verdict = ask(worker, c, "RCPT", 0);
		load_time(&worker->rcpt, start);
	}
	if (verdict == 'c') {
		start = load_now_ns();
		verdict = ask(worker, c, "END-OF-MESSAGE", worker->options->recipients);
		load_time(&worker->end, start);
	}
	if (verdict == 'c')
		worker->messages++;
	else if (verdict != 0)
		worker->refused++;
	return verdict != 0;
}

int main(int argc, char **argv)
{
	struct load_options options;

	load_options(argc, argv, &options);
	return load_run(&options, one_message);
}
