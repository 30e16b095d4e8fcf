#include "base/compat.h"

#include "postfix/check.h"

#include "base/xalloc.h"
#include "postfix/generate.h"

#include <ctype.h>
#include <strings.h>

#define APPLY "run relay365 setup postfix --apply"

struct checking {
	const struct conf *conf;
	const struct postfix_facts *facts;
	check_finding *finding;
	void *arg;
	char *milter;
};

static void find(const struct checking *check, enum check_grade grade, char *evidence,
		 const char *action)
{
	check->finding(check->arg, grade, evidence, action);
	free(evidence);
}

int64_t check_time_s(const char *value)
{
	static const char units[] = "smhdw";
	static const int64_t seconds[] = {1, 60, 3600, 86400, 7 * 86400};
	char *end;
	long n = strtol(value, &end, 10);
	const char *unit = end == value || *end == '\0' ? units : strchr(units, *end);

	return n < 0 || n > 1000000 || unit == NULL || end == value ? -1
								    : n * seconds[unit - units];
}

/* ---- wiring ---- */

static void check_service(const struct checking *check, const struct conf_mailbox *mailbox,
			  const char *lane)
{
	char *name = xasprintf(CONF_TRANSPORT_PREFIX "%s%s", mailbox->name, lane);
	char *key = xasprintf("%s/unix/smtp_sasl_password_maps", name);
	char *maps = facts_value(check->facts->options, key);

	if (!facts_has(check->facts->options, key))
		find(check, CHECK_FAULT, xasprintf("master.cf has no service %s", name), APPLY);
	else if (strstr(maps, mailbox->address) == NULL)
		find(check, CHECK_FAULT,
		     xasprintf("the service %s signs in with %s, not as %s", name, maps,
			       mailbox->address),
		     APPLY);
	free(maps);
	free(key);
	free(name);
}

static void check_services(const struct checking *check)
{
	for (size_t i = 0; i < check->conf->mailboxes; i++) {
		const struct conf_mailbox *mailbox = &check->conf->mailbox[i];

		check_service(check, mailbox, "");
		if (mailbox->priority_senders.count > 0)
			check_service(check, mailbox, CONF_TRANSPORT_PRIORITY);
	}
}

static void check_route(const struct checking *check)
{
	char *folder = generate_folder(check->conf);
	char *map = xasprintf("texthash:%s/sender_transport", folder);
	char *maps =
		facts_value(check->facts->expanded, "sender_dependent_default_transport_maps");
	char *type = facts_value(check->facts->expanded, "smtp_sasl_type");

	if (!facts_lists(maps, map))
		find(check, CHECK_FAULT,
		     xasprintf("sender_dependent_default_transport_maps = %s: no mail is sent "
			       "through relay365",
			       maps),
		     APPLY);
	if (strcmp(type, "cyrus") != 0)
		find(check, CHECK_FAULT,
		     xasprintf("smtp_sasl_type = %s, so Postfix loads no SASL plugin", type),
		     "set smtp_sasl_type = cyrus, or -o smtp_sasl_type=cyrus for relay365's "
		     "services");
	free(type);
	free(maps);
	free(map);
	free(folder);
}

/* Whether ours is the list's last entry, with or without braces around it. */
static bool is_last(const char *list, const char *milter)
{
	const char *at = strstr(list, milter);
	const char *rest = at == NULL ? NULL : at + strlen(milter);

	if (rest == NULL)
		return false;
	if (strchr(rest, '}') != NULL && strchr(rest, '{') == NULL)
		rest = strchr(rest, '}') + 1;
	return rest[strspn(rest, " ,\t")] == '\0';
}

static void check_milter_list(const struct checking *check, const char *name, const char *whose,
			      const char *list)
{
	if (strstr(list, check->milter) == NULL)
		find(check, CHECK_FAULT,
		     xasprintf("%s%s = %s: relay365-milter is not asked, so the limits don't "
			       "hold there",
			       whose, name, list),
		     APPLY);
	else if (!is_last(list, check->milter))
		find(check, CHECK_WARNING,
		     xasprintf("%s%s = %s: relay365-milter is not the last, so mail that a later "
			       "one refuses is counted",
			       whose, name, list),
		     "put it last in the list");
}

