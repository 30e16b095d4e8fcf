#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "postfix/generate.h"
#include "temp.h"

#include <regex.h>

static struct conf *conf;
static char *folder;

/* One mailbox at Microsoft, one at a host of its own behind another name. */
static const char text[] =
	"tenants: {\n"
	"  contoso: { id = \"contoso.onmicrosoft.com\" client_id = \"1\" secret_file = "
	"\"SECRET\" }\n"
	"  lab: { id = \"lab\" client_id = \"2\" secret_file = \"SECRET\" cloud = \"custom\"\n"
	"    token_endpoint = \"https://lab/token\" scope = \"lab/.default\"\n"
	"    smtp_host = \"smtp.lab\" smtp_port = 10587 smtp_address = \"127.0.0.2\"\n"
	"    ca_file = \"/etc/lab.pem\" }\n"
	"}\n"
	"mailboxes: {\n"
	"  relay: { address = \"relay@contoso.com\" tenant = \"contoso\" default = true\n"
	"    senders = [\"*@contoso.com\", \"erp@example.com\"] recipients_per_day = 9500 }\n"
	"  test-2: { address = \"test@else\" tenant = \"lab\" senders = [\"*@lab\"]\n"
	"    connections = 1 recipients_per_day = 100 }\n"
	"}\n";

/* The text with the secret's path in it. */
static void fill(char *to, size_t cap, const char *secret)
{
	struct buf filled = BUF_INIT(cap - 1);

	for (const char *p = text; *p != '\0';) {
		if (strncmp(p, "SECRET", 6) == 0) {
			(void)buf_adds(&filled, secret);
			p += 6;
		} else {
			(void)buf_add(&filled, p++, 1);
		}
	}
	assert_false(filled.overflowed);
	memcpy(to, buf_text(&filled), filled.len + 1);
	buf_clear(&filled);
}

static int enter(void **state)
{
	struct err err = ERR_INIT;
	const char *secret;
	char filled[2048];

	if (temp_enter(state) < 0)
		return -1;
	secret = temp_text("secret", "x");
	fill(filled, sizeof(filled), secret);
	conf = conf_load(temp_text("relay365.conf", filled), &err);
	if (conf == NULL) {
		print_error("%s\n", err.text);
		return -1;
	}
	folder = generate_folder(conf);
	return 0;
}

static int leave(void **state)
{
	conf_free(&conf);
	free(folder);
	return temp_leave(state);
}

static void has(const char *in, const char *what)
{
	if (strstr(in, what) == NULL)
		fail_msg("no \"%s\" in:\n%s", what, in);
}

static void test_folder(void **state)
{
	char expected[256];

	(void)state;
	(void)snprintf(expected, sizeof(expected), "%s", temp_path("postfix"));
	assert_string_equal(folder, expected);
}

/* What stands between one service's line and the next. */
static void service_of(const char *master, const char *name, char *to, size_t cap)
{
	char line[128];
	const char *begin, *end;

	(void)snprintf(line, sizeof(line), "relay365-%s unix - - y - - smtp\n", name);
	begin = strstr(master, line);
	if (begin == NULL)
		fail_msg("no service %s", name);
	end = begin + strlen(line);
	while (*end == ' ')
		end = strchr(end, '\n') + 1;
	assert_true((size_t)(end - begin) < cap);
	memcpy(to, begin, (size_t)(end - begin));
	to[end - begin] = '\0';
}

static void check_both(const char *service, const char *name)
{
	char wanted[256];

	has(service, " -o smtp_sasl_auth_enable=yes\n");
	has(service, " -o smtp_sasl_mechanism_filter=xoauth2\n");
	has(service, " -o smtp_sasl_auth_soft_bounce=yes\n");
	has(service, " -o smtp_sasl_auth_cache_name=\n");
	has(service, " -o smtp_tls_security_level=secure\n");
	has(service, " -o smtp_tls_connection_reuse=no\n");
	has(service, " -o smtp_connection_cache_on_demand=no\n");
	has(service, " -o smtp_sender_dependent_authentication=no\n");
	(void)snprintf(wanted, sizeof(wanted), " -o smtp_reply_filter=regexp:%s/reply_filter\n",
		       folder);
	has(service, wanted);
	(void)snprintf(wanted, sizeof(wanted),
		       " -o smtp_delivery_status_filter=socketmap:unix:relay365/map:status/%s\n",
		       name);
	has(service, wanted);
}

