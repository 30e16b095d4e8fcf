#include "ctl/what_if.h"

#include "base/xalloc.h"
#include "quota/limits.h"
#include "quota/quota.h"
#include "proto/json_time.h"

enum {
	MAIL_SHOWN = 1000, /* messages that are listed one by one */
	TOP_SHOWN = 5,
	SWEEP_MS = 3600 * 1000
};

/* What one limit has done so far. */
struct tally {
	char limit[QUOTA_NAME_MAX + 1];
	const char *action;
	bool shadow;
	int64_t messages, recipients;
	int64_t first_ms, last_ms;
	cJSON *keys; /* key -> recipients */
};

/* What a limit does to some of the recipients of a message. */
struct stop {
	char limit[QUOTA_NAME_MAX + 1];
	char key[QUOTA_KEY_MAX + 1];
	const char *action;
	bool shadow;
	int64_t recipients;
	int64_t used, max;
};

struct replay {
	const struct conf *conf;
	struct quota *quota;
	int64_t swept_ms;
	struct tally *tally;
	size_t tallies;
	cJSON *mail; /* the first MAIL_SHOWN that something was done to */
	int64_t more;
	int64_t messages, recipients, elsewhere;
	int64_t stopped_messages, stopped_recipients; /* refused or put on hold */
};

/* One message on its way through the limits. */
struct passage {
	const struct mail *mail;
	const struct conf_mailbox *mailbox;
	const struct conf_source *from;
	const char *source;
	struct quota_message *reserved;
	struct stop stop[QUOTA_LIMITS_MAX];
	size_t stops;
	int64_t taken, refused;
	bool held;
};

/* ---- what the limits say ---- */

static void stop_at(struct passage *passage, const char *limit, const char *key,
		    const char *action, bool shadow, int64_t used, int64_t max)
{
	struct stop *stop;
	size_t i;

	for (i = 0; i < passage->stops; i++)
		if (strcmp(passage->stop[i].limit, limit) == 0 &&
		    strcmp(passage->stop[i].action, action) == 0)
			break;
	if (i == QUOTA_LIMITS_MAX)
		return;
	stop = &passage->stop[i];
	if (i == passage->stops) {
		passage->stops++;
		*stop = (struct stop){
			.action = action, .shadow = shadow, .used = used, .max = max};
		(void)snprintf(stop->limit, sizeof(stop->limit), "%s", limit);
		(void)snprintf(stop->key, sizeof(stop->key), "%s", key);
	}
	stop->recipients++;
}

static void refuse(struct replay *replay, struct passage *passage, const char *limit,
		   const char *action, int64_t used, int64_t max)
{
	stop_at(passage, limit, passage->mailbox->address, action, replay->conf->shadow, used,
		max);
	passage->refused += !replay->conf->shadow;
}

static bool may_use(const struct passage *passage)
{
	const struct conf_source *from = passage->from;

	if (from == NULL || from->mailboxes.count == 0)
		return true;
	for (size_t i = 0; i < from->mailboxes.count; i++)
		if (strcmp(from->mailboxes.item[i], passage->mailbox->name) == 0)
			return true;
	return false;
}

/* What the milter looks at before the limits, in its order. Returns whether it refuses. */
static bool is_forbidden(struct replay *replay, struct passage *passage)
{
	const struct conf_mailbox *mailbox = passage->mailbox;
	const struct mail *mail = passage->mail;
	int64_t before = passage->refused, most = mailbox->recipients_per_message;

	if (!may_use(passage))
		refuse(replay, passage, "sources", "reject", 0, 0);
	else if (mailbox->other_senders == OTHERS_REJECT && mail->sender[0] != '\0' &&
		 !conf_is_sender(mailbox, mail->sender))
		refuse(replay, passage, "senders", "reject", 0, 0);
	else if (mail->bytes > mailbox->message_size)
		refuse(replay, passage, "message_size", "reject", mail->bytes,
		       mailbox->message_size);
	else if (mail->client[0] != '\0' && passage->taken >= most)
		refuse(replay, passage, "recipients_per_message", "defer", passage->taken, most);
	return passage->refused > before;
}

