#include "proto/json_text.h"

#include "base/plain.h"
#include "base/xalloc.h"

void json_add_text(cJSON *to, const char *name, const char *text)
{
	char *copy = plain(xstrdup(text));

	(void)cJSON_AddStringToObject(to, name, copy);
	free(copy);
}
