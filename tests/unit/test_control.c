#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/loop.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "proto/control.h"
#include "temp.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG_MS 20000

/* A daemon's side on a thread of its own; the tests are the relay365 command. */
static struct {
	struct loop *loop;
	struct control_server *server;
	pthread_t thread;
	char path[128];
} served;

static int on_status(void *context, const struct kv_message *request, cJSON **json_r,
		     struct err *err)
{
	(void)err;
	assert_ptr_equal(context, &served);
	*json_r = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(*json_r, "name", "relay \"1\"\n");
	(void)cJSON_AddBoolToObject(*json_r, "asked", kv_find(request, "mailbox") != NULL);
	return 0;
}

static int on_nothing(void *context, const struct kv_message *request, cJSON **json_r,
		      struct err *err)
{
	(void)context;
	(void)request;
	(void)json_r;
	(void)err;
	return 0;
}

/* Fails with the class that the request names. */
static int on_fail(void *context, const struct kv_message *request, cJSON **json_r,
		   struct err *err)
{
	(void)context;
	(void)json_r;
	return err_set(err,
		       kv_is(request, "class", "config") ? ERR_CONFIG
		       : kv_is(request, "class", "temp") ? ERR_TEMP
							 : ERR_PERM,
		       "no such\nmailbox:\r\nstatus=ok");
}

/* An array of so many entries: answers larger than any socket's buffer. */
static int on_big(void *context, const struct kv_message *request, cJSON **json_r,
		  struct err *err)
{
	long long n = 0;

	(void)context;
	(void)err;
	(void)kv_number(request, "entries", &n);
	*json_r = cJSON_CreateArray();
	for (long long i = 0; i < n; i++)
		(void)cJSON_AddItemToArray(*json_r,
					   cJSON_CreateString("a key with its counters"));
	return 0;
}

static int on_halt(void *context, const struct kv_message *request, cJSON **json_r,
		   struct err *err)
{
	(void)context;
	(void)request;
	(void)json_r;
	(void)err;
	loop_stop(served.loop);
	return 0;
}

static const struct control_verb verbs[] = {
	{"status", on_status}, {"nothing", on_nothing}, {"fail", on_fail},
	{"big", on_big},       {"halt", on_halt},	{NULL, NULL},
};

static void *serve(void *arg)
{
	(void)loop_run(arg);
	return NULL;
}

static int enter(void **state)
{
	struct err err = ERR_INIT;

	if (temp_enter(state) < 0)
		return -1;
	(void)snprintf(served.path, sizeof(served.path), "%s", temp_path("control"));
	served.loop = loop_new();
	served.server = control_serve(served.loop, served.path, (gid_t)-1, verbs, &served, &err);
	return served.server == NULL ? -1
				     : pthread_create(&served.thread, NULL, serve, served.loop);
}

static int leave(void **state)
{
	struct err err = ERR_INIT;
	cJSON *json = NULL;

	if (control_call(served.path, "halt", NULL, NULL, LONG_MS, &json, &err) < 0)
		return -1;
	cJSON_Delete(json);
	(void)pthread_join(served.thread, NULL);
	control_server_free(&served.server);
	control_server_free(&served.server);
	loop_free(&served.loop);
	return temp_leave(state);
}

static cJSON *call(const char *verb, const char *key, const char *value)
{
	struct err err = ERR_INIT;
	cJSON *json = NULL;

	if (control_call(served.path, verb, key, value, LONG_MS, &json, &err) < 0)
		fail_msg("%s", err.text);
	return json;
}

static void refuse(const char *verb, const char *key, const char *value, enum err_class class,
		   const char *text)
{
	struct err err = ERR_INIT;
	cJSON *json = NULL;

	assert_int_equal(control_call(served.path, verb, key, value, LONG_MS, &json, &err), -1);
	assert_null(json);
	assert_int_equal(err.class, class);
	assert_string_equal(err.text, text);
}

