/* relay365 check: the configuration was read before we are called; say what it holds. */
#include "base/compat.h"

#include "ctl/ctl.h"

int ctl_check(const struct ctl *ctl)
{
	const struct conf *conf = ctl->conf;

	if (ctl->argc != 0) {
		(void)fputs("usage: relay365 [-c FILE] check\n", stderr);
		return CTL_USAGE;
	}
	if (ctl->json) {
		cJSON *json = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(json, "configuration", conf->path);
		(void)cJSON_AddNumberToObject(json, "tenants", (double)conf->tenants);
		(void)cJSON_AddNumberToObject(json, "mailboxes", (double)conf->mailboxes);
		return ctl_print_json(json, CTL_OK);
	}
	(void)printf("%s is well: %zu tenant%s, %zu mailbox%s\n", conf->path, conf->tenants,
		     conf->tenants == 1 ? "" : "s", conf->mailboxes,
		     conf->mailboxes == 1 ? "" : "es");
	return CTL_OK;
}
