/*
 * librelay365.so as libsasl2 loads it, with the callbacks and the security
 * properties that Postfix's smtp(8) uses, against a stand-in for tokend.
 * RELAY365_PLUGIN_DIR is the folder of the plugin.
 */
#include "base/compat.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sasl/sasl.h>
#include <sasl/saslplug.h>
#include <sasl/saslutil.h>

#include "fake_tokend.h"

#ifndef DEFAULT_PLUGIN_DIR
#define DEFAULT_PLUGIN_DIR "sasl2" /* of the build */
#endif
#define PLUGIN "librelay365.so"
#define PLUGIN_FOLDER "plugins" /* in the working directory; holds a link to the plugin */

#define LIT(text) (text), sizeof(text) - 1
#define USER "test@contoso.onmicrosoft.com"
#define TOKEN "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA"
#define GOOD "status=ok\ntoken=" TOKEN "\nexpires_at=1795451778\n\n"
/* The documented example of Microsoft for USER and TOKEN. */
#define BASE64                                                                               \
	"dXNlcj10ZXN0QGNvbnRvc28ub25taWNyb3NvZnQuY29tAWF1dGg9QmVhcmVyIEV3QkFBbDNCQUFVRkZwVU" \
	"FvN0ozVmUwYmpMQldaV0NjbFJDM0VvQUEBAQ=="
#define PASSWORD_MAX 300

struct client {
	const char *user;
	const char *authzid;
	struct {
		unsigned long len;
		unsigned char data[PASSWORD_MAX];
	} password; /* as a sasl_secret_t */
	sasl_callback_t callbacks[4];
	sasl_conn_t *conn;
	const char *out;
	unsigned out_len;
};

static char log_text[65536];

/* --- What Postfix does --- */

static int on_log(void *context, int level, const char *message)
{
	size_t len = strlen(log_text);

	(void)context;
	(void)snprintf(log_text + len, sizeof(log_text) - len, "%d %s\n", level, message);
	return SASL_OK;
}

static int on_name(void *context, int id, const char **name_r, unsigned *len_r)
{
	struct client *client = context;

	*name_r = id == SASL_CB_USER ? client->authzid : client->user;
	if (len_r != NULL && *name_r != NULL)
		*len_r = (unsigned)strlen(*name_r);
	return SASL_OK;
}

static int on_password(sasl_conn_t *conn, void *context, int id, sasl_secret_t **secret_r)
{
	struct client *client = context;

	if (conn == NULL || id != SASL_CB_PASS)
		return SASL_BADPARAM;
	*secret_r = (sasl_secret_t *)&client->password;
	return SASL_OK;
}

#define CALLBACK(function) ((int (*)(void))(void (*)(void))(function))

static void client_open(struct client *client, const char *password, size_t len)
{
	sasl_security_properties_t properties = {.security_flags = SASL_SEC_NOPLAINTEXT |
								   SASL_SEC_NOANONYMOUS};
	int n = 0;

	assert_true(len <= PASSWORD_MAX);
	log_text[0] = '\0';
	client->password.len = len;
	memcpy(client->password.data, password, len);
	client->callbacks[n++] = (sasl_callback_t){SASL_CB_AUTHNAME, CALLBACK(on_name), client};
	client->callbacks[n++] = (sasl_callback_t){SASL_CB_PASS, CALLBACK(on_password), client};
	if (client->authzid != NULL)
		client->callbacks[n++] =
			(sasl_callback_t){SASL_CB_USER, CALLBACK(on_name), client};
	client->callbacks[n] = (sasl_callback_t){SASL_CB_LIST_END, NULL, NULL};
	assert_int_equal(sasl_client_new("smtp", "smtp.office365.com", NULL, NULL,
					 client->callbacks, 0, &client->conn),
			 SASL_OK);
	assert_int_equal(sasl_setprop(client->conn, SASL_SEC_PROPS, &properties), SASL_OK);
}

static int client_start(struct client *client)
{
	const char *mechanism = NULL;
	int result = sasl_client_start(client->conn, "LOGIN XOAUTH2", NULL, &client->out,
				       &client->out_len, &mechanism);

	if (result == SASL_CONTINUE)
		assert_string_equal(mechanism, "XOAUTH2");
	return result;
}

