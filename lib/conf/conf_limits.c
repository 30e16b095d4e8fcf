/* Sources and limits: what the table of keys can't say, and look-ups. */
#include "conf/conf_check.h"

#include "base/xalloc.h"

#include <arpa/inet.h>
#include <strings.h>

enum { MAX_DIGITS = 13 };

/* ---- sources ---- */

/* ::ffff:10.1.0.5 is 10.1.0.5. */
static void unmap(struct conf_network *network)
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (network->family != AF_INET6 || network->bits < 8 * sizeof(mapped) ||
	    memcmp(network->address, mapped, sizeof(mapped)) != 0)
		return;
	network->family = AF_INET;
	network->bits -= 8 * (unsigned int)sizeof(mapped);
	memmove(network->address, network->address + sizeof(mapped), 4);
}

int conf_network_parse(const char *text, struct conf_network *network_r)
{
	static const char tag[] = "IPv6:";
	size_t n;
	unsigned int most;
	char address[64];
	char *end;
	long bits;

	if (strncasecmp(text, tag, sizeof(tag) - 1) == 0)
		text += sizeof(tag) - 1;
	n = strcspn(text, "/");
	if (n >= sizeof(address))
		return -1;
	memcpy(address, text, n);
	address[n] = '\0';
	network_r->family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
	if (inet_pton(network_r->family, address, network_r->address) != 1)
		return -1;
	most = network_r->family == AF_INET6 ? 128 : 32;
	network_r->bits = most;
	if (text[n] == '\0') {
		unmap(network_r);
		return 0;
	}
	bits = strtol(text + n + 1, &end, 10);
	if (end == text + n + 1 || *end != '\0' || bits < 0 || bits > (long)most)
		return -1;
	network_r->bits = (unsigned int)bits;
	unmap(network_r);
	return 0;
}

void conf_client_text(const char *client, char *out, size_t cap)
{
	struct conf_network network;

	/* IPv4 can be written in one way only. */
	if (strchr(client, ':') == NULL || strchr(client, '/') != NULL ||
	    conf_network_parse(client, &network) < 0 ||
	    inet_ntop(network.family, network.address, out, (socklen_t)cap) == NULL)
		(void)snprintf(out, cap, "%s", client);
}

static int check_source(const struct conf *conf, struct conf_source *source, struct err *err)
{
	if (source->logins.count + source->clients.count + source->users.count == 0)
		return err_set(err, ERR_CONFIG, "names nobody; set logins, clients or users");
	conf_fold_list(&source->logins);
	source->network = xcalloc(source->clients.count, sizeof(*source->network));
	for (size_t i = 0; i < source->clients.count; i++)
		if (conf_network_parse(source->clients.item[i], &source->network[i]) < 0)
			return err_set(
				err, ERR_CONFIG,
				"clients: \"%s\" is no address or network, like 10.1.0.5 or "
				"10.2.0.0/16",
				source->clients.item[i]);
	for (size_t i = 0; i < source->mailboxes.count; i++) {
		const char *name = source->mailboxes.item[i];

		if (conf_mailbox_by_name(conf, name, strlen(name)) == NULL)
			return err_set(err, ERR_CONFIG,
				       "mailboxes: \"%s\" is not under \"mailboxes\"", name);
	}
	return 0;
}

static bool lists_meet(const struct conf_list *a, const struct conf_list *b, const char **what_r)
{
	for (size_t i = 0; i < a->count; i++)
		for (size_t j = 0; j < b->count; j++)
			if (strcmp(a->item[i], b->item[j]) == 0) {
				*what_r = a->item[i];
				return true;
			}
	return false;
}

static int check_source_pair(const struct conf *conf, const struct conf_source *a,
			     const struct conf_source *b, struct err *err)
{
	const char *what;

	if (!lists_meet(&a->logins, &b->logins, &what) &&
	    !lists_meet(&a->clients, &b->clients, &what) &&
	    !lists_meet(&a->users, &b->users, &what))
		return 0;
	return err_set(err, ERR_CONFIG,
		       "names \"%s\" as source \"%s\" does (%s:%u); leave it to one of them",
		       what, a->name, conf->path, a->line);
}

int conf_check_sources(struct conf *conf, struct err *err)
{
	for (size_t i = 0; i < conf->sources; i++) {
		struct conf_source *source = &conf->source[i];
		int result = check_source(conf, source, err);

		for (size_t j = 0; j < i && result == 0; j++)
			result = check_source_pair(conf, &conf->source[j], source, err);
		if (result < 0)
			return err_add(err, "%s:%u: source \"%s\"", conf->path, source->line,
				       source->name);
	}
	return 0;
}

/* ---- limits ---- */

static int parse_override(const char *text, struct conf_override *override_r)
{
	const char *equals = strrchr(text, '=');
	size_t digits = equals == NULL ? 0 : strspn(equals + 1, "0123456789");

	if (equals == NULL || equals == text || digits == 0 || digits > MAX_DIGITS ||
	    equals[1 + digits] != '\0')
		return -1;
	override_r->key = xstrndup(text, (size_t)(equals - text));
	override_r->max = strtoll(equals + 1, NULL, 10);
	return 0;
}

