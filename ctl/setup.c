/* relay365 setup: writes what other parts of the way need. */
#include "base/compat.h"

#include "ctl/setup.h"

static const struct part {
	const char *name;
	int (*run)(const struct ctl *ctl);
	bool alone; /* sees itself to the configuration, if it needs one */
} parts[] = {
	{"tenant", setup_tenant, true},
	{"postfix", setup_postfix, true},
	{"sendmail", setup_sendmail, false},
};

int ctl_setup(const struct ctl *ctl)
{
	struct ctl rest = *ctl;

	for (size_t i = 0; ctl->argc > 0 && i < ARRAY_LEN(parts); i++)
		if (strcmp(ctl->argv[0], parts[i].name) == 0) {
			rest.argc--;
			rest.argv++;
			return parts[i].alone ? parts[i].run(&rest)
					      : ctl_with_conf(&rest, parts[i].run);
		}
	(void)fputs("usage: relay365 [-c FILE] setup tenant [--id TENANT --mailboxes A,B ...]\n"
		    "       relay365 [-c FILE] setup postfix|sendmail [--apply|--undo|--print] "
		    "[--config-dir DIR]\n",
		    stderr);
	return CTL_USAGE;
}
