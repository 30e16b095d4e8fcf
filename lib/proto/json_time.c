#include "proto/json_time.h"

#include "base/clock.h"

void json_add_time(cJSON *to, const char *name, int64_t wall_ms)
{
	char text[CLOCK_TEXT_MAX];

	if (wall_ms == 0)
		(void)cJSON_AddNullToObject(to, name);
	else
		(void)cJSON_AddStringToObject(to, name, clock_rfc3339(wall_ms, text));
}