/* A client in a list of sources, as its messages will have it. */
static void spell_client(const struct conf_limit *limit, char **key)
{
	char text[INET6_ADDRSTRLEN];

	if (limit->per != PER_SOURCE || strlen(*key) >= sizeof(text))
		return;
	conf_client_text(*key, text, sizeof(text));
	free(*key);
	*key = xstrdup(text);
}

static int by_key(const void *a, const void *b)
{
	const struct conf_override *const *x = a, *const *y = b;

	return strcmp((*x)->key, (*y)->key);
}

/* A key with two maxima would be counted under both. */
static int check_keys(const struct conf_limit *limit, struct err *err)
{
	size_t count = limit->overrides.count;
	const struct conf_override **sorted = xcalloc(count, sizeof(*sorted));
	int result = 0;

	for (size_t i = 0; i < count; i++)
		sorted[i] = &limit->override[i];
	qsort(sorted, count, sizeof(*sorted), by_key);
	for (size_t i = 1; i < count && result == 0; i++)
		if (by_key(&sorted[i - 1], &sorted[i]) == 0)
			result =
				err_set(err, ERR_CONFIG,
					"overrides: \"%s\" stands there twice; leave one of them",
					sorted[i]->key);
	free(sorted);
	return result;
}

static int check_overrides(struct conf_limit *limit, struct err *err)
{
	limit->override = xcalloc(limit->overrides.count, sizeof(*limit->override));
	for (size_t i = 0; i < limit->overrides.count; i++) {
		if (parse_override(limit->overrides.item[i], &limit->override[i]) < 0)
			return err_set(err, ERR_CONFIG,
				       "overrides: \"%s\" is not KEY=MAX, like \"erp=2000\"",
				       limit->overrides.item[i]);
		spell_client(limit, &limit->override[i].key);
	}
	return check_keys(limit, err);
}

static int check_limit(struct conf_limit *limit, struct err *err)
{
	conf_fold_list(&limit->overrides);
	conf_fold_list(&limit->except);
	conf_fold_list(&limit->exempt_recipients);
	for (size_t i = 0; i < limit->except.count; i++)
		spell_client(limit, &limit->except.item[i]);
	if (check_overrides(limit, err) < 0)
		return -1;
	for (size_t i = 0; i < limit->exempt_recipients.count; i++)
		if (!conf_is_pattern(limit->exempt_recipients.item[i]))
			return err_set(
				err, ERR_CONFIG,
				"exempt_recipients: \"%s\" is neither user@domain nor *@domain",
				limit->exempt_recipients.item[i]);
	if (limit->exempt_recipients.count > 0 && limit->count != COUNT_RECIPIENTS &&
	    limit->count != COUNT_EXTERNAL_RECIPIENTS)
		return err_set(err, ERR_CONFIG,
			       "exempt_recipients needs count = \"recipients\" or "
			       "\"external-recipients\"");
	return 0;
}

int conf_check_limits(struct conf *conf, struct err *err)
{
	for (size_t i = 0; i < conf->limits; i++) {
		struct conf_limit *limit = &conf->limit[i];

		if (check_limit(limit, err) < 0)
			return err_add(err, "%s:%u: limit \"%s\"", conf->path, limit->line,
				       limit->name);
	}
	return 0;
}

/* ---- look-ups ---- */

bool conf_network_has(const struct conf_network *network, const struct conf_network *address)
{
	unsigned int whole = network->bits / 8, rest = network->bits % 8;

	if (network->family != address->family ||
	    memcmp(network->address, address->address, whole) != 0)
		return false;
	return rest == 0 || ((network->address[whole] ^ address->address[whole]) &
			     (0xff << (8 - rest)) & 0xff) == 0;
}

static const struct conf_source *by_client(const struct conf *conf, const char *client)
{
	const struct conf_source *found = NULL;
	struct conf_network who;
	int best = -1;

	if (client == NULL || conf_network_parse(client, &who) < 0)
		return NULL;
	for (size_t i = 0; i < conf->sources; i++)
		for (size_t j = 0; j < conf->source[i].clients.count; j++) {
			const struct conf_network *network = &conf->source[i].network[j];

			if ((int)network->bits > best && conf_network_has(network, &who)) {
				best = (int)network->bits;
				found = &conf->source[i];
			}
		}
	return found;
}

static bool has(const struct conf_list *list, const char *text)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcasecmp(list->item[i], text) == 0)
			return true;
	return false;
}

const struct conf_source *conf_source_of(const struct conf *conf, const char *login,
					 const char *client, const char *user)
{
	if (login != NULL && login[0] != '\0') {
		for (size_t i = 0; i < conf->sources; i++)
			if (has(&conf->source[i].logins, login))
				return &conf->source[i];
		return NULL;
	}
	if (client != NULL && client[0] != '\0')
		return by_client(conf, client);
	for (size_t i = 0; user != NULL && i < conf->sources; i++)
		if (has(&conf->source[i].users, user))
			return &conf->source[i];
	return NULL;
}

bool conf_pattern_matches(const char *pattern, const char *address)
{
	const char *at;

	if (pattern[0] != '*')
		return strcmp(pattern, address) == 0;
	at = strrchr(address, '@');
	return at != NULL && strcmp(pattern + 1, at) == 0;
}
