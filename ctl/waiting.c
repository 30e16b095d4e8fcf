#include "ctl/waiting.h"

#include "ctl/child.h"

#include <cjson/cJSON.h>

enum { OUTPUT_MAX = 64 << 20, LINE_MAX = 1 << 20 };

int64_t waiting_time_s(const char *text)
{
	static const char units[] = "smhdw";
	static const int64_t seconds[] = {1, 60, 3600, 86400, 7 * 86400};
	char *end;
	long n = strtol(text, &end, 10);
	const char *unit = *end == '\0' || *end == '\n' ? units : strchr(units, *end);

	return n <= 0 || n > 100000 || unit == NULL ? 0 : n * seconds[unit - units];
}

static void add_message(struct waiting *waiting, const cJSON *message)
{
	const char *queue =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "queue_name"));
	const cJSON *arrival = cJSON_GetObjectItemCaseSensitive(message, "arrival_time");
	int64_t at = cJSON_IsNumber(arrival) ? (int64_t)arrival->valuedouble : 0;

	if (queue == NULL)
		return;
	if (strcmp(queue, "hold") == 0) {
		waiting->held++;
		return;
	}
	waiting->messages++;
	waiting->recipients +=
		cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(message, "recipients"));
	if (at > 0 && (waiting->oldest_s == 0 || at < waiting->oldest_s))
		waiting->oldest_s = at;
}

/* "Total requests: 12" at the end. */
static int count_sendmail(struct waiting *waiting, int timeout_ms)
{
	static const char total[] = "Total requests: ";
	struct buf text = BUF_INIT(LINE_MAX);
	const char *at;
	int result = -1;

	if (child_run("mailq 2>/dev/null | tail -n 1", NULL, &text, timeout_ms) == 0) {
		at = strstr(buf_text(&text), total);
		if (at != NULL) {
			waiting->messages = strtoll(at + strlen(total), NULL, 10);
			result = 0;
		}
	}
	buf_clear(&text);
	return result;
}

int waiting_count(struct waiting *waiting_r, int timeout_ms)
{
	struct buf queue = BUF_INIT(OUTPUT_MAX);
	struct buf life = BUF_INIT(LINE_MAX);
	int64_t life_s;

	memset(waiting_r, 0, sizeof(*waiting_r));
	if (child_run("postqueue -j 2>/dev/null", NULL, &queue, timeout_ms) != 0) {
		buf_clear(&queue);
		return count_sendmail(waiting_r, timeout_ms);
	}
	for (const char *line = buf_text(&queue); *line != '\0';) {
		size_t len = strcspn(line, "\n");
		cJSON *message = cJSON_ParseWithLength(line, len);

		add_message(waiting_r, message);
		cJSON_Delete(message);
		line += len + (line[len] == '\n');
	}
	buf_clear(&queue);
	if (child_run("postconf -hx maximal_queue_lifetime 2>/dev/null", NULL, &life,
		      timeout_ms) == 0 &&
	    waiting_r->oldest_s > 0) {
		life_s = waiting_time_s(buf_text(&life));
		if (life_s > 0)
			waiting_r->first_expires_s = waiting_r->oldest_s + life_s;
	}
	buf_clear(&life);
	return 0;
}
