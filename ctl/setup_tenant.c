/* relay365 setup tenant: relay365.conf, a key and certificate, and what the Entra and
 * Exchange admin needs. */
#include "ctl/setup_tenant.h"

#include "base/file.h"
#include "base/xalloc.h"
#include "ctl/certificate.h"

#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MAX = 256 * 1024, ANSWER_MAX = 1024 };

/* What is asked for: an option, or a question at a terminal. */
static const struct question {
	const char *option;
	const char *text;
	bool required;
	size_t at; /* in struct tenant_answers */
} questions[TENANT_QUESTIONS] = {
#define AT(member) offsetof(struct tenant_answers, member)
	{"--id", "Tenant: its id, or a domain such as contoso.onmicrosoft.com", true, AT(id)},
	{"--mailboxes", "Mailboxes that shall send, the default one first", true, AT(mailboxes)},
	{"--client-id", "Application (client) id, empty if the Entra admin has yet to make it",
	 false, AT(client_id)},
	{"--domains", "Accepted domains of the tenant, empty for those of the mailboxes", false,
	 AT(domains)},
	{"--send-as", "Other addresses that the default mailbox shall send as", false,
	 AT(send_as)},
	{"--postmaster", "Address for alarms, empty for the default mailbox", false,
	 AT(postmaster)},
	{"--address", "This relay's public IP address, for Conditional Access", false,
	 AT(address)},
	{"--secret-file", NULL, false, AT(secret_file)},
	{"--object-id", NULL, false, AT(object_id)},
	{"--licences", NULL, false, AT(licences)},
#undef AT
};

static const char **answer_at(struct tenant_answers *answers, size_t i)
{
	return (const char **)(void *)((char *)answers + questions[i].at);
}

/* ---- lists: "a, b" ---- */

bool tenant_next_word(const char **list, char *word, size_t cap)
{
	size_t len;

	*list += strspn(*list, ", ");
	len = strcspn(*list, ", ");
	/* One that is cut is too long for the configuration all the same. */
	(void)snprintf(word, cap, "%.*s", (int)len, *list);
	*list += len;
	return len > 0;
}

static bool has_word(const char *list, const char *wanted)
{
	char word[ANSWER_MAX];

	while (tenant_next_word(&list, word, sizeof(word)))
		if (strcasecmp(word, wanted) == 0)
			return true;
	return false;
}

/* ---- what was given ---- */

/* Nothing that a script, a configuration or a shell would take for more than a word. */
static int check_words(const char *option, const char *text, struct err *err)
{
	for (const char *at = text; *at != '\0'; at++)
		if (!isalnum((unsigned char)*at) && strchr("._+-@,: /", *at) == NULL)
			return err_set(err, ERR_CONFIG,
				       "%s: the character \"%c\" can't stand here", option, *at);
	return 0;
}

/* One line from the terminal, to be freed. */
static char *ask(const char *text)
{
	char line[ANSWER_MAX];

	(void)printf("%s: ", text);
	if (fflush(stdout) != 0 || fgets(line, sizeof(line), stdin) == NULL)
		return xstrdup("");
	line[strcspn(line, "\r\n")] = '\0';
	return xstrdup(line);
}

static int check_addresses(const char *option, const char *list, struct err *err)
{
	char word[ANSWER_MAX];

	while (tenant_next_word(&list, word, sizeof(word)))
		if (strchr(word, '@') == NULL)
			return err_set(err, ERR_CONFIG, "%s: \"%s\" is no mail address", option,
				       word);
	return 0;
}

/* What is easily said of an option; all else, the configuration that is made of them says. */
static int check_answers(const struct tenant_answers *answers, struct err *err)
{
	const char *list = answers->send_as;
	char word[ANSWER_MAX];

	if (check_addresses("--mailboxes", answers->mailboxes, err) < 0 ||
	    check_addresses("--send-as", answers->send_as, err) < 0)
		return -1;
	while (tenant_next_word(&list, word, sizeof(word)))
		if (has_word(answers->mailboxes, word))
			return err_set(
				err, ERR_CONFIG,
				"--send-as: %s is one of the mailboxes and sends for itself",
				word);
	return 0;
}