static void test_answers(void **state)
{
	cJSON *json = call("status", NULL, NULL);

	(void)state;
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "name")),
			    "relay \"1\"\n");
	assert_true(cJSON_IsFalse(cJSON_GetObjectItem(json, "asked")));
	cJSON_Delete(json);
	json = call("status", "mailbox", "relay@contoso.com");
	assert_true(cJSON_IsTrue(cJSON_GetObjectItem(json, "asked")));
	cJSON_Delete(json);
	json = call("nothing", NULL, NULL);
	assert_true(cJSON_IsObject(json));
	assert_int_equal(cJSON_GetArraySize(json), 0);
	cJSON_Delete(json);
}

static void test_errors(void **state)
{
	(void)state;
	refuse("fail", "class", "config", ERR_CONFIG, "no such mailbox:  status=ok");
	refuse("fail", "class", "temp", ERR_TEMP, "no such mailbox:  status=ok");
	refuse("fail", "class", "", ERR_PERM, "no such mailbox:  status=ok");
	refuse("fail", NULL, NULL, ERR_PERM, "no such mailbox:  status=ok");
	refuse("unheard-of", NULL, NULL, ERR_PERM,
	       "this daemon knows no such verb; is it older than the command?");
	refuse("", NULL, NULL, ERR_PERM,
	       "this daemon knows no such verb; is it older than the command?");
}

/* What can't be said isn't sent. */
static void test_bad_arguments(void **state)
{
	char *large = xcalloc(1, KV_MESSAGE_MAX + 1);

	(void)state;
	refuse("lock", "reason", "two\nlines", ERR_PERM,
	       "reason has a line break in it or is too long");
	refuse("a\nverb=halt", NULL, NULL, ERR_PERM,
	       "the request has a line break in it or is too long");
	memset(large, 'x', KV_MESSAGE_MAX);
	refuse("lock", "reason", large, ERR_PERM, "reason has a line break in it or is too long");
	free(large);
}

static void test_big_answer(void **state)
{
	static const int entries[] = {0, 1, 1000, 100000};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
		char number[16];
		cJSON *json;

		(void)snprintf(number, sizeof(number), "%d", entries[i]);
		json = call("big", "entries", number);
		assert_int_equal(cJSON_GetArraySize(json), entries[i]);
		cJSON_Delete(json);
	}
}

/* Sends bytes and gives all that comes back until the daemon closes. */
static void raw(const char *data, size_t len, char *answer, size_t cap)
{
	struct err err = ERR_INIT;
	int fd = sock_connect(served.path, &err);
	size_t at = 0;

	assert_true(fd >= 0);
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		ssize_t n;

		assert_int_equal(poll(&pfd, 1, LONG_MS), 1);
		n = recv(fd, answer + at, cap - 1 - at, 0);
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	answer[at] = '\0';
	(void)close(fd);
}

static void test_on_the_wire(void **state)
{
	static const struct {
		const char *request;
		const char *answer;
	} cases[] = {
		{"relay365=1\nverb=nothing\n\n", "status=ok\nlength=2\n\n{}"},
		{"relay365=1\nverb=nothing\nnew_key=x\n\n", "status=ok\nlength=2\n\n{}"},
		{"relay365=2\nverb=nothing\n\n",
		 "status=error\nclass=perm\nreason=this daemon speaks version 1 of the protocol "
		 "only\n\n"},
		{"verb=nothing\n\n",
		 "status=error\nclass=perm\nreason=this daemon speaks version 1 of the protocol "
		 "only\n\n"},
		/* One request a connection. */
		{"relay365=1\nverb=nothing\n\nrelay365=1\nverb=nothing\n\n",
		 "status=ok\nlength=2\n\n{}"},
		{"GET / HTTP/1.1\r\n", ""},
		{"relay365=1\nrelay365=1\n\n", ""},
	};
	char answer[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		raw(cases[i].request, strlen(cases[i].request), answer, sizeof(answer));
		assert_string_equal(answer, cases[i].answer);
	}
}

/* Callers that say nothing or half a request don't keep others from being served. */
static void test_idle_callers(void **state)
{
	struct err err = ERR_INIT;
	int fd[20];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(fd); i++) {
		fd[i] = sock_connect(served.path, &err);
		assert_true(fd[i] >= 0);
		assert_int_equal(send(fd[i], "relay365=1\nve", 13, MSG_NOSIGNAL), 13);
	}
	cJSON_Delete(call("status", NULL, NULL));
	for (size_t i = 0; i < ARRAY_LEN(fd); i++)
		(void)close(fd[i]);
	cJSON_Delete(call("status", NULL, NULL));
}

