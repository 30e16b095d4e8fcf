/* The control verbs of probes: probe, probe-status. */
#include "base/compat.h"

#include "token/tokend.h"

const struct conf_mailbox *tokend_named_mailbox(const struct tokend *tokend,
						const struct kv_message *request, struct err *err)
{
	const struct conf_mailbox *mailbox = NULL;
	char name[330];

	if (kv_copy(request, "mailbox", name, sizeof(name)) > 0) {
		mailbox = conf_mailbox_by_name(tokend->conf, name, strlen(name));
		if (mailbox == NULL)
			mailbox = conf_mailbox_by_address(tokend->conf, name);
	}
	if (mailbox == NULL)
		err_set(err, ERR_CONFIG, "the request names no mailbox of %s",
			tokend->conf->path);
	return mailbox;
}

int tokend_verb_probe(void *context, const struct kv_message *request, cJSON **json_r,
		      struct err *err)
{
	struct tokend *tokend = context;
	const struct conf_mailbox *mailbox = tokend_named_mailbox(tokend, request, err);

	if (mailbox == NULL)
		return -1;
	*json_r = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(*json_r, "mailbox", mailbox->name);
	(void)cJSON_AddNumberToObject(*json_r, "number",
				      (double)probes_ask(tokend->probes, mailbox));
	return 0;
}

int tokend_verb_probe_status(void *context, const struct kv_message *request, cJSON **json_r,
			     struct err *err)
{
	struct tokend *tokend = context;
	const struct conf_mailbox *mailbox = tokend_named_mailbox(tokend, request, err);
	long long number = 0;

	if (mailbox == NULL)
		return -1;
	(void)kv_number(request, "number", &number);
	*json_r = probes_verdict(tokend->probes, mailbox->name, number, true);
	if (*json_r == NULL) {
		*json_r = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(*json_r, "result", "running");
	}
	(void)cJSON_AddStringToObject(*json_r, "mailbox", mailbox->name);
	(void)cJSON_AddItemToObject(*json_r, "token",
				    identity_status(tokend_identity_of(tokend, mailbox)));
	return 0;
}
