#include "postfix/generate.h"

#include "base/xalloc.h"
#include "explain/explain.h"

#include <unistd.h>

/* postconf -d import_environment of Postfix 3.6 and later: what must be kept beside ours. */
#define IMPORT_ENVIRONMENT                                                                 \
	"MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE " \
	"POSTLOG_HOSTNAME"

/* Where Cyrus SASL looks without SASL_PATH: other relays of the machine need it still. */
#define SYSTEM_SASL_PATH "/usr/lib/%s/sasl2:/usr/lib64/sasl2:/usr/lib/sasl2"

char *generate_folder(const struct conf *conf)
{
	char *path = realpath(conf->path, NULL);
	const char *slash = path == NULL ? NULL : strrchr(path, '/');
	char *folder;

	/* Postfix runs elsewhere: only a path from the root means the same to it. */
	folder = slash == NULL ? xstrdup(RELAY365_CONFDIR "/postfix")
			       : xasprintf("%.*s/postfix", (int)(slash - path), path);
	free(path);
	return folder;
}

static const char *connect_to(const struct conf_tenant *tenant)
{
	return tenant->smtp_address[0] != '\0' ? tenant->smtp_address : tenant->smtp_host;
}

static const char *lane(bool priority)
{
	return priority ? CONF_TRANSPORT_PRIORITY : "";
}

static void add_transport(struct buf *text, const struct conf_mailbox *mailbox, bool priority)
{
	(void)buf_addf(text, CONF_TRANSPORT_PREFIX "%s%s:[%s]:%lld", mailbox->name,
		       lane(priority), connect_to(mailbox->tenant),
		       (long long)mailbox->tenant->smtp_port);
}

/* Where Debian or Fedora and RHEL keep the authorities. */
static const char *system_ca_file(void)
{
	static const char fedora[] = "/etc/pki/tls/certs/ca-bundle.crt";
	static const char debian[] = "/etc/ssl/certs/ca-certificates.crt";

	return access(debian, R_OK) < 0 && access(fedora, R_OK) == 0 ? fedora : debian;
}

static void add_service(struct buf *text, const struct conf_mailbox *mailbox, bool priority,
			char chroot, const char *folder)
{
	const struct conf_tenant *tenant = mailbox->tenant;

	(void)buf_addf(text, CONF_TRANSPORT_PREFIX "%s%s unix - - %c - - smtp\n", mailbox->name,
		       lane(priority), chroot);
	(void)buf_addf(text,
		       "    -o smtp_sasl_auth_enable=yes\n"
		       "    -o smtp_sasl_mechanism_filter=xoauth2\n"
		       "    -o smtp_sasl_security_options=noanonymous\n"
		       "    -o smtp_sasl_tls_security_options=noanonymous\n"
		       "    -o smtp_sasl_password_maps=static:%s:unix:relay365/token%s\n"
		       "    -o smtp_sasl_auth_soft_bounce=yes\n"
		       "    -o smtp_sasl_auth_cache_name=\n"
		       "    -o smtp_sender_dependent_authentication=no\n"
		       "    -o smtp_tls_security_level=secure\n"
		       "    -o smtp_tls_mandatory_protocols=!SSLv2,!SSLv3,!TLSv1,!TLSv1.1\n"
		       "    -o smtp_tls_secure_cert_match=%s\n"
		       "    -o smtp_tls_CAfile=%s\n",
		       mailbox->address, lane(priority),
		       tenant->smtp_address[0] != '\0' ? tenant->smtp_host : "nexthop",
		       tenant->ca_file[0] != '\0' ? tenant->ca_file : system_ca_file());
	(void)buf_addf(
		text,
		"    -o smtp_reply_filter=regexp:%s/reply_filter\n"
		"    -o smtp_delivery_status_filter=socketmap:unix:relay365/map:status/%s\n"
		"    -o smtp_mx_address_limit=2\n"
		"    -o smtp_tls_connection_reuse=no\n"
		"    -o smtp_connection_cache_on_demand=no\n"
		"    -o smtp_connection_cache_destinations=\n",
		folder, mailbox->name);
}

void generate_master(const struct conf *conf, char chroot, struct buf *text)
{
	char *folder = generate_folder(conf);

	for (size_t i = 0; i < conf->mailboxes; i++) {
		add_service(text, &conf->mailbox[i], false, chroot, folder);
		if (conf->mailbox[i].priority_senders.count > 0)
			add_service(text, &conf->mailbox[i], true, chroot, folder);
	}
	free(folder);
}

static void each_mailbox_parameter(const struct conf_mailbox *mailbox, bool priority,
				   void (*each)(void *arg, const char *name, const char *value,
						bool add),
				   void *arg)
{
	const struct {
		const char *name;
		int64_t value;
	} parameters[] = {
		{"destination_concurrency_limit", mailbox->connections},
		{"initial_destination_concurrency", mailbox->connections},
		{"destination_recipient_limit", conf_transaction_recipients(mailbox)},
	};
	char name[128], value[24];

	for (size_t i = 0; i < ARRAY_LEN(parameters); i++) {
		(void)snprintf(name, sizeof(name), CONF_TRANSPORT_PREFIX "%s%s_%s", mailbox->name,
			       lane(priority), parameters[i].name);
		(void)snprintf(value, sizeof(value), "%lld", (long long)parameters[i].value);
		each(arg, name, value, false);
	}
}

