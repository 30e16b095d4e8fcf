#include "maillog/mails.h"

#include "base/hash.h"
#include "base/xalloc.h"

enum { LOGINS = 512, PID_MAX = 12, TABLE_MIN = 1024 };

/* An open hash table of indexes into an array of strings; 0 is free. */
struct table {
	uint32_t *slot;
	size_t slots; /* a power of two */
	size_t used;
};

/* Sendmail tells the login of a session in a line of its own. */
struct login {
	char pid[PID_MAX];
	const char *name;
};

/* Each string is kept once. */
struct string {
	char *text;
	size_t mail; /* the number of the last message that had it as its id; 0: none */
};

struct mails {
	struct mail *mail;
	size_t count, cap;
	struct string *string;
	size_t strings, strings_cap;
	struct table known; /* string -> itself */
	struct login login[LOGINS];
	size_t logins;
	bool sorted;
};

/* ---- strings ---- */

static const uint64_t seed[2] = {0x243f6a8885a308d3, 0x13198a2e03707344};

/* The slot of a string: the one that holds it, or the free one where it belongs. */
static uint32_t *find_slot(const struct mails *mails, const char *data, size_t len)
{
	const struct table *table = &mails->known;
	size_t at = hash_bytes(seed, data, len) & (table->slots - 1);

	for (;; at = (at + 1) & (table->slots - 1)) {
		const char *there;

		if (table->slot[at] == 0)
			return &table->slot[at];
		there = mails->string[table->slot[at] - 1].text;
		if (strlen(there) == len && memcmp(there, data, len) == 0)
			return &table->slot[at];
	}
}

static void make_room(struct mails *mails)
{
	struct table *table = &mails->known, old = *table;

	if (table->used * 2 < table->slots)
		return;
	table->slots = table->slots == 0 ? TABLE_MIN : table->slots * 2;
	table->slot = xcalloc(table->slots, sizeof(*table->slot));
	for (size_t i = 0; i < old.slots; i++) {
		const char *there;

		if (old.slot[i] == 0)
			continue;
		there = mails->string[old.slot[i] - 1].text;
		*find_slot(mails, there, strlen(there)) = old.slot[i];
	}
	free(old.slot);
}

/* Valid until the next is kept; its text stays. */
static struct string *keep_string(struct mails *mails, const struct logtext *text)
{
	uint32_t *slot;

	make_room(mails);
	slot = find_slot(mails, text->data, text->len);
	if (*slot == 0) {
		if (mails->strings == mails->strings_cap) {
			mails->strings_cap =
				mails->strings_cap == 0 ? 256 : mails->strings_cap * 2;
			mails->string = xreallocarray(mails->string, mails->strings_cap,
						      sizeof(*mails->string));
		}
		mails->string[mails->strings++] =
			(struct string){.text = xstrndup(text->data, text->len)};
		*slot = (uint32_t)mails->strings;
		mails->known.used++;
	}
	return &mails->string[*slot - 1];
}

static const char *keep(struct mails *mails, const struct logtext *text)
{
	return text->len == 0 ? "" : keep_string(mails, text)->text;
}

/* ---- messages ---- */

/* One that was removed has its id until that comes again. */
static struct mail *find(const struct mails *mails, const struct logtext *id)
{
	const uint32_t *slot;
	size_t number;

	if (mails->strings == 0)
		return NULL;
	slot = find_slot(mails, id->data, id->len);
	number = *slot == 0 ? 0 : mails->string[*slot - 1].mail;
	return number == 0 ? NULL : &mails->mail[number - 1];
}

/* A new message, also when its id was another's before. NULL: there are too many. */
static struct mail *begin(struct mails *mails, const struct logline *line)
{
	struct string *id;
	struct mail *mail;

	if (mails->count == MAILS_MAX)
		return NULL;
	if (mails->count == mails->cap) {
		mails->cap = mails->cap == 0 ? 256 : mails->cap * 2;
		mails->mail = xreallocarray(mails->mail, mails->cap, sizeof(*mails->mail));
	}
	id = keep_string(mails, &line->id);
	mail = &mails->mail[mails->count++];
	*mail = (struct mail){.at_ms = line->at_ms,
			      .number = mails->count,
			      .id = id->text,
			      .sender = "",
			      .login = "",
			      .client = ""};
	id->mail = mail->number;
	return mail;
}