/* How this Postfix names the milter; the caller frees. */
static char *milter_of(const struct conf *conf, const struct postfix_facts *facts)
{
	char *queue = facts_value(facts->expanded, "queue_directory");
	char *name = generate_milter(conf, queue);

	free(queue);
	return name;
}

/* smtpd(8) in a chroot finds nothing by a path from the root. */
static void check_milter_path(const struct checking *check)
{
	if (strncmp(check->milter, "unix:/", 6) == 0 &&
	    facts_chroot(check->facts->services, "smtp", "inet") == 'y')
		find(check, CHECK_FAULT,
		     xasprintf("smtpd(8) is chrooted and can't reach %s", check->milter),
		     check->conf->queue_directories.count > 1
			     ? "set milter_socket to a network address: inet:8365@127.0.0.1"
			     : "leave milter_socket unset, so that the socket is in the queue "
			       "directory");
}

static bool is_word(const char *word, size_t len, const char *text)
{
	return strlen(text) == len && strncasecmp(word, text, len) == 0;
}

/* Whether these are what the milter takes for local where nobody tells it. */
static bool are_usual(const char *host, const char *domains)
{
	char *localhost = xasprintf("localhost%s", host + strcspn(host, "."));
	bool usual = true, has_host = false;
	size_t len;

	for (; usual && *domains != '\0'; domains += len) {
		domains += strspn(domains, ", \t");
		len = strcspn(domains, ", \t");
		has_host = has_host || is_word(domains, len, host);
		usual = len == 0 || is_word(domains, len, host) ||
			is_word(domains, len, "localhost") || is_word(domains, len, localhost);
	}
	free(localhost);
	return usual && has_host;
}

/*
 * For mail from sendmail(1) the milter is told no transport: what is local it
 * knows by a macro, and where that mail comes from also by the version.
 */
static void check_local(const struct checking *check)
{
	char *macros = facts_value(check->facts->expanded, "milter_macro_defaults");
	char *version = facts_value(check->facts->expanded, "milter_macro_v");
	char *host = facts_value(check->facts->expanded, "myhostname");
	char *local = facts_value(check->facts->expanded, "mydestination");
	char *hosted = facts_value(check->facts->expanded, "virtual_mailbox_domains");
	bool told = strstr(macros, CONF_LOCAL_MACRO) != NULL;

	if (!told && isdigit((unsigned char)version[0]))
		find(check, CHECK_FAULT,
		     xasprintf("milter_macro_defaults has no " CONF_LOCAL_MACRO ", and "
			       "milter_macro_v = %s begins as Sendmail's does: mail from "
			       "sendmail(1) is not counted",
			       version),
		     APPLY);
	else if (!told && (hosted[0] != '\0' || !are_usual(host, local)))
		find(check, CHECK_WARNING,
		     xasprintf("milter_macro_defaults has no " CONF_LOCAL_MACRO ": of mail from "
			       "sendmail(1), what goes to %s or localhost is taken to stay on "
			       "this machine, and what goes elsewhere to leave it",
			       host),
		     APPLY);
	free(hosted);
	free(local);
	free(host);
	free(version);
	free(macros);
}

static void check_milters(const struct checking *check)
{
	static const char *const names[] = {"smtpd_milters", "non_smtpd_milters"};
	char *action = facts_value(check->facts->expanded, "milter_default_action");
	char *list = NULL;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		free(list);
		list = facts_value(check->facts->expanded, names[i]);
		check_milter_list(check, names[i], "", list);
	}
	if (strcmp(action, "accept") == 0 && strstr(list, "default_action=") == NULL)
		find(check, CHECK_WARNING,
		     xasprintf("milter_default_action = accept: while relay365-milter is down "
			       "mail passes uncounted"),
		     "set it to tempfail, or name the milter as { unix:relay365m/milter, "
		     "default_action=tempfail }");
	check_milter_path(check);
	check_local(check);
	free(list);
	free(action);
}

