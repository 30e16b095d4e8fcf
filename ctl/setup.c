/* relay365 setup: writes what other parts of the way need. */
#include "base/compat.h"

#include "ctl/setup.h"

static const struct part {
	const char *name;
	int (*run)(const struct ctl *ctl);
} parts[] = {
	{"postfix", setup_postfix},
};

int ctl_setup(const struct ctl *ctl)
{
	struct ctl rest = *ctl;

	for (size_t i = 0; ctl->argc > 0 && i < ARRAY_LEN(parts); i++)
		if (strcmp(ctl->argv[0], parts[i].name) == 0) {
			rest.argc--;
			rest.argv++;
			return parts[i].run(&rest);
		}
	(void)fputs("usage: relay365 [-c FILE] setup postfix [--apply|--undo|--print] "
		    "[--config-dir DIR]\n",
		    stderr);
	return CTL_USAGE;
}
