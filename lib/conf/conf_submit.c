/* Where relay365-submit listens besides its own socket, and for whom. */
#include "conf/conf_check.h"

#include "base/xalloc.h"

#include <netdb.h>

int conf_submit_address(const struct conf *conf, struct sockaddr_storage *address_r,
			socklen_t *len_r, struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	const char *text = conf->submit_listen, *colon = strrchr(text, ':');
	bool bracketed = text[0] == '[' && colon != NULL && colon[-1] == ']';
	struct addrinfo *found = NULL;
	char host[64];

	(void)snprintf(host, sizeof(host), "%.*s",
		       colon == NULL ? 0 : (int)(colon - text) - 2 * bracketed, text + bracketed);
	if (colon == NULL || host[0] == '\0' || colon[1] == '\0' ||
	    getaddrinfo(host, colon + 1, &hints, &found) != 0)
		return err_set(err, ERR_CONFIG,
			       "%s: submit_listen: \"%s\" is no address with a port, like "
			       "127.0.0.1:10587 or [::1]:10587",
			       conf->path, text);
	memcpy(address_r, found->ai_addr, found->ai_addrlen);
	*len_r = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

int conf_check_submit(struct conf *conf, struct err *err)
{
	struct sockaddr_storage address;
	socklen_t len;

	if (conf->submit_listen[0] != '\0' && conf_submit_address(conf, &address, &len, err) < 0)
		return -1;
	conf->submit_network = xcalloc(conf->submit_clients.count, sizeof(*conf->submit_network));
	for (size_t i = 0; i < conf->submit_clients.count; i++)
		if (conf_network_parse(conf->submit_clients.item[i], &conf->submit_network[i]) <
		    0)
			return err_set(
				err, ERR_CONFIG,
				"%s: submit_clients: \"%s\" is no address or network, like "
				"127.0.0.1 or 10.2.0.0/16",
				conf->path, conf->submit_clients.item[i]);
	return 0;
}

bool conf_is_submit_client(const struct conf *conf, const char *client)
{
	struct conf_network who;

	if (conf_network_parse(client, &who) < 0)
		return false;
	for (size_t i = 0; i < conf->submit_clients.count; i++)
		if (conf_network_has(&conf->submit_network[i], &who))
			return true;
	return false;
}