static void add_recipient(struct mails *mails, struct mail *mail, const struct logtext *address)
{
	const char *kept = keep(mails, address);

	for (size_t i = 0; i < mail->recipients; i++)
		if (mail->recipient[i] == kept)
			return; /* another attempt */
	if (mail->recipients == MAILS_RECIPIENTS_MAX)
		return;
	if ((mail->recipients & (mail->recipients - 1)) == 0)
		mail->recipient = xreallocarray(mail->recipient,
						mail->recipients == 0 ? 1 : mail->recipients * 2,
						sizeof(*mail->recipient));
	mail->recipient[mail->recipients++] = kept;
}

static int64_t number(const struct logline *line, const char *key)
{
	struct logtext value;
	int64_t n = 0;

	if (!logline_value(line, key, &value))
		return 0;
	for (size_t i = 0; i < value.len && i < 15; i++) {
		if (value.data[i] < '0' || value.data[i] > '9')
			return 0;
		n = n * 10 + (value.data[i] - '0');
	}
	return n;
}

/* What stands in the last brackets of "host[10.1.0.5]" or "host [10.1.0.5]". */
static struct logtext in_brackets(struct logtext text)
{
	struct logtext found = {text.data, 0};

	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] == '[')
			found = (struct logtext){text.data + i + 1, text.len - i - 1};
		else if (text.data[i] == ',')
			break;
	}
	for (size_t i = 0; i < found.len; i++)
		if (found.data[i] == ']')
			found.len = i;
	/* "[IPv6:2001:db8::1]", as Sendmail writes it. */
	if (logtext_begins(&found, "IPv6:"))
		found = (struct logtext){found.data + 5, found.len - 5};
	return found;
}

/* To this machine again: a content filter. What comes back from there is counted. */
static bool is_loopback(const struct logline *line)
{
	struct logtext relay, address;

	if (!logline_behind(line, "relay", &relay))
		return false;
	address = in_brackets(relay);
	return logtext_is(&address, "127.0.0.1") || logtext_is(&address, "::1");
}

/* ---- Postfix ---- */

static bool postfix_arrives(struct mails *mails, const struct logline *line)
{
	struct mail *mail = begin(mails, line);
	struct logtext value;

	if (mail == NULL)
		return false;
	/* Behind a content filter the first client is told as well. */
	if (logline_behind(line, "orig_client", &value) ||
	    logline_behind(line, "client", &value)) {
		struct logtext address = in_brackets(value);

		mail->client = keep(mails, &address);
	}
	if (logline_value(line, "sasl_username", &value))
		mail->login = keep(mails, &value);
	return true;
}

/* "orig_id=4FA2B": postsuper -r gives a message that is counted another queue id. */
static void postfix_requeued(struct mails *mails, const struct logline *line,
			     const struct logtext *before)
{
	const struct mail *mail = find(mails, before);

	keep_string(mails, &line->id)->mail = mail == NULL ? 0 : mail->number;
}

static void postfix_queued(struct mails *mails, const struct logline *line)
{
	struct mail *mail = find(mails, &line->id);
	struct logtext value;

	if (mail != NULL && mail->bytes == 0 && logline_value(line, "from", &value)) {
		mail->sender = keep(mails, &value);
		mail->bytes = number(line, "size");
	}
}

static void postfix_tries(struct mails *mails, const struct logline *line)
{
	struct mail *mail = find(mails, &line->id);
	struct logtext value;

	if (mail == NULL || is_loopback(line))
		return;
	/* The milter sees what the client named, before aliases. */
	if (logline_value(line, "orig_to", &value) || logline_value(line, "to", &value))
		add_recipient(mails, mail, &value);
}

static struct logtext last_part(const struct logtext *program)
{
	struct logtext part = *program;

	for (size_t i = 0; i < program->len; i++)
		if (program->data[i] == '/')
			part = (struct logtext){program->data + i + 1, program->len - i - 1};
	return part;
}