/* What of path follows folder and slashes; NULL when it is not inside. */
static const char *inside(const char *path, const char *folder)
{
	size_t len = strlen(folder);

	while (len > 0 && folder[len - 1] == '/')
		len--;
	if (strncmp(path, folder, len) != 0 || path[len] != '/')
		return NULL;
	path += len;
	return path + strspn(path, "/");
}

/* libmilter's PORT@HOST as Postfix's inet:HOST:PORT. */
static char *inet_name(const char *given)
{
	const char *at = strchr(given, '@');

	if (at == NULL)
		return xasprintf("inet:127.0.0.1:%s", given);
	/* Postfix takes an IPv6 address in brackets only. */
	return xasprintf(strchr(at, ':') != NULL && at[1] != '[' ? "inet:[%s]:%.*s"
								 : "inet:%s:%.*s",
			 at + 1, (int)(at - given), given);
}

char *generate_milter(const struct conf *conf, const char *queue_directory)
{
	const char *socket = conf->milter_socket;
	const char *path = strchr(socket, '/'), *rest = NULL;

	if (socket[0] == '\0')
		return xstrdup("unix:relay365m/milter");
	if (strncmp(socket, "inet:", 5) == 0)
		return inet_name(socket + 5);
	if (strncmp(socket, "inet6:", 6) == 0)
		return inet_name(socket + 6);
	if (path == NULL || (path != socket && strncmp(socket, "unix:/", 6) != 0 &&
			     strncmp(socket, "local:/", 7) != 0))
		return xstrdup(socket);
	if (queue_directory == NULL && conf->queue_directories.count == 1)
		queue_directory = conf->queue_directories.item[0];
	if (queue_directory != NULL)
		rest = inside(path, queue_directory);
	return xasprintf("unix:%s", rest == NULL ? path : rest);
}

void generate_main(const struct conf *conf, const char *queue_directory,
		   void (*each)(void *arg, const char *name, const char *value, bool add),
		   void *arg)
{
	struct buf value = BUF_INIT(4096);
	char *folder = generate_folder(conf);
	char *milter = generate_milter(conf, queue_directory);

	(void)buf_addf(&value, "texthash:%s/sender_transport", folder);
	each(arg, "sender_dependent_default_transport_maps", buf_text(&value), false);
	for (size_t i = 0; i < conf->mailboxes; i++) {
		if (!conf->mailbox[i].is_default)
			continue;
		buf_clear(&value);
		add_transport(&value, &conf->mailbox[i], false);
		each(arg, "default_transport", buf_text(&value), false);
	}
	each(arg, "smtpd_milters", milter, true);
	each(arg, "non_smtpd_milters", milter, true);
	each(arg, "milter_macro_defaults",
	     "{ " CONF_LOCAL_MACRO " = $mydestination $virtual_mailbox_domains }", true);
	each(arg, "milter_default_action", "tempfail", false);
	buf_clear(&value);
	(void)buf_addf(&value, IMPORT_ENVIRONMENT " SASL_PATH=%s:" SYSTEM_SASL_PATH,
		       RELAY365_PLUGINDIR, MULTIARCH);
	each(arg, "import_environment", buf_text(&value), false);
	for (size_t i = 0; i < conf->mailboxes; i++) {
		each_mailbox_parameter(&conf->mailbox[i], false, each, arg);
		if (conf->mailbox[i].priority_senders.count > 0)
			each_mailbox_parameter(&conf->mailbox[i], true, each, arg);
	}
	buf_clear(&value);
	free(milter);
	free(folder);
}

/* Postfix looks for user@domain, then for @domain. */
static void add_sender(struct buf *text, const struct conf_mailbox *mailbox, const char *sender)
{
	(void)buf_addf(text, "%s ", sender[0] == '*' ? sender + 1 : sender);
	add_transport(text, mailbox, conf_is_priority_sender(mailbox, sender));
	(void)buf_adds(text, "\n");
}

static bool has(const struct conf_list *list, const char *item)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->item[i], item) == 0)
			return true;
	return false;
}

static void add_senders(struct buf *text, const struct conf_mailbox *mailbox)
{
	const struct conf_list *first = &mailbox->priority_senders;
	bool listed = has(first, mailbox->address);

	for (size_t i = 0; i < mailbox->senders.count; i++) {
		listed = listed ||
			 conf_pattern_matches(mailbox->senders.item[i], mailbox->address);
		add_sender(text, mailbox, mailbox->senders.item[i]);
	}
	for (size_t i = 0; i < first->count; i++)
		if (!has(&mailbox->senders, first->item[i]))
			add_sender(text, mailbox, first->item[i]);
	/* What is rewritten comes from here, and must not leave by another mailbox. */
	if (!listed)
		add_sender(text, mailbox, mailbox->address);
}

void generate_sender_transport(const struct conf *conf, struct buf *text)
{
	(void)buf_adds(
		text,
		"# Generated by relay365 setup postfix. Sender, then transport and next hop.\n");
	for (size_t i = 0; i < conf->mailboxes; i++)
		add_senders(text, &conf->mailbox[i]);
}

static void add_rule(void *arg, const char *pattern, const char *replacement)
{
	(void)buf_addf(arg, "/%s/ %s\n", pattern, replacement);
}

void generate_reply_filter(struct buf *text)
{
	(void)buf_adds(
		text,
		"# Generated by relay365 setup postfix. Replies of Microsoft's that an admin or\n"
		"# time can mend are turned into 4xx, so that mail waits instead of bouncing.\n");
	explain_each_softened(add_rule, text);
}
