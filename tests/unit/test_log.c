#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/xalloc.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <unistd.h>

static char captured[65536];
static int real_stderr, out;

/* Standard error becomes a pipe; each test reads what it caused. */
static int enter(void **state)
{
	int pair[2];

	(void)state;
	if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	real_stderr = dup(STDERR_FILENO);
	(void)dup2(pair[1], STDERR_FILENO);
	(void)close(pair[1]);
	out = pair[0];
	log_open("test", LOG_TO_STDERR, false, false);
	return 0;
}

static int leave(void **state)
{
	(void)state;
	(void)dup2(real_stderr, STDERR_FILENO);
	(void)close(real_stderr);
	(void)close(out);
	return 0;
}

static const char *capture(void)
{
	ssize_t n = read(out, captured, sizeof(captured) - 1);

	captured[n < 0 ? 0 : n] = '\0';
	return captured;
}

/* The one line that was written, without its end and, as text, without its time. */
static char *one_line(bool json)
{
	char *line = captured, *end;

	(void)capture();
	end = strchr(line, '\n');
	if (end == NULL || end[1] != '\0')
		fail_msg("not one line: %s", line);
	*end = '\0';
	assert_true(strlen(line) < LOG_LINE_MAX);
	for (const char *p = line; *p != '\0'; p++)
		assert_true((unsigned char)*p >= 32 && *p != 127);
	if (json)
		return line;
	assert_true(strlen(line) > 27);
	assert_int_equal(line[19], 'Z');
	assert_memory_equal(line + 20, " test: ", 7);
	return line + 27;
}

static cJSON *one_json(void)
{
	const char *line = one_line(true);
	const char *end = NULL;
	cJSON *json = cJSON_ParseWithOpts(line, &end, true);

	if (json == NULL)
		fail_msg("not JSON: %s", line);
	assert_true(cJSON_IsObject(json));
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "event")), "accept");
	return json;
}

static void log_value(const char *value, size_t len)
{
	struct log_line line;

	log_begin(&line, EV_ACCEPT, "4XyZ");
	log_mem(&line, "v", value, len);
	log_int(&line, "after", 1);
	log_end(&line);
}

static void test_text(void **state)
{
	struct log_line line;

	(void)state;
	log_begin(&line, EV_ACCEPT, "4XyZ");
	log_str(&line, "mailbox", "relay");
	log_str(&line, "none", NULL);
	log_int(&line, "nrcpt", -12);
	log_int(&line, "least", INT64_MIN);
	log_ratio(&line, "used", 8012, 9500);
	log_time(&line, "room_at", 1795442825000);
	log_end(&line);
	assert_string_equal(one_line(false),
			    "4XyZ: accept mailbox=relay nrcpt=-12 least=-9223372036854775808 "
			    "used=8012/9500 room_at=2026-11-23T14:07:05Z");
	log_say(EV_NOTE, "%s %d", "so much for", 1);
	assert_string_equal(one_line(false), "note text=\"so much for 1\"");
}

static void log_number(int64_t n, bool later)
{
	struct log_line line;

	log_begin(&line, EV_ACCEPT, "4XyZ");
	log_int(&line, "n", n);
	if (later)
		log_end_later(&line);
	else
		log_end(&line);
}

/* Whatever waits and whatever doesn't: each line once, in order, and all of them in the end. */
static void test_later(void **state)
{
	enum { LINES = 600 };
	const char *at = captured;

	(void)state;
	log_number(0, true); /* nobody is there to write it later */
	assert_string_equal(one_line(false), "4XyZ: accept n=0");
	log_start_writer();
	for (int i = 0; i < LINES; i++)
		log_number(i, i % 100 != 99);
	log_stop_writer();
	log_number(LINES, true);
	(void)capture();
	for (int i = 0; i <= LINES; i++) {
		at = strstr(at, "n=");
		if (at == NULL)
			fail_msg("line %d is not there", i);
		assert_int_equal(strtoll(at + 2, NULL, 10), i);
		at += 2;
	}
	assert_null(strstr(at, "n="));
}