void check_wiring(const struct conf *conf, const struct postfix_facts *facts,
		  check_finding *finding, void *arg)
{
	struct checking check = {conf, facts, finding, arg, milter_of(conf, facts)};

	check_services(&check);
	check_route(&check);
	check_milters(&check);
	free(check.milter);
}

/* ---- what hurts ---- */

/* "10.0.0.0/8": how many bits count; -1 when it is no network with a mask. */
static long mask_of(const char *network, size_t len)
{
	const char *slash = memchr(network, '/', len);

	if (slash == NULL || (network[0] != '[' && !isdigit((unsigned char)network[0])))
		return -1; /* an address, or a table */
	return strtol(slash + 1, NULL, 10);
}

static void check_networks(const struct checking *check)
{
	char *networks = facts_value(check->facts->expanded, "mynetworks");
	const char *at = networks;

	while (at[0] != '\0') {
		size_t len = strcspn(at, ", \t");
		bool six = at[0] == '[';
		long bits = mask_of(at, len);
		/* 127.0.0.0/8 and 10.0.0.0/8 are private however wide; 172.16.0.0/12 too. */
		bool own = strncmp(at, "127.", 4) == 0 || strncmp(at, "10.", 3) == 0 ||
			   strncmp(at, "172.16.", 7) == 0 || strncmp(at, "192.168.", 8) == 0 ||
			   strncmp(at, "[::ffff:127.", 12) == 0 || strncmp(at, "[f", 2) == 0;

		if (bits >= 0 && (six ? bits < 32 : bits < 16) && !own)
			find(check, bits < (six ? 16 : 8) ? CHECK_FAULT : CHECK_WARNING,
			     xasprintf("mynetworks has %.*s: strangers may send through this "
				       "relay with your mailboxes",
				       (int)len, at),
			     "name only the networks of your own clients");
		at += len;
		at += strspn(at, ", \t");
	}
	free(networks);
}

static void check_open_relay(const struct checking *check)
{
	static const char *const refuses[] = {
		"reject_unauth_destination", "defer_unauth_destination", "reject", "defer",
		"defer_if_permit",	     "check_relay_domains"};
	char *relay = facts_value(check->facts->expanded, "smtpd_relay_restrictions");
	char *recipient = facts_value(check->facts->expanded, "smtpd_recipient_restrictions");
	bool refused = false;

	for (size_t i = 0; i < ARRAY_LEN(refuses); i++)
		refused |= facts_lists(relay, refuses[i]) || facts_lists(recipient, refuses[i]);
	if (!refused)
		find(check, CHECK_FAULT,
		     xasprintf("smtpd_relay_restrictions = %s, and nothing refuses recipients "
			       "elsewhere: this is an open relay",
			       relay),
		     "set smtpd_relay_restrictions = permit_mynetworks, "
		     "permit_sasl_authenticated, defer_unauth_destination");
	free(relay);
	free(recipient);
}

static void check_verbose(const struct checking *check)
{
	const char *line = check->facts->services;
	char *peers = facts_value(check->facts->expanded, "debug_peer_list");

	for (; line[0] != '\0'; line += strcspn(line, "\n"), line += line[0] == '\n') {
		char *service = xstrndup(line, strcspn(line, "\n"));
		const char *command = strstr(service, " smtp ");

		if (strncmp(service, CONF_TRANSPORT_PREFIX, strlen(CONF_TRANSPORT_PREFIX)) == 0 &&
		    command != NULL && facts_lists(command, "-v"))
			find(check, CHECK_FAULT,
			     xasprintf("%.*s runs smtp -v, which writes tokens into the mail log",
				       (int)strcspn(service, " "), service),
			     "take -v out of master.cf, run postfix reload, and remove the log");
		free(service);
	}
	if (peers[0] != '\0')
		find(check, CHECK_WARNING,
		     xasprintf("debug_peer_list = %s: a session with such a peer is logged word "
			       "for word, tokens included",
			       peers),
		     "empty it once you have seen enough");
	free(peers);
}