static void test_master(void **state)
{
	struct buf master = BUF_INIT(GENERATE_MAX);
	char service[4096];
	int lines = 0;

	(void)state;
	generate_master(conf, 'y', &master);
	service_of(buf_text(&master), "relay", service, sizeof(service));
	check_both(service, "relay");
	has(service, "static:relay@contoso.com:unix:relay365/token\n");
	has(service, "smtp_tls_secure_cert_match=nexthop\n");
	service_of(buf_text(&master), "test-2", service, sizeof(service));
	check_both(service, "test-2");
	has(service, "static:test@else:unix:relay365/token\n");
	has(service, "smtp_tls_secure_cert_match=smtp.lab\n");
	has(service, "smtp_tls_CAfile=/etc/lab.pem\n");
	/* Each line is a service or one option without blanks, as master(5) wants them. */
	for (const char *line = master.data; *line != '\0'; line = strchr(line, '\n') + 1) {
		size_t n = strcspn(line, "\n");

		lines++;
		if (line[0] == ' ')
			assert_true(strncmp(line, "    -o ", 7) == 0 &&
				    strcspn(line + 7, " \n") == n - 7 &&
				    memchr(line + 7, '=', n - 7) != NULL);
		else
			assert_memory_equal(line, "relay365-", 9);
	}
	assert_true(lines > 20);
	buf_clear(&master);
}

struct parameters {
	struct {
		char name[128], value[2048];
		bool add;
	} item[64];
	size_t count;
};

static void on_parameter(void *arg, const char *name, const char *value, bool add)
{
	struct parameters *all = arg;

	assert_true(all->count < ARRAY_LEN(all->item));
	(void)snprintf(all->item[all->count].name, sizeof(all->item[0].name), "%s", name);
	(void)snprintf(all->item[all->count].value, sizeof(all->item[0].value), "%s", value);
	all->item[all->count++].add = add;
	assert_null(strchr(value, '\n'));
	assert_string_not_equal(value, "");
}

static const char *value_of(const struct parameters *all, const char *name, bool add)
{
	const char *value = NULL;

	for (size_t i = 0; i < all->count; i++)
		if (strcmp(all->item[i].name, name) == 0) {
			assert_null(value); /* once */
			assert_int_equal(all->item[i].add, add);
			value = all->item[i].value;
		}
	if (value == NULL)
		fail_msg("no %s", name);
	return value;
}

static void test_main(void **state)
{
	static struct parameters all;
	static const struct {
		const char *name, *value;
		bool add;
	} wanted[] = {
		{"default_transport", "relay365-relay:[smtp.office365.com]:587", false},
		{"smtpd_milters", "unix:relay365m/milter", true},
		{"non_smtpd_milters", "unix:relay365m/milter", true},
		{"milter_macro_defaults",
		 "{ {relay365_local} = $mydestination $virtual_mailbox_domains }", true},
		{"relay365-relay_destination_concurrency_limit", "3", false},
		{"relay365-relay_initial_destination_concurrency", "3", false},
		{"relay365-relay_destination_recipient_limit", "475", false},
		{"relay365-test-2_destination_concurrency_limit", "1", false},
		{"relay365-test-2_destination_recipient_limit", "5", false},
	};
	char map[256];

	(void)state;
	all.count = 0;
	generate_main(conf, NULL, on_parameter, &all);
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
		assert_string_equal(value_of(&all, wanted[i].name, wanted[i].add),
				    wanted[i].value);
	(void)snprintf(map, sizeof(map), "texthash:%s/sender_transport", folder);
	assert_string_equal(value_of(&all, "sender_dependent_default_transport_maps", false),
			    map);
	/* Postfix's own list stays, and the system's plugins are found as before. */
	has(value_of(&all, "import_environment", false), "MAIL_CONFIG ");
	has(value_of(&all, "import_environment", false),
	    " SASL_PATH=" RELAY365_PLUGINDIR ":/usr/lib");
}

