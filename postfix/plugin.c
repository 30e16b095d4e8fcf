/*
 * librelay365.so: XOAUTH2 as a client mechanism of Cyrus SASL, for Postfix's
 * smtp(8). The user name is the mailbox, the "password" is the address of
 * relay365-tokend's token socket ("unix:relay365/token").
 *
 *   server: (empty challenge)        us: user=... auth=Bearer ...
 *   server: (JSON, why it failed)    us: (empty response), so that its reply comes
 *
 * The mechanism is server-first: as long as the server has not said that it
 * wants our response, no token is in this process, so that none can land in an
 * error message. A challenge that isn't empty ends the exchange before tokend
 * is asked.
 *
 * Every failure is logged once through libsasl2, as a sentence for the admin,
 * and is one that Postfix answers by deferring the mail. libsasl2 knows only
 * %s and %d of printf. Nothing here is static and writable, so connections may
 * live in different threads.
 */
#include "base/compat.h"

#include <sasl/sasl.h>
#include <sasl/saslplug.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "proto/lease.h"
#include "proto/printable.h"
#include "proto/xoauth2.h"

#define SOCKET_ADDRESS_SIZE 256
#define CHALLENGE_TEXT_SIZE 400 /* bytes of a challenge that are logged */
#define SENTENCE_SIZE 640

/*
 * libsasl2 takes the mechanism with the most security flags, then the one with
 * the highest max_ssf. Other XOAUTH2 plugins say 60 at most. It is a rank and
 * no promise: mech_ssf stays 0, and plugin_new() refuses a connection that
 * wants a security layer.
 */
#define RANK 1024

#if defined(__GNUC__)
#define EXPORTED __attribute__((visibility("default")))
#else
#define EXPORTED
#endif

enum stage {
	STAGE_START,  /* the server has to say that it wants our response */
	STAGE_SENT,   /* it has the token; any challenge now is a refusal */
	STAGE_REFUSED /* only its reply is missing */
};

struct plugin {
	enum stage stage;
	struct lease lease;
	size_t response_len;
	char response[XOAUTH2_RESPONSE_MAX]; /* secret */
	char answer[LEASE_ANSWER_SIZE];	     /* secret */
};

static void complain(const sasl_client_params_t *params, const char *who, size_t who_len,
		     const char *sentence)
{
	const sasl_utils_t *utils = params->utils;
	char name[XOAUTH2_USER_MAX + 1];

	printable(who, who_len, name, sizeof(name));
	utils->log(utils->conn, SASL_LOG_ERR, "relay365: %s: %s", name, sentence);
	utils->seterror(utils->conn, SASL_NOLOG, "relay365: %s: %s", name, sentence);
}

static void complain_challenge(const sasl_client_params_t *params, const char *what,
			       const char *challenge, unsigned len)
{
	const char *server = params->serverFQDN != NULL ? params->serverFQDN : "the server";
	char text[CHALLENGE_TEXT_SIZE];
	char sentence[SENTENCE_SIZE];

	printable(len > 0 ? challenge : "", len, text, sizeof(text));
	(void)snprintf(sentence, sizeof(sentence), "%s: %s", what, len > 0 ? text : "(nothing)");
	complain(params, server, strlen(server), sentence);
}

static void erase(const sasl_client_params_t *params, struct plugin *plugin)
{
	params->utils->erasebuffer(plugin->answer, sizeof(plugin->answer));
	params->utils->erasebuffer(plugin->response, sizeof(plugin->response));
	plugin->response_len = 0;
}

/* --- What the application knows: the user name and the "password" --- */

static const sasl_interact_t *find_prompt(sasl_interact_t **prompts, unsigned long id)
{
	const sasl_interact_t *prompt = prompts != NULL ? *prompts : NULL;

	for (; prompt != NULL && prompt->id != SASL_CB_LIST_END; prompt++) {
		if (prompt->id == id)
			return prompt;
	}
	return NULL;
}

/*
 * Gets a name. SASL_INTERACT means that the application wants to be prompted,
 * SASL_FAIL that it does not know the name at all.
 */
static int get_name(const sasl_utils_t *utils, unsigned long id, sasl_interact_t **prompts,
		    const char **name_r)
{
	const sasl_interact_t *prompt = find_prompt(prompts, id);
	sasl_callback_ft callback = NULL;
	void *context = NULL;
	int result;

	*name_r = NULL;
	if (prompt != NULL) {
		*name_r = prompt->result;
		return *name_r != NULL ? SASL_OK : SASL_BADPARAM;
	}
	result = utils->getcallback(utils->conn, id, &callback, &context);
	if (result != SASL_OK)
		return result;
	if (callback == NULL)
		return SASL_INTERACT;
	/* The length is not asked for: libsasl2's own callback writes it as a size_t. */
	result = ((sasl_getsimple_t *)(void (*)(void))callback)(context, (int)id, name_r, NULL);
	if (result == SASL_OK && *name_r == NULL)
		result = SASL_BADPARAM;
	return result;
}

static int copy_secret(const void *data, size_t len, char *to, size_t cap)
{
	if (len >= cap || memchr(data, '\0', len) != NULL)
		return SASL_BADPARAM;
	memcpy(to, data, len);
	to[len] = '\0';
	return SASL_OK;
}