static int complete(struct tenant *tenant, struct err *err)
{
	struct tenant_answers *answers = &tenant->answers;
	bool terminal = isatty(STDIN_FILENO) == 1;

	for (size_t i = 0; i < ARRAY_LEN(questions); i++) {
		const char **answer = answer_at(answers, i);

		if (*answer == NULL && terminal && questions[i].text != NULL)
			*answer = tenant->typed[i] = ask(questions[i].text);
		if (*answer == NULL)
			*answer = "";
		if (questions[i].required && (*answer)[0] == '\0')
			return err_set(err, ERR_CONFIG, "%s is needed: %s", questions[i].option,
				       questions[i].text);
		if (check_words(questions[i].option, *answer, err) < 0)
			return -1;
	}
	return check_answers(answers, err);
}

static bool is_number(const char *text)
{
	return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* "contoso" of "contoso.onmicrosoft.com", "relay" of "relay@contoso.com": fit for a name. */
static void name_of(const char *text, char *name, size_t cap)
{
	size_t n = 0;

	for (; *text != '\0' && *text != '.' && *text != '@' && n + 1 < cap; text++)
		if (isalnum((unsigned char)*text) || (*text == '-' && n > 0))
			name[n++] = (char)tolower((unsigned char)*text);
	name[n] = '\0';
	if (n == 0 || isdigit((unsigned char)name[0]))
		(void)snprintf(name, cap, "tenant");
}

/* The domains of the mailboxes, each once, when none were given. */
static char *domains_of(const struct tenant_answers *answers)
{
	struct buf text = BUF_INIT(TEXT_MAX);
	const char *list = answers->mailboxes;
	char word[ANSWER_MAX], *copy;

	if (answers->domains[0] != '\0')
		return xstrdup(answers->domains);
	while (tenant_next_word(&list, word, sizeof(word))) {
		const char *at = strchr(word, '@');

		if (at != NULL && !has_word(buf_text(&text), at + 1))
			(void)buf_addf(&text, "%s%s", text.len > 0 ? "," : "", at + 1);
	}
	copy = xstrdup(buf_text(&text));
	buf_clear(&text);
	return copy;
}

/* ---- relay365.conf ---- */

static void add_list(struct buf *text, const char *list, const char *before)
{
	char word[ANSWER_MAX];
	bool first = true;

	while (tenant_next_word(&list, word, sizeof(word))) {
		(void)buf_addf(text, "%s\"%s%s\"", first ? "" : ", ", before, word);
		first = false;
	}
}

/* That of its address, with a number when it is among names, the others'. */
static void name_mailbox(const char *address, struct buf *names, char name[CONF_NAME_MAX + 1])
{
	char base[CONF_NAME_MAX + 1];

	name_of(address, base, sizeof(base));
	(void)snprintf(name, CONF_NAME_MAX + 1, "%s", base);
	for (unsigned int n = 2; has_word(buf_text(names), name); n++)
		(void)snprintf(name, CONF_NAME_MAX + 1, "%.*s-%u", CONF_NAME_MAX - 5, base, n);
	(void)buf_addf(names, "%s,", name);
}

static void add_mailboxes(const struct tenant *tenant, struct buf *text)
{
	const char *list = tenant->answers.mailboxes;
	char address[ANSWER_MAX], name[CONF_NAME_MAX + 1];
	struct buf names = BUF_INIT(TEXT_MAX);
	bool first = true;

	(void)buf_adds(text, "\nmailboxes: {\n");
	while (tenant_next_word(&list, address, sizeof(address))) {
		name_mailbox(address, &names, name);
		(void)buf_addf(text, "  %s: {\n    address = \"%s\"\n    tenant = \"%s\"\n", name,
			       address, tenant->name);
		(void)buf_adds(text, "    senders = [");
		if (first) {
			add_list(text, tenant->domains, "*@");
			(void)buf_adds(text, tenant->answers.send_as[0] != '\0' ? ", " : "");
			add_list(text, tenant->answers.send_as, "");
			(void)buf_adds(text, "]\n    default = true\n"
					     "    other_senders = \"rewrite\"  # cron, printers: "
					     "From becomes this mailbox\n  }\n");
		} else {
			(void)buf_addf(text, "\"%s\"]\n  }\n", address);
		}
		first = false;
	}
	(void)buf_adds(text, "}\n");
	buf_clear(&names);
}

static void make_configuration(const struct tenant *tenant, struct buf *text)
{
	const struct tenant_answers *answers = &tenant->answers;
	char first[ANSWER_MAX] = "";
	const char *list = answers->mailboxes;

	(void)tenant_next_word(&list, first, sizeof(first));
	(void)buf_addf(text,
		       "# Made by relay365 setup tenant. relay365.conf(5) tells of all keys.\n"
		       "postmaster = \"%s\"\n\ntenants: {\n  %s: {\n    id = \"%s\"\n"
		       "    client_id = \"%s\"\n",
		       answers->postmaster[0] != '\0' ? answers->postmaster : first, tenant->name,
		       answers->id,
		       answers->client_id[0] != '\0' ? answers->client_id : TENANT_NO_CLIENT);
	if (answers->secret_file[0] != '\0')
		(void)buf_addf(text, "    secret_file = \"%s\"\n", tenant->secret_file);
	else
		(void)buf_addf(text, "    certificate = \"%s\"\n    private_key = \"%s\"\n",
			       tenant->certificate, tenant->key);
	(void)buf_adds(text, "    accepted_domains = [");
	add_list(text, tenant->domains, "");
	(void)buf_adds(text, "]\n");
	if (answers->licences[0] != '\0')
		(void)buf_addf(text,
			       is_number(answers->licences) ? "    licences = %s\n"
							    : "    licences = \"%s\"\n",
			       answers->licences);
	(void)buf_adds(text, "  }\n}\n");
	add_mailboxes(tenant, text);
}

/* ---- writing ---- */

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* Tried as a file of its own, before it takes the place of one that works. */
static int check_text(const struct tenant *tenant, const struct buf *text, struct err *err)
{
	char *trial = xasprintf("%s.trial", tenant->conf_path);
	size_t len = strlen(trial);
	struct conf *conf = NULL;
	struct err wrong = ERR_INIT;
	const char *why = wrong.text;
	int result = file_replace(trial, buf_text(text), text->len, 0644, err);

	if (result == 0)
		conf = conf_load(trial, &wrong);
	if (result == 0 && conf == NULL) {
		/* Nobody can look at its lines. */
		if (strncmp(why, trial, len) == 0)
			why += len + strspn(why + len, ":0123456789");
		result = err_set(err, ERR_CONFIG,
				 "nothing is written, for the configuration would be wrong:%s%s",
				 why[0] == ' ' ? "" : " ", why);
	}
	conf_free(&conf);
	(void)unlink(trial);
	free(trial);
	return result;
}

/* tokend's user must read the key; without that user (not installed) it stays root's. */
static int make_credential(const struct tenant *tenant, struct err *err)
{
	const struct passwd *user = getpwnam("relay365");
	int result;

	if (tenant->answers.secret_file[0] != '\0' ||
	    (exists(tenant->certificate) && exists(tenant->key)))
		return 0;
	result = certificate_make(tenant->certificate, tenant->key, "relay365", err);
	if (result == 0 && user != NULL && geteuid() == 0 &&
	    chown(tenant->key, user->pw_uid, user->pw_gid) < 0)
		result = err_set(err, ERR_TEMP, "cannot give %s to relay365: %s", tenant->key,
				 err_no(errno));
	return result;
}

static int write_all(struct tenant *tenant, bool replace, struct err *err)
{
	struct buf text = BUF_INIT(TEXT_MAX);
	bool made = !exists(tenant->certificate) && !exists(tenant->key);
	int result;

	if (exists(tenant->conf_path) && !replace)
		return err_set(
			err, ERR_CONFIG,
			"%s is there already; --replace writes it anew (keys stay), or add "
			"to it by hand: relay365.conf(5)",
			tenant->conf_path);
	if (mkdir(tenant->folder, 0755) < 0 && errno != EEXIST)
		return err_set(err, ERR_CONFIG, "cannot make %s: %s", tenant->folder,
			       err_no(errno));
	if (make_credential(tenant, err) < 0)
		return -1;
	make_configuration(tenant, &text);
	result = check_text(tenant, &text, err);
	if (result < 0 && made) {
		(void)unlink(tenant->certificate);
		(void)unlink(tenant->key);
	}
	if (result == 0)
		result = file_replace(tenant->conf_path, buf_text(&text), text.len, 0644, err);
	if (result == 0)
		result = tenant_handover(tenant, err);
	buf_clear(&text);
	return result;
}

static int say(const struct ctl *ctl, const struct tenant *tenant)
{
	cJSON *json;

	if (ctl->json) {
		json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "configuration", tenant->conf_path);
		(void)cJSON_AddStringToObject(json, "handover", tenant->handover);
		if (tenant->answers.secret_file[0] == '\0')
			(void)cJSON_AddStringToObject(json, "certificate", tenant->certificate);
		return ctl_print_json(json, CTL_OK);
	}
	(void)printf("%s is written. For the Entra and Exchange admin: the folder %s\n"
		     "(handover.md first; no secret is in it).\n",
		     tenant->conf_path, tenant->handover);
	if (tenant->answers.client_id[0] == '\0')
		(void)puts("When the application's client id is known, run this again with "
			   "--replace --client-id ID.");
	(void)puts("Then: relay365 setup postfix --apply; systemctl restart relay365-tokend "
		   "relay365-milter postfix");
	return CTL_OK;
}

