#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "temp.h"
#include "test_conf_kit.h"

#include <unistd.h>

/* Files are named relatively, so that the messages are always the same. */
int conf_enter(void **state)
{
	if (temp_enter(state) < 0 || chdir(temp_path("")) < 0)
		return -1;
	(void)temp_text("secret", "canary\n");
	(void)temp_text("key", "canary\n");
	(void)temp_text("certificate", "\n");
	(void)temp_write("open", "canary\n", 7, 0644);
	return 0;
}

int conf_leave(void **state)
{
	return chdir("/") < 0 ? -1 : temp_leave(state);
}

struct conf *load(const char *text, struct err *err)
{
	(void)temp_text("c.conf", text);
	return conf_load("c.conf", err);
}

struct conf *load_good(const char *text)
{
	struct err err = ERR_INIT;
	struct conf *conf = load(text, &err);

	if (conf == NULL)
		fail_msg("%s", err.text);
	return conf;
}
