/* The control verbs for signing in: authorize, authorize-answer, -import, -status. */
#include "base/compat.h"

#include "token/tokend.h"

#include "base/xalloc.h"

/* A mailbox for which somebody signed in, or tried. */
struct tokend_sign_in {
	char mailbox[CONF_NAME_MAX + 1];
	struct sign_in *sign_in;
	struct tokend_sign_in *next;
};

static const struct conf_mailbox *named_mailbox(const struct tokend *tokend,
						const struct kv_message *request, struct err *err)
{
	const struct conf_mailbox *mailbox = tokend_named_mailbox(tokend, request, err);

	if (mailbox == NULL || mailbox->tenant->delegated)
		return mailbox;
	err_set(err, ERR_CONFIG,
		"nobody signs in for mailbox \"%s\": tenant \"%s\" is not delegated, its "
		"application has a credential of its own",
		mailbox->name, mailbox->tenant->name);
	return NULL;
}

static struct sign_in *sign_in_of(struct tokend *tokend, const struct conf_mailbox *mailbox)
{
	struct tokend_sign_in *entry = tokend->sign_ins;

	while (entry != NULL && strcmp(entry->mailbox, mailbox->name) != 0)
		entry = entry->next;
	if (entry == NULL) {
		const struct identity_parts parts = {.loop = tokend->loop, .http = tokend->http};

		entry = xcalloc(1, sizeof(*entry));
		(void)snprintf(entry->mailbox, sizeof(entry->mailbox), "%s", mailbox->name);
		entry->sign_in = sign_in_new(&parts);
		entry->next = tokend->sign_ins;
		tokend->sign_ins = entry;
	}
	return entry->sign_in;
}

int tokend_verb_authorize(void *context, const struct kv_message *request, cJSON **json_r,
			  struct err *err)
{
	struct tokend *tokend = context;
	const struct conf_mailbox *mailbox = named_mailbox(tokend, request, err);
	struct identity *identity;
	struct sign_in *sign_in;
	int result;

	if (mailbox == NULL)
		return -1;
	sign_in = sign_in_of(tokend, mailbox);
	identity = tokend_identity_of(tokend, mailbox);
	result = kv_is(request, "method", "browser")
			 ? sign_in_browser(sign_in, identity, mailbox, err)
			 : sign_in_device(sign_in, identity, mailbox, err);
	if (result == 0)
		*json_r = sign_in_status(sign_in, false);
	return result;
}

int tokend_verb_authorize_answer(void *context, const struct kv_message *request, cJSON **json_r,
				 struct err *err)
{
	struct tokend *tokend = context;
	const struct conf_mailbox *mailbox = named_mailbox(tokend, request, err);
	char address[12000];
	int result;

	if (mailbox == NULL)
		return -1;
	if (kv_copy(request, "address", address, sizeof(address)) <= 0)
		return err_set(err, ERR_PERM, "the request holds no address");
	result = sign_in_answer(sign_in_of(tokend, mailbox), address, err);
	explicit_bzero(address, sizeof(address));
	if (result == 0)
		*json_r = sign_in_status(sign_in_of(tokend, mailbox), false);
	return result;
}

int tokend_verb_authorize_import(void *context, const struct kv_message *request, cJSON **json_r,
				 struct err *err)
{
	struct tokend *tokend = context;
	const struct conf_mailbox *mailbox = named_mailbox(tokend, request, err);
	const struct kv_pair *token = kv_find(request, "refresh_token");
	struct secret refresh = SECRET_INIT;
	struct sign_in *sign_in;
	int result;

	if (mailbox == NULL)
		return -1;
	if (token == NULL || token->value_len == 0)
		return err_set(err, ERR_PERM, "the request holds no refresh_token");
	if (secret_set(&refresh, token->value, token->value_len) < 0)
		return err_set(err, ERR_TEMP, "no memory for the refresh token");
	sign_in = sign_in_of(tokend, mailbox);
	result = sign_in_import(sign_in, tokend_identity_of(tokend, mailbox), mailbox, &refresh,
				err);
	secret_clear(&refresh);
	if (result == 0)
		*json_r = sign_in_status(sign_in, false);
	return result;
}

int tokend_verb_authorize_status(void *context, const struct kv_message *request, cJSON **json_r,
				 struct err *err)
{
	struct tokend *tokend = context;
	const struct conf_mailbox *mailbox = named_mailbox(tokend, request, err);
	const struct identity *identity;

	if (mailbox == NULL)
		return -1;
	identity = tokend_identity_of(tokend, mailbox);
	*json_r = sign_in_status(sign_in_of(tokend, mailbox), identity_is_storing(identity));
	(void)cJSON_AddItemToObject(*json_r, "token", identity_status(identity));
	return 0;
}

void tokend_stop_sign_ins(struct tokend *tokend)
{
	for (struct tokend_sign_in *entry = tokend->sign_ins; entry != NULL; entry = entry->next)
		sign_in_stop(entry->sign_in);
}

void tokend_free_sign_ins(struct tokend *tokend)
{
	while (tokend->sign_ins != NULL) {
		struct tokend_sign_in *entry = tokend->sign_ins;

		tokend->sign_ins = entry->next;
		sign_in_free(&entry->sign_in);
		free(entry);
	}
}