static void check_parameter(const struct checking *check, const struct conf_mailbox *mailbox,
			    const char *name, int64_t max, const char *why)
{
	char *key = xasprintf(CONF_TRANSPORT_PREFIX "%s_%s", mailbox->name, name);
	char *value = facts_value(check->facts->expanded, key);
	int64_t set = value[0] == '$' || value[0] == '\0' ? INT64_MAX : strtoll(value, NULL, 10);

	if (set > max)
		find(check, CHECK_WARNING,
		     xasprintf("%s = %s: %s", key, value[0] == '\0' ? "(not set)" : value, why),
		     APPLY);
	free(value);
	free(key);
}

static void check_reuse(const struct checking *check, const struct conf_mailbox *mailbox)
{
	static const char *const names[] = {"smtp_tls_connection_reuse",
					    "smtp_connection_cache_on_demand"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *key =
			xasprintf(CONF_TRANSPORT_PREFIX "%s/unix/%s", mailbox->name, names[i]);
		char *value = facts_value(check->facts->options, key);

		if (facts_has(check->facts->options, key) && strcmp(value, "no") != 0)
			find(check, CHECK_WARNING,
			     xasprintf(
				     "%s = %s: connections are used again, so slots are held and "
				     "the pace is lost",
				     key, value),
			     APPLY);
		free(value);
		free(key);
	}
}

static void check_waiting(const struct checking *check, const struct conf_mailbox *mailbox)
{
	char *lifetime = facts_value(check->facts->expanded, "maximal_queue_lifetime");
	char *delay = facts_value(check->facts->expanded, "delay_warning_time");
	int64_t wait_s = mailbox->when_full == FULL_WAIT ? mailbox->max_wait_ms / 1000 : 0;

	if (check_time_s(lifetime) >= 0 && wait_s > check_time_s(lifetime))
		find(check, CHECK_WARNING,
		     xasprintf("maximal_queue_lifetime = %s is less than max_wait of mailbox %s: "
			       "mail bounces while it waits for room",
			       lifetime, mailbox->name),
		     "make it longer than max_wait");
	if (check_time_s(delay) > 0 && check_time_s(delay) < wait_s)
		find(check, CHECK_WARNING,
		     xasprintf("delay_warning_time = %s is less than max_wait of mailbox %s: "
			       "senders are told of mail that waits for room as planned",
			       delay, mailbox->name),
		     "make it longer than max_wait, or leave it if senders should know");
	free(lifetime);
	free(delay);
}

static void on_proxy(void *arg, const char *service, const char *value)
{
	const struct checking *check = arg;

	if (value[0] != '\0')
		find(check, CHECK_FAULT,
		     xasprintf("%s/smtpd_proxy_filter = %s: milters see no end of message there, "
			       "so nothing is counted",
			       service, value),
		     "set smtpd_milters for the smtpd(8) behind the filter instead");
}

/* "127.0.0.1:10025/inet": the smtpd(8) that takes mail back from a content filter. */
static void on_filter(void *arg, const char *service, const char *value)
{
	const struct checking *check = arg;
	char *milters = xasprintf("%s/smtpd_milters", service);
	char *options = xasprintf("%s/receive_override_options", service);
	char *override = facts_value(check->facts->options, options);

	if (value[0] == '\0' && !facts_has(check->facts->options, milters) &&
	    !facts_lists(override, "no_milters"))
		find(check, CHECK_WARNING,
		     xasprintf("%s takes mail back from a content filter and asks the milters: "
			       "such mail is counted twice",
			       service),
		     "add -o smtpd_milters= to that service");
	free(override);
	free(options);
	free(milters);
}

static void on_milters(void *arg, const char *service, const char *value)
{
	const struct checking *check = arg;
	bool loopback = strncmp(service, "127.", 4) == 0 ||
			strncmp(service, "localhost", 9) == 0 ||
			strncmp(service, "[::1]", 5) == 0;

	if (value[0] == '$' || (value[0] == '\0' && loopback))
		return;
	if (strstr(value, check->milter) == NULL)
		find(check, CHECK_WARNING,
		     xasprintf("%s/smtpd_milters = %s: relay365-milter is not asked about mail "
			       "that comes in there",
			       service, value),
		     "add the milter, last in the list");
}