/* The challenge is handed over without a NUL, in memory that ends where it ends. */
static int client_step(struct client *client, const char *challenge, size_t len)
{
	char *copy = malloc(len > 0 ? len : 1);
	int result;

	assert_non_null(copy);
	memcpy(copy, challenge, len);
	result = sasl_client_step(client->conn, copy, (unsigned)len, NULL, &client->out,
				  &client->out_len);
	free(copy);
	return result;
}

/* A client up to the server's first challenge, which is empty. */
static int first_step(struct client *client)
{
	assert_int_equal(client_start(client), SASL_CONTINUE);
	assert_int_equal(client->out_len, 0);
	return client_step(client, "", 0);
}

static void client_close(struct client *client)
{
	sasl_dispose(&client->conn);
	assert_null(strstr(log_text, TOKEN));
}

/* --- Where the plugin is --- */

static int enter(void **state)
{
	static sasl_callback_t callbacks[] = {{SASL_CB_LOG, CALLBACK(on_log), NULL},
					      {SASL_CB_LIST_END, NULL, NULL}};
	const char *folder = getenv("RELAY365_PLUGIN_DIR");
	char path[PATH_MAX + sizeof(PLUGIN) + 1];
	char real[PATH_MAX];

	(void)state;
	if (folder == NULL)
		folder = DEFAULT_PLUGIN_DIR;
	(void)snprintf(path, sizeof(path), "%s/%s", folder, PLUGIN);
	if (realpath(path, real) == NULL)
		fail_msg("%s: no plugin there; set RELAY365_PLUGIN_DIR", path);
	fake_enter();
	assert_int_equal(mkdir(PLUGIN_FOLDER, 0700), 0);
	assert_int_equal(symlink(real, PLUGIN_FOLDER "/" PLUGIN), 0);
	assert_int_equal(setenv("SASL_PATH", PLUGIN_FOLDER, 1), 0);
	assert_int_equal(sasl_client_init(callbacks), SASL_OK);
	return 0;
}

static int leave(void **state)
{
	(void)state;
	sasl_client_done();
	(void)unlink(PLUGIN_FOLDER "/" PLUGIN);
	(void)rmdir(PLUGIN_FOLDER);
	fake_leave();
	return 0;
}

/* --- The cases --- */

static void test_microsofts_example(void **state)
{
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};
	struct client client = {.user = USER};
	char base64[512];
	unsigned len = 0;

	(void)state;
	fake_start(&fake);
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	assert_int_equal(client_start(&client), SASL_CONTINUE);
	assert_null(client.out);
	assert_int_equal(client.out_len, 0);
	assert_int_equal(fake.asked, 0);
	assert_int_equal(client_step(&client, "", 0), SASL_OK);
	assert_int_equal(sasl_encode64(client.out, client.out_len, base64, sizeof(base64), &len),
			 SASL_OK);
	assert_string_equal(base64, BASE64);
	assert_string_equal(fake.request, "relay365=1\nverb=lease\nmailbox=" USER "\n\n");
	assert_string_equal(log_text, "");
	/* The server says 235, mail flows, and all the while the lease is held. */
	(void)usleep(50000);
	assert_int_equal(fake.ended, 0);
	client_close(&client);
	assert_true(fake_wait_ended(&fake, 1));
	assert_int_equal(fake.asked, 1);
	fake_stop(&fake);
}

static void test_no_security_layer(void **state)
{
	sasl_security_properties_t properties = {.max_ssf = 256, .maxbufsize = 4096};
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};
	struct client client = {.user = USER};
	const sasl_ssf_t *ssf = NULL;
	const char *sealed = NULL;
	unsigned len = 0;

	(void)state;
	fake_start(&fake);
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	assert_int_equal(sasl_setprop(client.conn, SASL_SEC_PROPS, &properties), SASL_OK);
	assert_int_equal(first_step(&client), SASL_OK);
	assert_int_equal(sasl_getprop(client.conn, SASL_SSF, (const void **)&ssf), SASL_OK);
	assert_int_equal(*ssf, 0);
	assert_int_equal(sasl_encode(client.conn, LIT("mail"), &sealed, &len), SASL_OK);
	assert_int_equal(len, 4);
	assert_memory_equal(sealed, "mail", 4);
	client_close(&client);
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	properties.min_ssf = 1;
	assert_int_equal(sasl_setprop(client.conn, SASL_SEC_PROPS, &properties), SASL_OK);
	assert_int_equal(client_start(&client), SASL_TOOWEAK);
	client_close(&client);
	fake_stop(&fake);
}