static bool postfix_line(struct mails *mails, const struct logline *line)
{
	struct logtext part = last_part(&line->program), before;

	if (logtext_is(&part, "pickup") && logline_value(line, "orig_id", &before)) {
		postfix_requeued(mails, line, &before);
		return true;
	}
	if ((logtext_is(&part, "smtpd") && logtext_begins(&line->text, "client=")) ||
	    (logtext_is(&part, "pickup") && logtext_begins(&line->text, "uid=")))
		return postfix_arrives(mails, line);
	if (logtext_is(&part, "qmgr") && logtext_begins(&line->text, "from="))
		postfix_queued(mails, line);
	if (logtext_begins(&line->text, "to=") &&
	    (logtext_is(&part, "smtp") || logtext_is(&part, "error") ||
	     logtext_is(&part, "retry")))
		postfix_tries(mails, line);
	return true;
}

/* ---- Sendmail ---- */

/* Of the session whose process this is; NULL: it has not signed in. */
static struct login *login_of(struct mails *mails, const struct logline *line)
{
	for (size_t i = 0; i < LOGINS && line->pid.len > 0; i++)
		if (logtext_is(&line->pid, mails->login[i].pid))
			return &mails->login[i];
	return NULL;
}

static void sendmail_login(struct mails *mails, const struct logline *line)
{
	struct login *login = login_of(mails, line);
	struct logtext value;

	if (login == NULL)
		login = &mails->login[mails->logins++ % LOGINS];
	(void)logtext_copy(&line->pid, login->pid, sizeof(login->pid));
	login->name = logline_value(line, "authid", &value) ? keep(mails, &value) : "";
}

static bool sendmail_arrives(struct mails *mails, const struct logline *line)
{
	struct login *login = login_of(mails, line);
	struct mail *mail = begin(mails, line);
	struct logtext value;

	if (mail == NULL)
		return false;
	if (login != NULL)
		mail->login = login->name;
	if (logline_value(line, "from", &value))
		mail->sender = keep(mails, &value);
	if (logline_behind(line, "relay", &value)) {
		value = in_brackets(value);
		mail->client = keep(mails, &value);
	}
	mail->bytes = number(line, "size");
	return true;
}

static void sendmail_tries(struct mails *mails, const struct logline *line)
{
	struct mail *mail = find(mails, &line->id);
	struct logtext list, address, mailer;

	if (mail == NULL || is_loopback(line) || !logline_behind(line, "to", &list) ||
	    (logline_value(line, "mailer", &mailer) &&
	     (logtext_is(&mailer, "local") || logtext_is(&mailer, "prog"))))
		return;
	while (logline_next_address(&list, &address))
		add_recipient(mails, mail, &address);
}

static bool sendmail_line(struct mails *mails, const struct logline *line)
{
	if (logtext_begins(&line->text, "AUTH=server"))
		sendmail_login(mails, line);
	else if (line->id.len > 0 && logtext_begins(&line->text, "from="))
		return sendmail_arrives(mails, line);
	else if (line->id.len > 0 && logtext_begins(&line->text, "to="))
		sendmail_tries(mails, line);
	return true;
}

/* ---- the log ---- */

struct mails *mails_new(void)
{
	return xcalloc(1, sizeof(struct mails));
}

void mails_free(struct mails **mails)
{
	struct mails *m = *mails;

	if (m == NULL)
		return;
	for (size_t i = 0; i < m->count; i++)
		free(m->mail[i].recipient);
	for (size_t i = 0; i < m->strings; i++)
		free(m->string[i].text);
	free(m->mail);
	free(m->string);
	free(m->known.slot);
	free(m);
	*mails = NULL;
}

bool mails_add(struct mails *mails, const struct logline *line)
{
	if (logtext_begins(&line->program, "sm-") || logtext_is(&line->program, "sendmail"))
		return sendmail_line(mails, line);
	return line->id.len == 0 || postfix_line(mails, line);
}

/*
 * Within a second as in the log. Queue ids don't tell: Postfix's short ones begin
 * anew each second, and a log's clock may be a moment behind theirs.
 */
static int by_arrival(const void *a, const void *b)
{
	const struct mail *x = a, *y = b;

	if (x->at_ms != y->at_ms)
		return x->at_ms < y->at_ms ? -1 : 1;
	return x->number < y->number ? -1 : 1;
}

const struct mail *mails_all(struct mails *mails, size_t *count_r)
{
	/* Ids point into the array no more; no line comes after this. */
	if (!mails->sorted && mails->count > 0)
		qsort(mails->mail, mails->count, sizeof(*mails->mail), by_arrival);
	mails->sorted = true;
	*count_r = mails->count;
	return mails->mail;
}