/* As get_name(), for the "password". What the callback returns stays the application's. */
static int get_password(const sasl_utils_t *utils, sasl_interact_t **prompts, char *to,
			size_t cap)
{
	const sasl_interact_t *prompt = find_prompt(prompts, SASL_CB_PASS);
	sasl_callback_ft callback = NULL;
	sasl_secret_t *secret = NULL;
	void *context = NULL;
	int result;

	if (prompt != NULL)
		return prompt->result == NULL ? SASL_BADPARAM
					      : copy_secret(prompt->result, prompt->len, to, cap);
	result = utils->getcallback(utils->conn, SASL_CB_PASS, &callback, &context);
	if (result != SASL_OK)
		return result;
	if (callback == NULL)
		return SASL_INTERACT;
	result = ((sasl_getsecret_t *)(void (*)(void))callback)(utils->conn, context,
								SASL_CB_PASS, &secret);
	if (result != SASL_OK)
		return result;
	return secret == NULL ? SASL_BADPARAM : copy_secret(secret->data, secret->len, to, cap);
}

/* Asks for what is missing. The list is freed when the answers have been used. */
static int prompt_for(const sasl_utils_t *utils, bool name, bool password,
		      sasl_interact_t **prompts)
{
	sasl_interact_t *list;
	size_t n = 0;

	if (prompts == NULL)
		return SASL_INTERACT;
	list = utils->calloc(3, sizeof(*list));
	if (list == NULL)
		return SASL_NOMEM;
	if (name)
		list[n++] = (sasl_interact_t){.id = SASL_CB_AUTHNAME,
					      .challenge = "Authentication Name",
					      .prompt = "Address of the mailbox"};
	if (password)
		list[n++] = (sasl_interact_t){.id = SASL_CB_PASS,
					      .challenge = "Password",
					      .prompt = "Token socket (unix:PATH)"};
	list[n].id = SASL_CB_LIST_END;
	*prompts = list;
	return SASL_INTERACT;
}

/*
 * XOAUTH2 carries one name. An application that wants to act as another user
 * is refused rather than let in as somebody else.
 */
static int check_authzid(const sasl_client_params_t *params, const char *name)
{
	const char *other = NULL;

	if (get_name(params->utils, SASL_CB_USER, NULL, &other) != SASL_OK || other[0] == '\0' ||
	    strcmp(other, name) == 0)
		return SASL_OK;
	complain(params, name, strlen(name),
		 "XOAUTH2 knows one name, so that it can't be used to act for another user");
	return SASL_BADPARAM;
}

/* Fills oparams' user and authid and the address of the token socket. */
static int identify(const sasl_client_params_t *params, sasl_interact_t **prompts,
		    sasl_out_params_t *oparams, char *address, size_t cap)
{
	const sasl_utils_t *utils = params->utils;
	const char *name;
	int got_name = get_name(utils, SASL_CB_AUTHNAME, prompts, &name);
	int got_password = get_password(utils, prompts, address, cap);
	int result;

	if (got_name == SASL_INTERACT || got_password == SASL_INTERACT)
		return prompt_for(utils, got_name == SASL_INTERACT, got_password == SASL_INTERACT,
				  prompts);
	if (got_name != SASL_OK || name[0] == '\0') {
		complain(params, "no user", strlen("no user"),
			 "the application gave no address of a mailbox as user name");
		result = got_name != SASL_OK ? got_name : SASL_BADPARAM;
	} else if (got_password != SASL_OK || lease_path(address) == NULL) {
		/* The value is not shown: it may be a real password from an older set-up. */
		complain(params, name, strlen(name),
			 "its password must be the address of relay365-tokend's socket, such as "
			 "unix:relay365/token, and is something else");
		result = SASL_BADPARAM;
	} else {
		result = check_authzid(params, name);
	}
	if (result == SASL_OK)
		result = params->canon_user(utils->conn, name, 0,
					    SASL_CU_AUTHID | SASL_CU_AUTHZID, oparams);
	if (prompts != NULL && *prompts != NULL) {
		utils->free(*prompts);
		*prompts = NULL;
	}
	return result;
}

/* --- The exchange --- */

static int sasl_code(enum lease_result result)
{
	switch (result) {
	case LEASE_OK:
		return SASL_OK;
	case LEASE_LATER:
		return SASL_TRYAGAIN;
	case LEASE_DENIED:
		return SASL_NOAUTHZ;
	case LEASE_BAD_PATH:
	case LEASE_BAD_MAILBOX:
		return SASL_BADPARAM;
	case LEASE_UNREACHABLE:
	case LEASE_TIMEOUT:
	case LEASE_CLOSED:
	case LEASE_BAD_ANSWER:
		break;
	}
	return SASL_UNAVAIL;
}

static const char *compose_error(enum xoauth2_result result)
{
	return result == XOAUTH2_BAD_USER
		       ? "the user name is no address of a mailbox"
		       : "relay365-tokend sent a token that is too long or has characters that "
			 "no token may have";
}