/* Named from the queue directory that it lies in, and only there. */
static void test_milter(void **state)
{
	static const struct {
		char *socket;
		size_t queues; /* of /q and /r */
		const char *queue, *name;
	} cases[] = {
		{"", 1, NULL, "unix:relay365m/milter"},
		{"unix:/q/m/s", 1, NULL, "unix:m/s"},
		{"unix:/q/m/s", 1, "/q", "unix:m/s"},
		{"/q/m/s", 1, "/q/", "unix:m/s"},
		{"unix:/q/m/s", 2, "/q", "unix:m/s"},
		{"unix:/q/m/s", 2, "/r", "unix:/q/m/s"},
		{"unix:/q/m/s", 2, NULL, "unix:/q/m/s"},
		{"unix:/qq/m/s", 1, NULL, "unix:/qq/m/s"},
		{"inet:8365@127.0.0.1", 2, "/r", "inet:127.0.0.1:8365"},
	};
	char *queues[] = {"/q", "/r"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf other = *conf;
		char *name;

		other.milter_socket = cases[i].socket;
		other.queue_directories = (struct conf_list){queues, cases[i].queues};
		name = generate_milter(&other, cases[i].queue);
		assert_string_equal(name, cases[i].name);
		free(name);
	}
}

static void test_sender_transport(void **state)
{
	struct buf map = BUF_INIT(GENERATE_MAX);

	(void)state;
	generate_sender_transport(conf, &map);
	assert_string_equal(strchr(buf_text(&map), '\n') + 1,
			    "@contoso.com relay365-relay:[smtp.office365.com]:587\n"
			    "erp@example.com relay365-relay:[smtp.office365.com]:587\n"
			    "@lab relay365-test-2:[127.0.0.2]:10587\n"
			    "test@else relay365-test-2:[127.0.0.2]:10587\n");
	buf_clear(&map);
}

/* "/PATTERN/ REPLACEMENT": no slash inside, and no group that the pattern doesn't have. */
static void check_rule(const char *line, size_t len)
{
	const char *end;
	char pattern[1024];
	regex_t regex;

	assert_true(len > 3 && line[0] == '/');
	end = memchr(line + 1, '/', len - 1);
	assert_non_null(end);
	assert_int_equal(end[1], ' ');
	assert_null(memchr(end + 1, '/', len - (size_t)(end + 1 - line)));
	assert_true((size_t)(end - line) < sizeof(pattern));
	memcpy(pattern, line + 1, (size_t)(end - line - 1));
	pattern[end - line - 1] = '\0';
	if (regcomp(&regex, pattern, REG_EXTENDED | REG_ICASE) != 0)
		fail_msg("%s", pattern);
	for (const char *p = end; p < line + len; p++)
		if (*p == '$') {
			assert_true(p[1] == '{' && p[3] == '}');
			assert_true((size_t)(p[2] - '0') <= regex.re_nsub);
		}
	regfree(&regex);
}

static void test_reply_filter(void **state)
{
	struct buf filter = BUF_INIT(GENERATE_MAX);
	int rules = 0;

	(void)state;
	generate_reply_filter(&filter);
	for (const char *line = filter.data; *line != '\0'; line = strchr(line, '\n') + 1) {
		size_t n = strcspn(line, "\n");

		if (line[0] == '#')
			continue;
		check_rule(line, n);
		rules++;
	}
	assert_true(rules > 40);
	buf_clear(&filter);
}

/* What doesn't fit is not there, but is told. */
static void test_too_large(void **state)
{
	struct buf small = BUF_INIT(100);

	(void)state;
	generate_reply_filter(&small);
	assert_true(small.overflowed);
	assert_true(small.len <= 100);
	buf_clear(&small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_folder),	     cmocka_unit_test(test_master),
		cmocka_unit_test(test_main),	     cmocka_unit_test(test_sender_transport),
		cmocka_unit_test(test_reply_filter), cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_milter),
	};

	return cmocka_run_group_tests_name("generate", tests, enter, leave);
}
