#include "milter/route.h"

#include "milter/from.h"

#include <strings.h>

/* Whether it is spelled as most addresses are, in the one way that there is: a@b. */
static bool is_plain(const char *address, size_t len)
{
	const char *end = address + len, *at = memchr(address, '@', len);

	if (len == 0)
		return true;
	return at != NULL && at > address && at + 1 < end && end[-1] != '.' && at[-1] != '.' &&
	       address[0] != '.' && memchr(at + 1, '@', (size_t)(end - at - 1)) == NULL &&
	       strcspn(address, "\"\\()<>[]:;, \t") >= len;
}

/* What stands in quotes. */
static void unquote(char *text)
{
	size_t len = strlen(text), n = 0;

	for (size_t i = 1; i + 1 < len; i++) {
		i += text[i] == '\\' && i + 2 < len;
		text[n++] = text[i];
	}
	text[n] = '\0';
}

/* A local part alone may hold an address all the same: "a@b" in quotes, b!a, and a%b. */
static void look_inside(char *address)
{
	char host[ROUTE_ADDRESS_MAX + 1];
	size_t len = strlen(address);
	char *sign;

	if (len > 2 && address[0] == '"' && address[len - 1] == '"')
		unquote(address);
	if (strchr(address, '@') != NULL)
		return;
	sign = strchr(address, '!');
	if (sign != NULL) {
		*sign = '\0';
		memcpy(host, address, (size_t)(sign - address) + 1);
		len = strlen(sign + 1);
		memmove(address, sign + 1, len);
		address[len] = '@';
		memcpy(address + len + 1, host, strlen(host) + 1);
		return;
	}
	sign = strrchr(address, '%');
	if (sign != NULL)
		*sign = '@';
}

_Static_assert(ROUTE_ADDRESS_MAX >= FROM_ADDRESS_MAX, "holds what from_envelope() gives");

void route_address(const char *smtp, char out[ROUTE_ADDRESS_MAX + 1])
{
	size_t len;

	if (smtp[0] == '<')
		smtp++;
	len = strlen(smtp);
	if (len > 0 && smtp[len - 1] == '>')
		len--;
	if (!is_plain(smtp, len) && from_envelope(smtp, len, out) == 0) {
		look_inside(out);
		return;
	}
	if (len > ROUTE_ADDRESS_MAX)
		len = ROUTE_ADDRESS_MAX;
	memcpy(out, smtp, len);
	out[len] = '\0';
}

/*
 * Postfix's list of domains. One in a table is not seen, and "!" before it
 * leaves all that follows open.
 */
static bool lists(const char *local, const char *domain)
{
	size_t wanted = strlen(domain), len;

	for (; local[0] != '\0'; local += len) {
		bool but = false;

		local += strspn(local, ", \t\r\n");
		for (; local[0] == '!'; local++)
			but = !but;
		len = strcspn(local, ", \t\r\n");
		if (memchr(local, ':', len) != NULL) {
			if (but)
				return false;
			continue;
		}
		if (len == wanted && len > 0 && strncasecmp(local, domain, len) == 0)
			return !but;
	}
	return false;
}

void route_recipient(const char *smtp, const char *local, char out[ROUTE_ADDRESS_MAX + 1])
{
	route_address(smtp, out);
	while (local != NULL && lists(local, route_domain(out))) {
		char *at = strrchr(out, '@');

		*at = '\0';
		if (strpbrk(out, "%!@") == NULL) {
			*at = '@';
			break;
		}
		look_inside(out);
	}
}

const char *route_domain(const char *address)
{
	const char *at = strrchr(address, '@');

	return at == NULL ? "" : at + 1;
}

/* The host in "[host]:port", "host:port", "[host]" and "host". */
static void bare_host(const char *host, const char **at_r, size_t *len_r)
{
	const char *end;

	if (host[0] == '[') {
		host++;
		end = strchr(host, ']');
	} else {
		end = strchr(host, ':');
	}
	*at_r = host;
	*len_r = end == NULL ? strlen(host) : (size_t)(end - host);
}

static bool is_relay_host(const struct conf *conf, const char *host)
{
	const char *a, *b;
	size_t a_len, b_len;

	bare_host(host, &a, &a_len);
	for (size_t i = 0; i < conf->relay_hosts.count; i++) {
		bare_host(conf->relay_hosts.item[i], &b, &b_len);
		if (a_len > 0 && a_len == b_len && strncasecmp(a, b, a_len) == 0)
			return true;
	}
	return false;
}

const struct conf_mailbox *route_mailbox(const struct conf *conf, const char *mailer,
					 const char *host, const char *sender)
{
	static const char prefix[] = CONF_TRANSPORT_PREFIX;
	static const char lane[] = CONF_TRANSPORT_PRIORITY;

	if (mailer != NULL && strncmp(mailer, prefix, sizeof(prefix) - 1) == 0) {
		const char *name = mailer + sizeof(prefix) - 1;

		size_t len = strlen(name), tail = sizeof(lane) - 1;
		const struct conf_mailbox *found = conf_mailbox_by_name(conf, name, len);

		if (found != NULL || len <= tail || strcmp(name + len - tail, lane) != 0)
			return found;
		return conf_mailbox_by_name(conf, name, len - tail);
	}
	if ((mailer != NULL && strcmp(mailer, CONF_SENDMAIL_MAILER) == 0) ||
	    (host != NULL && is_relay_host(conf, host)))
		return conf_mailbox_by_sender(conf, sender);
	return NULL;
}

const struct conf_mailbox *route_unknown(const struct conf *conf, const char *local,
					 const char *recipient, const char *sender)
{
	if (local != NULL && lists(local, route_domain(recipient)))
		return NULL;
	return conf_mailbox_by_sender(conf, sender);
}