static void test_json(void **state)
{
	struct log_line line;
	cJSON *json;

	(void)state;
	log_open("test", LOG_TO_STDERR, true, false);
	log_begin(&line, EV_ACCEPT, "4XyZ");
	log_str(&line, "mailbox", "relay");
	log_str(&line, "none", NULL);
	log_int(&line, "nrcpt", 12);
	log_ratio(&line, "used", 8012, 9500);
	log_end(&line);
	json = one_json();
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "queue_id")), "4XyZ");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "mailbox")), "relay");
	assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "nrcpt")) == 12);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "used")), "8012/9500");
	assert_int_equal(strlen(cJSON_GetStringValue(cJSON_GetObjectItem(json, "time"))), 20);
	assert_false(cJSON_HasObjectItem(json, "none"));
	cJSON_Delete(json);
}

static void test_debug(void **state)
{
	struct log_line line;

	(void)state;
	for (int debug = 0; debug <= 1; debug++) {
		log_open("test", LOG_TO_STDERR, false, debug == 1);
		log_begin(&line, EV_LEASE, NULL);
		log_str(&line, "a", "b");
		log_end(&line);
		if (debug == 0)
			assert_string_equal(capture(), "");
		else
			assert_string_equal(one_line(false), "lease a=b");
	}
}

#define LIT(text) (text), sizeof(text) - 1

static const struct {
	const char *value;
	size_t len;
	const char *text; /* as text */
	const char *json; /* as JSON once parsed */
} hostile[] = {
	{LIT("plain"), "plain", "plain"},
	{LIT(""), "\"\"", ""},
	{LIT("two words"), "\"two words\"", "two words"},
	{LIT("a=b"), "a=b", "a=b"},
	{LIT("x\nNov 23 accept mailbox=forged"), "\"x?Nov 23 accept mailbox=forged\"",
	 "x?Nov 23 accept mailbox=forged"},
	{LIT("x\r\ny"), "\"x??y\"", "x??y"},
	{LIT("x\0y"), "\"x?y\"", "x?y"},
	{LIT("\033[2J\a\b\177"), "\"?[2J???\"", "?[2J???"},
	{LIT("x\" after=2 y=\""), "\"x\\\" after=2 y=\\\"\"", "x\" after=2 y=\""},
	{LIT("back\\slash"), "\"back\\\\slash\"", "back\\slash"},
	{LIT("\\\""), "\"\\\\\\\"\"", "\\\""},
	{LIT("\","), "\"\\\",\"", "\","},
	{LIT("\tx"), "\"?x\"", "?x"},
	{LIT("J\303\266rg \342\202\254 \360\237\223\247"),
	 "\"J\303\266rg \342\202\254 \360\237\223\247\"",
	 "J\303\266rg \342\202\254 \360\237\223\247"},
	/* No UTF-8: stray bytes, cut, too long a form, surrogates, beyond the end; C1 controls.
	 */
	{LIT("\200\377x"), "\"??x\"", "??x"},
	{LIT("\303"), "\"?\"", "?"},
	{LIT("\342\202"), "\"??\"", "??"},
	{LIT("\360\237\223"), "\"???\"", "???"},
	{LIT("\300\257"), "\"??\"", "??"},
	{LIT("\340\200\257"), "\"???\"", "???"},
	{LIT("\355\240\200"), "\"???\"", "???"},
	{LIT("\364\220\200\200"), "\"????\"", "????"},
	{LIT("\302\205x\302\233y"), "\"??x??y\"", "??x??y"},
	{LIT("\303\"x"), "\"?\\\"x\"", "?\"x"},
};

static void test_hostile_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
		char *expected = xasprintf("4XyZ: accept v=%s after=1", hostile[i].text);

		log_value(hostile[i].value, hostile[i].len);
		assert_string_equal(one_line(false), expected);
		free(expected);
	}
}