static void test_challenge_comes_first(void **state)
{
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};
	struct client client = {.user = USER};

	(void)state;
	fake_start(&fake);
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	assert_int_equal(client_start(&client), SASL_CONTINUE);
	assert_int_equal(client_step(&client, LIT("send %s%n\0\nmore")), SASL_BADPROT);
	assert_null(client.out);
	assert_int_equal(client.out_len, 0);
	assert_non_null(strstr(log_text, "smtp.office365.com: expected an empty challenge for "
					 "XOAUTH2, got: send %s%n??more\n"));
	/* An empty one afterwards comes too late. */
	assert_int_equal(client_step(&client, "", 0), SASL_BADPROT);
	assert_int_equal(client.out_len, 0);
	client_close(&client);
	assert_int_equal(fake.asked, 0);
	fake_stop(&fake);
}

static void test_error_challenge(void **state)
{
	static const char json[] = "{\"status\":\"401\",\"schemes\":\"Bearer\"}";
	static char long_text[20000];
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};
	struct client client = {.user = USER};

	(void)state;
	memset(long_text, 'x', sizeof(long_text));
	fake_start(&fake);
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	assert_int_equal(first_step(&client), SASL_OK);
	assert_int_equal(client_step(&client, LIT(json)), SASL_CONTINUE);
	assert_non_null(client.out);
	assert_int_equal(client.out_len, 0);
	assert_non_null(strstr(log_text, json));
	assert_int_equal(client_step(&client, LIT(json)), SASL_BADPROT);
	assert_int_equal(client.out_len, 0);
	client_close(&client);
	assert_true(fake_wait_ended(&fake, 1));
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	assert_int_equal(first_step(&client), SASL_OK);
	assert_int_equal(client_step(&client, long_text, sizeof(long_text)), SASL_CONTINUE);
	assert_true(strlen(log_text) < 1000);
	client_close(&client);
	fake_stop(&fake);
}