static void one_recipient(struct replay *replay, struct passage *passage, const char *recipient)
{
	const struct conf_mailbox *mailbox = passage->mailbox;
	const struct mail *mail = passage->mail;
	const char *at = strrchr(mail->sender, '@');
	const struct quota_facts facts = {
		.mailbox = mailbox->address,
		.tenant = mailbox->tenant == NULL ? NULL : mailbox->tenant->name,
		.source = passage->source,
		.sender = mail->sender,
		.sender_domain = at == NULL ? "" : at + 1,
		.recipient = recipient,
		.priority = (passage->from != NULL && passage->from->priority) ||
			    conf_is_priority_sender(mailbox, mail->sender),
		.undivided = mail->client[0] == '\0',
	};
	const struct quota_need need = {.messages = 1,
					.recipients = 1,
					.external = conf_is_external(mailbox, recipient),
					.bytes = mail->bytes};
	struct quota_verdict verdict;

	if (is_forbidden(replay, passage))
		return;
	quota_reserve(passage->reserved, &facts, &need, &verdict);
	if (verdict.exceeded)
		stop_at(passage, verdict.limit, verdict.key, policy_action_name(verdict.action),
			verdict.shadowed, verdict.used, verdict.max);
	if (verdict.exceeded && verdict.refused) {
		passage->refused++;
		return;
	}
	passage->taken++;
	passage->held = passage->held ||
			(verdict.exceeded && !verdict.shadowed && verdict.action == QUOTA_HOLD);
}

static const char *source_of(const struct conf *conf, const struct mail *mail,
			     const struct conf_source **from_r)
{
	bool local = mail->client[0] == '\0';
	char user[QUOTA_KEY_MAX + 1];

	(void)snprintf(user, sizeof(user), "%.*s", (int)strcspn(mail->sender, "@"), mail->sender);
	*from_r = conf_source_of(conf, mail->login, local ? NULL : mail->client,
				 local ? user : NULL);
	if (*from_r != NULL)
		return (*from_r)->name;
	return mail->login[0] != '\0' ? mail->login : local ? "local" : mail->client;
}

static void fold(const char *from, char *to, size_t cap)
{
	(void)snprintf(to, cap, "%s", from);
	for (; *to != '\0'; to++)
		if (*to >= 'A' && *to <= 'Z')
			*to = (char)(*to - 'A' + 'a');
}

/* ---- the report ---- */

static struct tally *tally_of(struct replay *replay, const struct stop *stop)
{
	struct tally *tally;

	for (size_t i = 0; i < replay->tallies; i++)
		if (strcmp(replay->tally[i].limit, stop->limit) == 0 &&
		    strcmp(replay->tally[i].action, stop->action) == 0)
			return &replay->tally[i];
	replay->tally = xreallocarray(replay->tally, replay->tallies + 1, sizeof(*tally));
	tally = &replay->tally[replay->tallies++];
	*tally = (struct tally){
		.action = stop->action, .shadow = stop->shadow, .keys = cJSON_CreateObject()};
	memcpy(tally->limit, stop->limit, sizeof(tally->limit));
	return tally;
}

static void count(struct replay *replay, const struct passage *passage, const struct stop *stop)
{
	struct tally *tally = tally_of(replay, stop);
	cJSON *key = cJSON_GetObjectItemCaseSensitive(tally->keys, stop->key);

	if (tally->messages == 0)
		tally->first_ms = passage->mail->at_ms;
	tally->last_ms = passage->mail->at_ms;
	tally->messages++;
	tally->recipients += stop->recipients;
	if (key == NULL)
		key = cJSON_AddNumberToObject(tally->keys, stop->key, 0);
	cJSON_SetNumberValue(key, key->valuedouble + (double)stop->recipients);
}

