#include "ctl/setup_tenant.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/xalloc.h"
#include "ctl/certificate.h"
#include "ctl/handover_text.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MAX = 256 * 1024, WORD_MAX = 1024 };

/* The words between two @ in a template and what stands for them. */
struct filling {
	const char *word;
	char *value;
};

enum { FILLINGS = 13 };

/* Each mailbox with what goes around it. */
static char *each_mailbox(const struct tenant *tenant, const char *before, const char *after,
			  const char *between)
{
	const char *list = tenant->answers.mailboxes;
	struct buf text = BUF_INIT(TEXT_MAX);
	char address[WORD_MAX], *copy;

	while (tenant_next_word(&list, address, sizeof(address)))
		(void)buf_addf(&text, "%s%s%s%s", text.len > 0 ? between : "", before, address,
			       after);
	copy = xstrdup(buf_text(&text));
	buf_clear(&text);
	return copy;
}

/* The addresses that the default mailbox shall send as: for PowerShell, or for reading. */
static char *send_as(const struct tenant *tenant, bool powershell)
{
	const char *list = tenant->answers.send_as, *mailboxes = tenant->answers.mailboxes;
	struct buf text = BUF_INIT(TEXT_MAX);
	char address[WORD_MAX], mailbox[WORD_MAX] = "", *copy;

	(void)tenant_next_word(&mailboxes, mailbox, sizeof(mailbox));
	if (!powershell)
		(void)buf_addf(&text,
			       "- %s takes mail from each address in %s. For each that devices "
			       "use, and that is a mailbox or group:\n  "
			       "`Add-RecipientPermission -Identity ADDRESS -Trustee %s "
			       "-AccessRights SendAs`",
			       mailbox, tenant->domains, mailbox);
	while (tenant_next_word(&list, address, sizeof(address)))
		(void)buf_addf(&text,
			       powershell ? "%s@{ Sender = '%s'; Mailbox = '%s' }"
					  : "%s- %s by %s (in `grant.ps1`)",
			       powershell && text.len == 0 ? "" : "\n    ", address, mailbox);
	copy = xstrdup(buf_text(&text));
	buf_clear(&text);
	return copy;
}

static char *or_else(const char *text, const char *other)
{
	return xstrdup(text[0] != '\0' ? text : other);
}

static int fill_in(const struct tenant *tenant, struct filling filling[FILLINGS], struct err *err)
{
	const struct tenant_answers *answers = &tenant->answers;
	struct certificate_facts facts = {.thumbprint = "-", .not_after = "-"};
	bool secret = answers->secret_file[0] != '\0';
	char host[256] = "", date[CLOCK_TEXT_MAX];
	const struct filling made[FILLINGS] = {
		{"TENANT", xstrdup(answers->id)},
		{"CLIENT_ID", xstrdup(answers->client_id)},
		{"OBJECT_ID", xstrdup(answers->object_id)},
		{"ADDRESS", or_else(answers->address, "(its public IP address)")},
		{"CERTIFICATE", secret ? xstrdup("none: a client secret is used")
				       : xasprintf("%s.crt", tenant->name)},
		{"MAILBOX_LIST", each_mailbox(tenant, "- ", "", "\n")},
		{"MAILBOX_ARRAY", each_mailbox(tenant, "'", "'", ", ")},
		{"SEND_AS_LIST", send_as(tenant, false)},
		{"SEND_AS_ARRAY", send_as(tenant, true)},
	};

	memcpy(filling, made, sizeof(made));
	if (!secret && certificate_read(tenant->certificate, &facts, err) < 0)
		return -1;
	if (gethostname(host, sizeof(host) - 1) < 0)
		(void)snprintf(host, sizeof(host), "the relay");
	(void)clock_rfc3339(clock_wall_ms(), date);
	filling[9] = (struct filling){"HOST", xstrdup(host)};
	filling[10] = (struct filling){"DATE", xstrndup(date, 10)};
	filling[11] = (struct filling){"THUMBPRINT", xstrdup(facts.thumbprint)};
	filling[12] = (struct filling){"NOT_AFTER", xstrdup(facts.not_after)};
	return 0;
}

static const struct filling *find(const struct filling *filling, const char *word, size_t len)
{
	for (size_t i = 0; i < FILLINGS; i++)
		if (strlen(filling[i].word) == len && strncmp(filling[i].word, word, len) == 0)
			return &filling[i];
	return NULL;
}

static void add_line(struct buf *text, const char *line, const struct filling *filling)
{
	while (line[0] != '\0') {
		const char *end = line[0] == '@' ? strchr(line + 1, '@') : NULL;
		const struct filling *with =
			end == NULL ? NULL : find(filling, line + 1, (size_t)(end - line - 1));

		if (with != NULL) {
			(void)buf_adds(text, with->value);
			line = end + 1;
		} else {
			(void)buf_add(text, line++, 1);
		}
	}
	(void)buf_adds(text, "\n");
}

static int write_file(const struct tenant *tenant, const char *name, const char *const *line,
		      const struct filling *filling, struct err *err)
{
	struct buf text = BUF_INIT(TEXT_MAX);
	char *path = xasprintf("%s/%s", tenant->handover, name);
	int result;

	for (; *line != NULL; line++)
		add_line(&text, *line, filling);
	result = file_replace(path, buf_text(&text), text.len, 0644, err);
	free(path);
	buf_clear(&text);
	return result;
}

static int copy_certificate(const struct tenant *tenant, struct err *err)
{
	struct buf text = BUF_INIT(TEXT_MAX);
	char *path = xasprintf("%s/%s.crt", tenant->handover, tenant->name);
	int result = 0;

	if (tenant->answers.secret_file[0] == '\0') {
		result = file_read(tenant->certificate, &text, err);
		if (result == 0)
			result = file_replace(path, buf_text(&text), text.len, 0644, err);
	}
	free(path);
	buf_clear(&text);
	return result;
}

int tenant_handover(const struct tenant *tenant, struct err *err)
{
	struct filling filling[FILLINGS] = {{NULL, NULL}};
	int result;

	if (mkdir(tenant->handover, 0755) < 0 && errno != EEXIST)
		return err_set(err, ERR_CONFIG, "cannot make %s: %s", tenant->handover,
			       err_no(errno));
	result = fill_in(tenant, filling, err);
	if (result == 0)
		result = write_file(tenant, "handover.md", handover_md, filling, err);
	if (result == 0)
		result = write_file(tenant, "grant.ps1", grant_ps1, filling, err);
	if (result == 0)
		result = write_file(tenant, "audit.ps1", audit_ps1, filling, err);
	if (result == 0)
		result = copy_certificate(tenant, err);
	for (size_t i = 0; i < FILLINGS; i++)
		free(filling[i].value);
	return result;
}