/* What changes a sender after the milter was asked, which then is another mailbox's perhaps. */
static void check_rewriting(const struct checking *check)
{
	static const char *const names[] = {"sender_canonical_maps", "canonical_maps",
					    "masquerade_domains"};

	for (size_t i = 0; i < ARRAY_LEN(names) && check->conf->mailboxes > 1; i++) {
		char *value = facts_value(check->facts->expanded, names[i]);

		if (value[0] != '\0')
			find(check, CHECK_WARNING,
			     xasprintf("%s = %s: the milter counts by the sender that the client "
				       "gave, and mail leaves by the mailbox of the new one",
				       names[i], value),
			     "let it change no sender of one mailbox into one of another");
		free(value);
	}
}

/* A domain that the milter can't see in the list; the caller frees. NULL: it sees all. */
static char *hidden_in(const char *list)
{
	while (list[0] != '\0') {
		size_t len = strcspn(list, ", \t");

		if (memchr(list, ':', len) != NULL || list[0] == '/')
			return xstrndup(list, len);
		list += len;
		list += strspn(list, ", \t");
	}
	return NULL;
}

/* Where the milter's idea of what stays on this machine differs from Postfix's. */
static void check_local_domains(const struct checking *check)
{
	static const struct {
		const char *domains, *transport;
	} classes[] = {
		{"mydestination", "local_transport"},
		{"virtual_mailbox_domains", "virtual_transport"},
	};

	for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
		char *domains = facts_value(check->facts->expanded, classes[i].domains);
		char *transport = facts_value(check->facts->expanded, classes[i].transport);
		char *hidden = hidden_in(domains);

		if (hidden != NULL)
			find(check, CHECK_WARNING,
			     xasprintf("%s has %s, which relay365-milter can't read: mail from "
				       "sendmail(1) to the domains in there is counted, and its "
				       "sender judged, as if it left this machine",
				       classes[i].domains, hidden),
			     "name the domains themselves in it, if such mail is sent here");
		if (domains[0] != '\0' &&
		    strncmp(transport, CONF_TRANSPORT_PREFIX, strlen(CONF_TRANSPORT_PREFIX)) == 0)
			find(check, CHECK_FAULT,
			     xasprintf("%s = %s: mail from sendmail(1) to a domain of %s goes "
				       "through relay365 uncounted",
				       classes[i].transport, transport, classes[i].domains),
			     "take the domains out of that list: default_transport leads there "
			     "too");
		free(hidden);
		free(transport);
		free(domains);
	}
}

void check_settings(const struct conf *conf, const struct postfix_facts *facts,
		    check_finding *finding, void *arg)
{
	struct checking check = {conf, facts, finding, arg, milter_of(conf, facts)};
	char *proxy = facts_value(facts->expanded, "smtpd_proxy_filter");

	check_open_relay(&check);
	check_networks(&check);
	check_verbose(&check);
	check_rewriting(&check);
	check_local_domains(&check);
	for (size_t i = 0; i < conf->mailboxes; i++) {
		check_parameter(&check, &conf->mailbox[i], "destination_recipient_limit",
				conf_transaction_recipients(&conf->mailbox[i]),
				"more recipients in a transaction than tokend reserves");
		check_parameter(&check, &conf->mailbox[i], "destination_concurrency_limit",
				conf->mailbox[i].connections,
				"more sessions than the mailbox may have");
		check_reuse(&check, &conf->mailbox[i]);
		check_waiting(&check, &conf->mailbox[i]);
	}
	if (proxy[0] != '\0')
		on_proxy(&check, "main.cf", proxy);
	facts_each_option(facts->options, "smtpd_proxy_filter", on_proxy, &check);
	facts_each_option(facts->options, "content_filter", on_filter, &check);
	facts_each_option(facts->options, "smtpd_milters", on_milters, &check);
	free(proxy);
	free(check.milter);
}