static void list(struct replay *replay, const struct passage *passage, const struct stop *stop)
{
	cJSON *item;

	if (cJSON_GetArraySize(replay->mail) >= MAIL_SHOWN) {
		replay->more++;
		return;
	}
	item = cJSON_CreateObject();
	json_add_time(item, "at", passage->mail->at_ms);
	(void)cJSON_AddStringToObject(item, "queue_id", passage->mail->id);
	(void)cJSON_AddStringToObject(item, "sender", passage->mail->sender);
	(void)cJSON_AddStringToObject(item, "source", passage->source);
	(void)cJSON_AddStringToObject(item, "mailbox", passage->mailbox->name);
	(void)cJSON_AddNumberToObject(item, "recipients", (double)stop->recipients);
	(void)cJSON_AddStringToObject(item, "limit", stop->limit);
	(void)cJSON_AddStringToObject(item, "key", stop->key);
	(void)cJSON_AddStringToObject(item, "action", stop->action);
	(void)cJSON_AddBoolToObject(item, "shadow", stop->shadow);
	(void)cJSON_AddNumberToObject(item, "used", (double)stop->used);
	(void)cJSON_AddNumberToObject(item, "max", (double)stop->max);
	(void)cJSON_AddItemToArray(replay->mail, item);
}

/* ---- a message, and all of them ---- */

static void finish(struct replay *replay, struct passage *passage)
{
	/* Local mail can't be refused in part. */
	if (passage->refused > 0 && passage->mail->client[0] == '\0') {
		passage->refused += passage->taken;
		passage->taken = 0;
	}
	if (passage->taken > 0)
		(void)quota_charge(passage->reserved, false, NULL, NULL);
	if (passage->held)
		passage->refused += passage->taken;
	replay->stopped_messages += passage->refused > 0;
	replay->stopped_recipients += passage->refused;
	for (size_t i = 0; i < passage->stops; i++) {
		count(replay, passage, &passage->stop[i]);
		list(replay, passage, &passage->stop[i]);
	}
}

static void pass(struct replay *replay, const struct mail *mail)
{
	struct passage passage = {.mail = mail};
	char recipient[QUOTA_KEY_MAX + 1];

	passage.mailbox = conf_mailbox_by_sender(replay->conf, mail->sender);
	if (mail->recipients == 0 || passage.mailbox == NULL) {
		replay->elsewhere++;
		return;
	}
	replay->messages++;
	replay->recipients += (int64_t)mail->recipients;
	quota_set_time(replay->quota, mail->at_ms);
	if (mail->at_ms - replay->swept_ms >= SWEEP_MS) {
		(void)quota_sweep(replay->quota, SWEEP_MS);
		replay->swept_ms = mail->at_ms;
	}
	passage.source = source_of(replay->conf, mail, &passage.from);
	passage.reserved = quota_message_new(replay->quota);
	for (size_t i = 0; i < mail->recipients; i++) {
		fold(mail->recipient[i], recipient, sizeof(recipient));
		one_recipient(replay, &passage, recipient);
	}
	finish(replay, &passage);
	quota_message_free(&passage.reserved);
}

static cJSON *top_of(const struct tally *tally)
{
	cJSON *top = cJSON_CreateArray();

	for (int i = 0; i < TOP_SHOWN; i++) {
		cJSON *item, *most = NULL, *shown;

		cJSON_ArrayForEach (item, tally->keys)
			if (most == NULL || item->valuedouble > most->valuedouble)
				most = item;
		if (most == NULL)
			break;
		shown = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(shown, "key", most->string);
		(void)cJSON_AddNumberToObject(shown, "recipients", most->valuedouble);
		(void)cJSON_AddItemToArray(top, shown);
		cJSON_Delete(cJSON_DetachItemViaPointer(tally->keys, most));
	}
	return top;
}

static void add_tally(cJSON *limits, const struct tally *tally)
{
	cJSON *item = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(item, "limit", tally->limit);
	(void)cJSON_AddStringToObject(item, "action", tally->action);
	(void)cJSON_AddBoolToObject(item, "shadow", tally->shadow);
	(void)cJSON_AddNumberToObject(item, "messages", (double)tally->messages);
	(void)cJSON_AddNumberToObject(item, "recipients", (double)tally->recipients);
	json_add_time(item, "first", tally->first_ms);
	json_add_time(item, "last", tally->last_ms);
	(void)cJSON_AddNumberToObject(item, "keys", cJSON_GetArraySize(tally->keys));
	(void)cJSON_AddItemToObject(item, "top", top_of(tally));
	(void)cJSON_AddItemToArray(limits, item);
}