/* The token for oparams' user, as a response in plugin. */
static int make_response(struct plugin *plugin, const sasl_client_params_t *params,
			 const char *path, const sasl_out_params_t *oparams)
{
	char sentence[SENTENCE_SIZE];
	enum lease_result asked;
	enum xoauth2_result composed;

	asked = lease_ask(path, oparams->authid, 0, LEASE_DEADLINE_MS, plugin->answer,
			  sizeof(plugin->answer), &plugin->lease);
	if (asked != LEASE_OK) {
		lease_explain(asked, &plugin->lease, path, LEASE_DEADLINE_MS, sentence,
			      sizeof(sentence));
		complain(params, oparams->authid, oparams->alen, sentence);
		return sasl_code(asked);
	}
	composed = xoauth2_compose(oparams->authid, oparams->alen, plugin->lease.token,
				   plugin->lease.token_len, plugin->response,
				   sizeof(plugin->response), &plugin->response_len);
	if (composed != XOAUTH2_OK) {
		complain(params, oparams->authid, oparams->alen, compose_error(composed));
		lease_end(&plugin->lease);
		return composed == XOAUTH2_BAD_USER ? SASL_BADPARAM : SASL_UNAVAIL;
	}
	return SASL_OK;
}

static int first_step(struct plugin *plugin, const sasl_client_params_t *params,
		      sasl_interact_t **prompts, sasl_out_params_t *oparams)
{
	char address[SOCKET_ADDRESS_SIZE];
	int result = identify(params, prompts, oparams, address, sizeof(address));

	if (result == SASL_INTERACT)
		return result;
	plugin->stage = STAGE_REFUSED;
	if (result == SASL_OK)
		result = make_response(plugin, params, lease_path(address), oparams);
	params->utils->erasebuffer(plugin->answer, sizeof(plugin->answer));
	if (result == SASL_OK)
		plugin->stage = STAGE_SENT;
	return result;
}

static int plugin_step(void *context, sasl_client_params_t *params, const char *challenge,
		       unsigned challenge_len, sasl_interact_t **prompts, const char **response_r,
		       unsigned *response_len_r, sasl_out_params_t *oparams)
{
	struct plugin *plugin = context;
	int result;

	*response_r = NULL;
	*response_len_r = 0;
	switch (plugin->stage) {
	case STAGE_START:
		if (challenge_len > 0) {
			plugin->stage = STAGE_REFUSED;
			complain_challenge(params, "expected an empty challenge for XOAUTH2, got",
					   challenge, challenge_len);
			return SASL_BADPROT;
		}
		result = first_step(plugin, params, prompts, oparams);
		if (result == SASL_OK) {
			*response_r = plugin->response;
			*response_len_r = (unsigned)plugin->response_len;
		}
		/* Our part is done, but doneflag stays 0: the server may still refuse. */
		return result;
	case STAGE_SENT:
		plugin->stage = STAGE_REFUSED;
		erase(params, plugin);
		complain_challenge(params, "it refuses the token", challenge, challenge_len);
		*response_r = "";
		return SASL_CONTINUE;
	case STAGE_REFUSED:
		break;
	}
	complain_challenge(params, "unexpected further challenge", challenge, challenge_len);
	return SASL_BADPROT;
}

static int plugin_new(void *glob_context, sasl_client_params_t *params, void **context_r)
{
	struct plugin *plugin;

	(void)glob_context;
	if (params->props.min_ssf > params->external_ssf)
		return SASL_TOOWEAK;
	plugin = params->utils->calloc(1, sizeof(*plugin));
	if (plugin == NULL)
		return SASL_NOMEM;
	plugin->lease.fd = -1;
	*context_r = plugin;
	return SASL_OK;
}

/* The end of the SMTP session, and so of the lease. */
static void plugin_dispose(void *context, const sasl_utils_t *utils)
{
	struct plugin *plugin = context;

	if (plugin == NULL)
		return;
	lease_end(&plugin->lease);
	utils->erasebuffer((char *)plugin, sizeof(*plugin));
	utils->free(plugin);
}

static const sasl_client_plug_t mechanism = {
	.mech_name = "XOAUTH2",
	.max_ssf = RANK,
	.security_flags = SASL_SEC_NOPLAINTEXT | SASL_SEC_NOANONYMOUS,
	.features = SASL_FEAT_SERVER_FIRST,
	.mech_new = plugin_new,
	.mech_step = plugin_step,
	.mech_dispose = plugin_dispose,
};

EXPORTED int sasl_client_plug_init(const sasl_utils_t *utils, int max_version, int *version_r,
				   sasl_client_plug_t **list_r, int *count_r);

EXPORTED int sasl_client_plug_init(const sasl_utils_t *utils, int max_version, int *version_r,
				   sasl_client_plug_t **list_r, int *count_r)
{
	(void)utils;
	if (max_version < SASL_CLIENT_PLUG_VERSION)
		return SASL_BADVERS;
	*version_r = SASL_CLIENT_PLUG_VERSION;
	/* The interface lacks a const: libsasl2 only reads the table. */
	*list_r = (sasl_client_plug_t *)&mechanism;
	*count_r = 1;
	return SASL_OK;
}