static void test_tokends_answers(void **state)
{
	static const struct {
		const char *answer;
		int result;
		bool hang_up;
		const char *logged;
	} cases[] = {
		{"status=later\nreason=12 of 12 used; room at 14:07 UTC\nretry_after=420\n\n",
		 SASL_TRYAGAIN, false,
		 USER ": no token now: 12 of 12 used; room at 14:07 UTC (not before 420 s"},
		{"status=denied\nreason=relay is locked: 5.1.8\n\n", SASL_NOAUTHZ, false,
		 USER ": no token: relay is locked: 5.1.8; see: relay365 status"},
		{"status=ok\ntoken=" TOKEN "\n", SASL_UNAVAIL, true,
		 USER ": relay365-tokend at token hung up before it had answered"},
		{"status=ok\ntoken=" TOKEN "\n\nmore", SASL_UNAVAIL, false, "of one release?"},
		{"status=ok\ntoken=" TOKEN "\001\001\n\n", SASL_UNAVAIL, false,
		 "sent a token that is too long or has characters that no token may have"},
		{"status=ok\ntoken=" TOKEN " x\n\n", SASL_UNAVAIL, false, "sent a token that"},
		{"nonsense\n\n", SASL_UNAVAIL, false, "of one release?"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fake fake = {.answer = cases[i].answer,
				    .answer_len = strlen(cases[i].answer),
				    .hang_up = cases[i].hang_up};
		struct client client = {.user = USER};
		int result;

		fake_start(&fake);
		client_open(&client, LIT("unix:" FAKE_SOCKET));
		result = first_step(&client);
		if (result != cases[i].result || client.out_len != 0 ||
		    strstr(log_text, cases[i].logged) == NULL)
			fail_msg("case %zu: result %d, %u bytes out, log: %s", i, result,
				 client.out_len, log_text);
		assert_non_null(strstr(sasl_errdetail(client.conn), "relay365: " USER ": "));
		/* A lease without use is given back before the session ends. */
		assert_true(cases[i].hang_up || fake_wait_ended(&fake, 1));
		assert_int_equal(client_step(&client, "", 0), SASL_BADPROT);
		client_close(&client);
		assert_int_equal(fake.asked, 1);
		fake_stop(&fake);
	}
}

/* status=ok with a token of len bytes. Returns the length of the answer. */
static size_t long_answer(char *answer, size_t len)
{
	static const char head[] = "status=ok\ntoken=";
	size_t at = sizeof(head) - 1;

	memcpy(answer, head, at);
	memset(answer + at, 'A', len);
	memcpy(answer + at + len, "\n\n", 2);
	return at + len + 2;
}

static void test_size_of_the_token(void **state)
{
	static char answer[40000];
	static const struct {
		size_t token_len;
		int result;
		size_t chunk;
	} cases[] = {
		{16384, SASL_OK, 0},	  {16384, SASL_OK, 97},	    {3000, SASL_OK, 7},
		{16385, SASL_UNAVAIL, 0}, {32700, SASL_UNAVAIL, 0}, {39000, SASL_UNAVAIL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fake fake = {.answer = answer,
				    .answer_len = long_answer(answer, cases[i].token_len),
				    .chunk = cases[i].chunk};
		struct client client = {.user = USER};

		fake_start(&fake);
		client_open(&client, LIT("unix:" FAKE_SOCKET));
		assert_int_equal(first_step(&client), cases[i].result);
		if (cases[i].result == SASL_OK)
			assert_int_equal(client.out_len, strlen("user=" USER "1auth=Bearer 11") +
								 cases[i].token_len);
		assert_null(strstr(log_text, "AAAA"));
		client_close(&client);
		fake_stop(&fake);
	}
}

static void test_no_daemon(void **state)
{
	struct client client = {.user = USER};

	(void)state;
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	assert_int_equal(first_step(&client), SASL_UNAVAIL);
	assert_int_equal(client.out_len, 0);
	assert_non_null(strstr(log_text, USER ": cannot connect to token: No such file or "
					      "directory; is relay365-tokend running"));
	client_close(&client);
}

static void test_wrong_set_up(void **state)
{
	static const struct {
		const char *user;
		const char *authzid;
		const char *password;
		size_t len;
		const char *logged;
	} cases[] = {
		{USER, NULL, LIT("hunter2-Pa55"), "its password must be the address of"},
		{USER, NULL, LIT(""), "its password must be the address of"},
		{USER, NULL, LIT("unix:"), "its password must be the address of"},
		{USER, NULL, LIT("unix:token\0x"), "its password must be the address of"},
		{USER, NULL, LIT("inet:127.0.0.1:99"), "its password must be the address of"},
		{"", NULL, LIT("unix:token"), "gave no address of a mailbox"},
		{NULL, NULL, LIT("unix:token"), "gave no address of a mailbox"},
		{"a@b\001auth=x", NULL, LIT("unix:token"), "user name is no address"},
		{USER, "boss@contoso.com", LIT("unix:token"), "XOAUTH2 knows one name"},
	};
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};

	(void)state;
	fake_start(&fake);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct client client = {.user = cases[i].user, .authzid = cases[i].authzid};
		int result;

		client_open(&client, cases[i].password, cases[i].len);
		result = first_step(&client);
		if (result != SASL_BADPARAM || client.out_len != 0 ||
		    strstr(log_text, cases[i].logged) == NULL)
			fail_msg("case %zu: result %d, %u bytes out, log: %s", i, result,
				 client.out_len, log_text);
		assert_null(strstr(log_text, "hunter2"));
		client_close(&client);
	}
	fake_stop(&fake);
}

