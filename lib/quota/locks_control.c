#include "quota/locks_control.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/json_text.h"
#include "proto/json_time.h"

enum { SECONDS_MAX = 366 * 24 * 3600 };

static cJSON *to_json(const struct lock *lock)
{
	cJSON *json = cJSON_CreateObject();

	json_add_text(json, "key", lock->key);
	json_add_text(json, "reason", lock->reason);
	(void)cJSON_AddStringToObject(json, "by", lock->by);
	json_add_time(json, "since", lock->since_wall_ms);
	json_add_time(json, "until", lock->until_wall_ms);
	return json;
}

void locks_log(const struct lock *lock)
{
	struct log_line line;

	log_begin(&line, EV_LOCK, NULL);
	log_str(&line, "key", lock->key);
	log_str(&line, "by", lock->by);
	if (lock->until_wall_ms > 0)
		log_time(&line, "until", lock->until_wall_ms);
	log_str(&line, "reason", lock->reason);
	log_end(&line);
}

/* The key in the request: what is locked already as it stands there, else what it means. */
static int read_key(struct locks *locks, const struct conf *conf,
		    const struct kv_message *request, char key_r[LOCK_KEY_MAX + 1],
		    struct err *err)
{
	char text[LOCK_KEY_MAX + 1];
	struct lock there;

	if (kv_copy(request, "key", text, sizeof(text)) <= 0)
		return err_set(err, ERR_PERM, "key is missing or longer than %d bytes",
			       LOCK_KEY_MAX);
	if (locks_find(locks, "", text, &there)) {
		memcpy(key_r, there.key, sizeof(there.key));
		return 0;
	}
	return locks_key(conf, text, key_r, err);
}

int locks_control_lock(struct locks *locks, const struct conf *conf,
		       const struct kv_message *request, cJSON **json_r, struct err *err)
{
	struct lock lock = {.by = "admin", .since_wall_ms = clock_wall_ms()};
	bool forever = kv_find(request, "seconds") == NULL;
	long long seconds = 0;

	if (read_key(locks, conf, request, lock.key, err) < 0)
		return -1;
	if (kv_copy(request, "reason", lock.reason, sizeof(lock.reason)) <= 0)
		return err_set(
			err, ERR_PERM,
			"a lock needs a reason of 1 to %d bytes: it is told to who meets it",
			LOCK_REASON_MAX);
	if (!forever &&
	    (kv_number(request, "seconds", &seconds) < 0 || seconds < 1 || seconds > SECONDS_MAX))
		return err_set(err, ERR_PERM, "a lock lasts 1 s to 366 days");
	if (!forever)
		lock.until_wall_ms = lock.since_wall_ms + seconds * 1000;
	if (locks_add(locks, &lock, LOCK_WRITE_MS, err) < 0)
		return -1;
	locks_log(&lock);
	*json_r = to_json(&lock);
	return 0;
}

int locks_control_unlock(struct locks *locks, const struct conf *conf,
			 const struct kv_message *request, cJSON **json_r, struct err *err)
{
	char key[LOCK_KEY_MAX + 1];
	struct log_line line;
	int removed;

	if (read_key(locks, conf, request, key, err) < 0)
		return -1;
	removed = locks_remove(locks, key, LOCK_WRITE_MS, err);
	if (removed < 0)
		return -1;
	if (removed > 0) {
		log_begin(&line, EV_UNLOCK, NULL);
		log_str(&line, "key", key);
		log_str(&line, "by", "admin");
		log_end(&line);
	}
	*json_r = cJSON_CreateObject();
	json_add_text(*json_r, "key", key);
	(void)cJSON_AddBoolToObject(*json_r, "was_locked", removed > 0);
	return 0;
}

static void add_lock(void *arg, const struct lock *lock)
{
	(void)cJSON_AddItemToArray(arg, to_json(lock));
}

void locks_control_status(struct locks *locks, cJSON *to)
{
	char problem[ERR_TEXT_MAX];

	locks_each(locks, add_lock, cJSON_AddArrayToObject(to, "locks"));
	locks_problem(locks, problem, sizeof(problem));
	if (problem[0] != '\0')
		(void)cJSON_AddStringToObject(to, "locks_problem", problem);
}