/* From the root, for the daemons run elsewhere. */
static char *whole_path(const char *path)
{
	char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
	char *whole = path[0] == '/' ? xstrdup(path)
				     : xasprintf("%s/%s", here == NULL ? "." : here, path);

	free(here);
	return whole;
}

static bool is_path(const char *text)
{
	return text[0] != '\0' &&
	       strncmp(text, CONF_CREDENTIAL_PREFIX, strlen(CONF_CREDENTIAL_PREFIX)) != 0;
}

static void place(struct tenant *tenant, const char *conf_path)
{
	const char *secret = tenant->answers.secret_file;

	tenant->conf_path = whole_path(conf_path);
	tenant->secret_file = is_path(secret) ? whole_path(secret) : xstrdup(secret);
	tenant->folder = xstrndup(tenant->conf_path,
				  (size_t)(strrchr(tenant->conf_path, '/') - tenant->conf_path));
	tenant->handover = xasprintf("%s/handover", tenant->folder);
	name_of(tenant->answers.id, tenant->name, sizeof(tenant->name));
	tenant->certificate = xasprintf("%s/%s.crt", tenant->folder, tenant->name);
	tenant->key = xasprintf("%s/%s.key", tenant->folder, tenant->name);
	tenant->domains = domains_of(&tenant->answers);
}

