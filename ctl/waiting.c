#include "ctl/waiting.h"

#include "ctl/child.h"
#include "ctl/instance.h"

enum { LINE_MAX = 1 << 20 };

int64_t waiting_time_s(const char *text)
{
	static const char units[] = "smhdw";
	static const int64_t seconds[] = {1, 60, 3600, 86400, 7 * 86400};
	char *end;
	long n = strtol(text, &end, 10);
	const char *unit = *end == '\0' || *end == '\n' ? units : strchr(units, *end);

	return n <= 0 || n > 100000 || unit == NULL ? 0 : n * seconds[unit - units];
}

static void add_message(void *arg, const cJSON *message)
{
	struct waiting *waiting = arg;
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

/* The earlier of two times, of which either may be 0, none. */
static int64_t earlier(int64_t a, int64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

static int64_t life_s(const char *config_dir)
{
	static const char *const args[] = {"-hx", "maximal_queue_lifetime", NULL};
	struct buf life = BUF_INIT(LINE_MAX);
	int64_t seconds = 0;

	if (instance_run(config_dir, "postconf", args, NULL, &life, NULL) == 0)
		seconds = waiting_time_s(buf_text(&life));
	buf_clear(&life);
	return seconds;
}

static int count_instance(struct waiting *all, const char *config_dir)
{
	struct waiting here = {.messages = 0};
	int64_t life;

	if (instance_queue(config_dir, add_message, &here, NULL) < 0)
		return -1;
	life = here.oldest_s == 0 ? 0 : life_s(config_dir);
	if (life > 0)
		here.first_expires_s = here.oldest_s + life;
	all->messages += here.messages;
	all->held += here.held;
	all->recipients += here.recipients;
	all->oldest_s = earlier(all->oldest_s, here.oldest_s);
	all->first_expires_s = earlier(all->first_expires_s, here.first_expires_s);
	return 0;
}

/* "Total requests: 12" at the end. */
static int count_sendmail(struct waiting *waiting)
{
	static const char total[] = "Total requests: ";
	struct buf text = BUF_INIT(LINE_MAX);
	const char *at;
	int result = -1;

	if (child_run("mailq 2>/dev/null | tail -n 1", NULL, &text, INSTANCE_TIMEOUT_MS) == 0) {
		at = strstr(buf_text(&text), total);
		if (at != NULL) {
			waiting->messages = strtoll(at + strlen(total), NULL, 10);
			result = 0;
		}
	}
	buf_clear(&text);
	return result;
}

int waiting_count(const char *const *queue_dirs, size_t count, struct waiting *waiting_r)
{
	size_t found = 0;

	memset(waiting_r, 0, sizeof(*waiting_r));
	for (size_t i = 0; i < count; i++) {
		char *config_dir = instance_config_dir(queue_dirs[i], NULL);

		found += config_dir != NULL;
		if (config_dir == NULL || count_instance(waiting_r, config_dir) < 0)
			waiting_r->unread++;
		free(config_dir);
	}
	if (found == 0) {
		waiting_r->unread = 0;
		return count_sendmail(waiting_r);
	}
	return waiting_r->unread < count ? 0 : -1;
}