cJSON *what_if_replay(const struct conf *conf, const struct mail *mails, size_t n)
{
	size_t limits_count;
	struct quota_limit *limits = limits_from_conf(conf, &limits_count);
	struct replay replay = {.conf = conf, .mail = cJSON_CreateArray()};
	cJSON *json = cJSON_CreateObject(), *list_of_limits;

	replay.quota = quota_simulate(limits, limits_count);
	for (size_t i = 0; i < n; i++)
		pass(&replay, &mails[i]);
	(void)cJSON_AddStringToObject(json, "configuration", conf->path);
	if (n > 0) {
		json_add_time(json, "from", mails[0].at_ms);
		json_add_time(json, "to", mails[n - 1].at_ms);
	}
	(void)cJSON_AddNumberToObject(json, "messages", (double)replay.messages);
	(void)cJSON_AddNumberToObject(json, "recipients", (double)replay.recipients);
	(void)cJSON_AddNumberToObject(json, "elsewhere", (double)replay.elsewhere);
	(void)cJSON_AddNumberToObject(json, "stopped_messages", (double)replay.stopped_messages);
	(void)cJSON_AddNumberToObject(json, "stopped_recipients",
				      (double)replay.stopped_recipients);
	list_of_limits = cJSON_AddArrayToObject(json, "limits");
	for (size_t i = 0; i < replay.tallies; i++) {
		add_tally(list_of_limits, &replay.tally[i]);
		cJSON_Delete(replay.tally[i].keys);
	}
	(void)cJSON_AddItemToObject(json, "mail", replay.mail);
	(void)cJSON_AddNumberToObject(json, "more", (double)replay.more);
	free(replay.tally);
	free(limits);
	quota_close(&replay.quota);
	return json;
}

/* ---- for reading ---- */

static bool is_shadow(const cJSON *item)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "shadow"));
}

static void print_limit(const cJSON *limit)
{
	const cJSON *key;

	(void)printf("\n%s: %s%s %lld messages, %lld recipients, from %s to %s\n",
		     ctl_text(limit, "limit"), ctl_text(limit, "action"),
		     is_shadow(limit) ? " (shadow)" : "", ctl_number(limit, "messages"),
		     ctl_number(limit, "recipients"), ctl_text(limit, "first"),
		     ctl_text(limit, "last"));
	cJSON_ArrayForEach (key, cJSON_GetObjectItemCaseSensitive(limit, "top"))
		(void)printf("  %8lld  %s\n", ctl_number(key, "recipients"),
			     ctl_text(key, "key"));
}

static void print_mail(const cJSON *mail)
{
	(void)printf("%s %s <%s> of %s, %lld recipients: %s%s by %s", ctl_text(mail, "at"),
		     ctl_text(mail, "queue_id"), ctl_text(mail, "sender"),
		     ctl_text(mail, "source"), ctl_number(mail, "recipients"),
		     ctl_text(mail, "action"), is_shadow(mail) ? " (shadow)" : "",
		     ctl_text(mail, "limit"));
	if (ctl_number(mail, "max") > 0)
		(void)printf(", %s: %lld of %lld", ctl_text(mail, "key"),
			     ctl_number(mail, "used"), ctl_number(mail, "max"));
	(void)printf("\n");
}

void what_if_print(const cJSON *result)
{
	const cJSON *item;

	(void)printf(
		"%lld messages to %lld recipients from %s to %s go through relay365, %lld "
		"elsewhere.\n%lld messages to %lld recipients would have been refused or put "
		"on hold.\n",
		ctl_number(result, "messages"), ctl_number(result, "recipients"),
		ctl_text(result, "from"), ctl_text(result, "to"), ctl_number(result, "elsewhere"),
		ctl_number(result, "stopped_messages"), ctl_number(result, "stopped_recipients"));
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(result, "limits"))
		print_limit(item);
	(void)printf("\n");
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(result, "mail"))
		print_mail(item);
	if (ctl_number(result, "more") > 0)
		(void)printf("and %lld more\n", ctl_number(result, "more"));
}