static void test_absolute_path_and_authzid(void **state)
{
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};
	struct client client = {.user = USER, .authzid = USER};
	char password[PASSWORD_MAX] = "unix:";
	size_t len = strlen(password);

	(void)state;
	fake_start(&fake);
	assert_non_null(getcwd(password + len, sizeof(password) - len));
	len = strlen(password);
	(void)snprintf(password + len, sizeof(password) - len, "/%s", FAKE_SOCKET);
	client_open(&client, password, strlen(password));
	assert_int_equal(first_step(&client), SASL_OK);
	client_close(&client);
	client.authzid = ""; /* as good as none */
	client_open(&client, password, strlen(password));
	assert_int_equal(first_step(&client), SASL_OK);
	client_close(&client);
	fake_stop(&fake);
}

static void test_prompts(void **state)
{
	static const sasl_callback_t callbacks[] = {{SASL_CB_AUTHNAME, NULL, NULL},
						    {SASL_CB_PASS, NULL, NULL},
						    {SASL_CB_LIST_END, NULL, NULL}};
	struct fake fake = {.answer = GOOD, .answer_len = strlen(GOOD)};
	struct client client = {.user = USER};
	sasl_interact_t *prompts = NULL;

	(void)state;
	fake_start(&fake);
	log_text[0] = '\0';
	assert_int_equal(sasl_client_new("smtp", "smtp.office365.com", NULL, NULL, callbacks, 0,
					 &client.conn),
			 SASL_OK);
	assert_int_equal(client_start(&client), SASL_CONTINUE);
	assert_int_equal(
		sasl_client_step(client.conn, "", 0, &prompts, &client.out, &client.out_len),
		SASL_INTERACT);
	assert_int_equal(prompts[0].id, SASL_CB_AUTHNAME);
	prompts[0].result = USER;
	prompts[0].len = strlen(USER);
	assert_int_equal(prompts[1].id, SASL_CB_PASS);
	prompts[1].result = "unix:" FAKE_SOCKET;
	prompts[1].len = strlen("unix:" FAKE_SOCKET);
	assert_int_equal(prompts[2].id, SASL_CB_LIST_END);
	assert_int_equal(
		sasl_client_step(client.conn, "", 0, &prompts, &client.out, &client.out_len),
		SASL_OK);
	assert_null(prompts);
	assert_true(client.out_len > 0);
	client_close(&client);
	fake_stop(&fake);
}

/* --- Another XOAUTH2 plugin in the same folder --- */

static int rival_new(void *glob_context, sasl_client_params_t *params, void **context_r)
{
	(void)glob_context;
	(void)params;
	(void)context_r;
	return SASL_FAIL;
}

static int rival_init(const sasl_utils_t *utils, int max_version, int *version_r,
		      sasl_client_plug_t **list_r, int *count_r)
{
	static sasl_client_plug_t rival = {
		.mech_name = "XOAUTH2",
		.max_ssf = 60,
		.security_flags = SASL_SEC_NOPLAINTEXT | SASL_SEC_NOANONYMOUS,
		.mech_new = rival_new,
	};

	(void)utils;
	*version_r = max_version;
	*list_r = &rival;
	*count_r = 1;
	return SASL_OK;
}

static void test_wins_over_a_rival(void **state)
{
	struct client client = {.user = USER};

	(void)state;
	assert_int_equal(sasl_client_add_plugin("rival", rival_init), SASL_OK);
	client_open(&client, LIT("unix:" FAKE_SOCKET));
	assert_int_equal(client_start(&client), SASL_CONTINUE);
	client_close(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_microsofts_example),
		cmocka_unit_test(test_no_security_layer),
		cmocka_unit_test(test_challenge_comes_first),
		cmocka_unit_test(test_error_challenge),
		cmocka_unit_test(test_tokends_answers),
		cmocka_unit_test(test_size_of_the_token),
		cmocka_unit_test(test_no_daemon),
		cmocka_unit_test(test_wrong_set_up),
		cmocka_unit_test(test_absolute_path_and_authzid),
		cmocka_unit_test(test_prompts),
		cmocka_unit_test(test_wins_over_a_rival),
	};

	return cmocka_run_group_tests_name("sasl_plugin", tests, enter, leave);
}
