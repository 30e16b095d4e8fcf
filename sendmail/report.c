#include "base/compat.h"

#include "sendmail/report.h"

#include "base/sock.h"
#include "proto/kv.h"

enum { REQUEST_MAX = 4096, LOSS_MAX = 1024, REPLY_QUOTED = 400 };

struct request {
	char text[REQUEST_MAX];
	size_t len;
	bool bad;
};

static void put(struct request *request, const char *key, const char *value)
{
	request->bad |= kv_put(request->text, sizeof(request->text), &request->len, key, value,
			       strlen(value)) < 0;
}

static void put_number(struct request *request, const char *key, int64_t n)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%lld", (long long)n);
	put(request, key, text);
}

static void begin(struct request *request, const char *verb, const struct conf_mailbox *mailbox,
		  const struct lease *lease)
{
	request->len = 0;
	request->bad = false;
	put(request, "relay365", KV_VERSION);
	put(request, "verb", verb);
	put(request, "mailbox", mailbox->address);
	if (lease->name[0] != '\0')
		put(request, "lease", lease->name);
}

static void tell(struct reporter *reporter, const struct conf *conf, struct request *request,
		 struct report *report)
{
	char path[SOCK_PATH_MAX + 1];

	request->bad |= kv_end(request->text, sizeof(request->text), &request->len) < 0;
	if (request->bad)
		return; /* printable text of bounded length always fits */
	(void)snprintf(path, sizeof(path), "%s/token", conf->run_dir);
	report->path = path;
	report->request = request->text;
	report->len = request->len;
	reporter_tell(reporter, report);
}

void report_reply(struct reporter *reporter, const struct conf *conf, const struct lease *lease,
		  const struct conf_mailbox *mailbox, const struct report_reply *reply)
{
	char loss[LOSS_MAX];
	struct report report = {.loss = loss,
				.kind = reply->taken > 0 ? REPORT_DELIVERY : REPORT_REFUSAL,
				.lease_fd = -1};
	struct request request;

	begin(&request, "status", mailbox, lease);
	put_number(&request, "code", reply->code);
	put(&request, "text", reply->text);
	put_number(&request, "recipients", reply->taken);
	put_number(&request, "refused", reply->refused);
	(void)snprintf(loss, sizeof(loss), "%s: \"%d %.*s\" for %lld recipients was not counted",
		       mailbox->address, reply->code, REPLY_QUOTED, reply->text,
		       (long long)reply->taken);
	tell(reporter, conf, &request, &report);
}

void report_end(struct reporter *reporter, const struct conf *conf, struct lease *lease,
		const struct conf_mailbox *mailbox)
{
	char loss[LOSS_MAX];
	struct report report = {.loss = loss, .kind = REPORT_END, .lease_fd = lease->fd};
	struct request request;

	if (lease->fd >= 0 && lease->name[0] != '\0') {
		begin(&request, "end", mailbox, lease);
		(void)snprintf(loss, sizeof(loss),
			       "%s: the end of a session was not told, and may hold a sending "
			       "slot for up to 20 minutes",
			       mailbox->address);
		lease->fd = -1; /* the reporter closes it */
		tell(reporter, conf, &request, &report);
	}
	lease_end(lease);
}