/* ---- a daemon that does not answer as it should ---- */

struct answerer {
	int listener;
	const char *answer; /* NULL: none, and the connection stays open */
	int held;
};

static void *answer_once(void *arg)
{
	struct answerer *a = arg;
	struct pollfd pfd = {.fd = a->listener, .events = POLLIN};
	char request[256];

	if (poll(&pfd, 1, LONG_MS) != 1)
		return NULL;
	a->held = accept(a->listener, NULL, NULL);
	if (a->answer == NULL)
		return NULL;
	(void)!recv(a->held, request, sizeof(request), 0);
	(void)!send(a->held, a->answer, strlen(a->answer), MSG_NOSIGNAL);
	(void)shutdown(a->held, SHUT_RDWR);
	return NULL;
}

static void test_bad_answers(void **state)
{
	static const struct {
		const char *answer;
		int timeout_ms;
		enum err_class class;
		const char *text;
	} cases[] = {
		{"", LONG_MS, ERR_TEMP, "the daemon closed the connection without an answer"},
		{"status=ok\n", LONG_MS, ERR_TEMP,
		 "the daemon closed the connection without an answer"},
		{"HTTP/1.1 400 Bad Request\r\n\r\n", LONG_MS, ERR_TEMP,
		 "the daemon closed the connection without an answer"},
		{"status=ok\nlength=3\n\n{}", LONG_MS, ERR_TEMP, "the daemon's answer was cut"},
		{"status=ok\nlength=1\n\n{}", LONG_MS, ERR_TEMP, "the daemon's answer was cut"},
		{"status=ok\n\n{}", LONG_MS, ERR_TEMP, "the daemon's answer was cut"},
		{"status=ok\nlength=2\n\n{]", LONG_MS, ERR_PERM,
		 "the daemon's answer is not JSON"},
		{"status=error\n\n", LONG_MS, ERR_PERM, "the daemon gave no reason"},
		{"status=error\nclass=config\nreason=x\n\n", LONG_MS, ERR_CONFIG, "x"},
		{NULL, 20, ERR_TEMP, "the daemon did not answer in time"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct answerer a = {-1, cases[i].answer, -1};
		struct err err = ERR_INIT;
		cJSON *json = NULL;
		pthread_t thread;
		char name[16];

		(void)snprintf(name, sizeof(name), "bad%zu", i);
		a.listener = sock_listen(temp_path(name), 0600, (gid_t)-1, &err);
		assert_true(a.listener >= 0);
		assert_int_equal(pthread_create(&thread, NULL, answer_once, &a), 0);
		assert_int_equal(control_call(temp_path(name), "status", NULL, NULL,
					      cases[i].timeout_ms, &json, &err),
				 -1);
		(void)pthread_join(thread, NULL);
		assert_null(json);
		assert_string_equal(err.text, cases[i].text);
		assert_int_equal(err.class, cases[i].class);
		(void)close(a.held);
		(void)close(a.listener);
	}
}

static void test_no_daemon(void **state)
{
	struct err err = ERR_INIT;
	cJSON *json = NULL;

	(void)state;
	assert_int_equal(
		control_call(temp_path("missing"), "status", NULL, NULL, 100, &json, &err), -1);
	assert_int_equal(err.class, ERR_TEMP);
	assert_non_null(strstr(err.text, "cannot connect to"));
	assert_non_null(strstr(err.text, "missing"));
}

#define SERVED(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SERVED(test_answers),
		SERVED(test_errors),
		SERVED(test_bad_arguments),
		SERVED(test_big_answer),
		SERVED(test_on_the_wire),
		SERVED(test_idle_callers),
		cmocka_unit_test_setup_teardown(test_bad_answers, temp_enter, temp_leave),
		cmocka_unit_test_setup_teardown(test_no_daemon, temp_enter, temp_leave),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