static void test_hostile_json(void **state)
{
	(void)state;
	log_open("test", LOG_TO_STDERR, true, false);
	for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
		cJSON *json;

		log_value(hostile[i].value, hostile[i].len);
		json = one_json();
		assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "v")),
				    hostile[i].json);
		assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "after")) == 1);
		cJSON_Delete(json);
	}
}

/* The queue id comes from the MTA, but through a socket. */
static void test_hostile_queue_id(void **state)
{
	char id[3000];
	struct log_line line;
	cJSON *json;

	(void)state;
	log_begin(&line, EV_ACCEPT, "4X\nyZ: \177");
	log_end(&line);
	assert_string_equal(one_line(false), "4X?yZ:??: accept");
	memset(id, '"', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	log_begin(&line, EV_ACCEPT, id);
	log_str(&line, "a", "b");
	log_end(&line);
	assert_non_null(strstr(one_line(false), "\": accept a=b"));
	log_open("test", LOG_TO_STDERR, true, false);
	log_begin(&line, EV_ACCEPT, id);
	log_str(&line, "a", "b");
	log_end(&line);
	json = one_json();
	assert_true(cJSON_HasObjectItem(json, "a"));
	cJSON_Delete(json);
}

static unsigned int seed = 365;

static unsigned int next_random(void)
{
	seed = seed * 1103515245 + 12345;
	return seed >> 16 & 0x7fff;
}

/* Lines of random fields of random bytes and sizes: one line each, and JSON whatever was cut. */
static void test_any_size(void **state)
{
	static const char *const keys[] = {"a", "mailbox", "a_rather_long_name_of_a_key"};

	(void)state;
	for (int turn = 0; turn < 4000; turn++) {
		bool json = turn % 2 == 0;
		unsigned int fields = next_random() % 12;
		struct log_line line;

		log_open("test", LOG_TO_STDERR, json, false);
		log_begin(&line, EV_ACCEPT, turn % 3 == 0 ? NULL : "4XyZ");
		for (unsigned int i = 0; i < fields; i++) {
			char value[2 * LOG_VALUE_MAX];
			size_t len = next_random() % sizeof(value);
			bool plain = next_random() % 2 == 0;

			for (size_t j = 0; j < len; j++)
				value[j] = (char)(plain ? 'x' : next_random());
			if (next_random() % 4 == 0)
				log_int(&line, keys[i % 3], (int64_t)next_random() << 40);
			else
				log_mem(&line, keys[i % 3], value, len);
		}
		log_end(&line);
		if (json)
			cJSON_Delete(one_json());
		else
			(void)one_line(false);
	}
}

static void test_long_value(void **state)
{
	char value[2 * LOG_VALUE_MAX];
	char *line;

	(void)state;
	memset(value, 'x', sizeof(value));
	log_value(value, sizeof(value));
	line = one_line(false);
	assert_int_equal(strspn(strstr(line, "v=") + 2, "x"), LOG_VALUE_MAX);
	assert_non_null(strstr(line, " after=1"));
}

static void test_events(void **state)
{
	(void)state;
	for (int i = 0; i < EV_COUNT; i++) {
		const char *name = log_event_name((enum log_event)i);
		const char *meaning = log_event_meaning((enum log_event)i);

		assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz-"), strlen(name));
		assert_true(strlen(meaning) > 0 && meaning[strlen(meaning) - 1] != '.');
		assert_true(log_event_level((enum log_event)i) <= LOGL_DEBUG);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(name, log_event_name((enum log_event)j));
	}
}

#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURED(test_text),	     CAPTURED(test_json),
		CAPTURED(test_debug),	     CAPTURED(test_hostile_text),
		CAPTURED(test_hostile_json), CAPTURED(test_hostile_queue_id),
		CAPTURED(test_any_size),     CAPTURED(test_long_value),
		CAPTURED(test_later),	     cmocka_unit_test(test_events),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