int setup_tenant(const struct ctl *ctl)
{
	struct tenant tenant = {.conf_path = NULL};
	struct ctl_option options[ARRAY_LEN(questions) + 1];
	const char **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	struct err err = ERR_INIT;
	bool replace = false;
	int n;

	for (size_t i = 0; i < ARRAY_LEN(questions); i++)
		options[i] = (struct ctl_option){questions[i].option, NULL,
						 answer_at(&tenant.answers, i)};
	options[ARRAY_LEN(questions)] = (struct ctl_option){"--replace", &replace, NULL};
	n = ctl_options(ctl, options, ARRAY_LEN(options), rest);
	free(rest);
	if (n != 0) {
		(void)fputs("usage: relay365 [-c FILE] setup tenant [--id TENANT --mailboxes A,B "
			    "...]\nSee relay365(8).\n",
			    stderr);
		return CTL_USAGE;
	}
	if (complete(&tenant, &err) == 0) {
		place(&tenant, ctl->conf_path);
		if (write_all(&tenant, replace, &err) == 0)
			n = say(ctl, &tenant);
	}
	for (size_t i = 0; i < TENANT_QUESTIONS; i++)
		free(tenant.typed[i]);
	free(tenant.conf_path);
	free(tenant.secret_file);
	free(tenant.folder);
	free(tenant.handover);
	free(tenant.certificate);
	free(tenant.key);
	free(tenant.domains);
	if (err.class == ERR_NONE)
		return n;
	return ctl_print_error(ctl, &err, err.class == ERR_CONFIG ? CTL_CONFIG : CTL_PROBLEM);
}
