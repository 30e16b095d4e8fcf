#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "quota/locks.h"

#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "temp.h"

#define T0 1795442825000LL

/* Linked with --wrap: the wall clock is the tests'. */
static _Atomic int64_t wall_ms;
int64_t __wrap_clock_wall_ms(void);

int64_t __wrap_clock_wall_ms(void)
{
	return wall_ms;
}

static int enter(void **state)
{
	wall_ms = T0;
	return temp_enter(state);
}

static struct locks *open_locks(void)
{
	struct err err = ERR_INIT;
	struct locks *locks = locks_open(temp_path("locks"), &err);

	assert_string_equal(err.text, "");
	assert_non_null(locks);
	return locks;
}

static int add(struct locks *locks, const char *key, int64_t until_wall_ms, struct err *err)
{
	struct lock lock = {.reason = "a = b, \"c\"", .by = "admin", .since_wall_ms = T0};

	(void)snprintf(lock.key, sizeof(lock.key), "%s", key);
	lock.until_wall_ms = until_wall_ms;
	return locks_add(locks, &lock, 10000, err);
}

static void outlives_a_restart(void **state)
{
	struct locks *locks = open_locks();
	struct lock lock;

	(void)state;
	assert_false(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	assert_int_equal(add(locks, "source:erp", T0 + 60000, NULL), 0);
	assert_int_equal(add(locks, "mailbox:relay@contoso.com", 0, NULL), 0);
	locks_close(&locks);
	assert_null(locks);

	locks = open_locks();
	assert_true(locks_find(locks, LOCK_SOURCE, "ERP", &lock));
	assert_string_equal(lock.key, "source:erp");
	assert_string_equal(lock.reason, "a = b, \"c\"");
	assert_string_equal(lock.by, "admin");
	assert_int_equal(lock.since_wall_ms, T0);
	assert_int_equal(lock.until_wall_ms, T0 + 60000);
	assert_true(locks_find(locks, LOCK_MAILBOX, "Relay@Contoso.com", &lock));
	assert_int_equal(lock.until_wall_ms, 0);
	assert_false(locks_find(locks, LOCK_SOURCE, "relay@contoso.com", NULL));
	assert_false(locks_find(locks, LOCK_SOURCE, "", NULL));
	assert_false(locks_find(locks, LOCK_SOURCE, NULL, NULL));

	assert_int_equal(locks_remove(locks, "source:erp", 10000, NULL), 1);
	assert_int_equal(locks_remove(locks, "source:erp", 10000, NULL), 0);
	locks_close(&locks);
	locks = open_locks();
	assert_false(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	assert_true(locks_find(locks, LOCK_MAILBOX, "relay@contoso.com", NULL));
	locks_close(&locks);
}

static void what_was_answered_is_on_the_disk(void **state)
{
	struct locks *locks = open_locks(), *other;

	(void)state;
	assert_int_equal(add(locks, "source:erp", 0, NULL), 0);
	other = open_locks(); /* as after kill -9 */
	assert_true(locks_find(other, LOCK_SOURCE, "erp", NULL));
	locks_close(&other);
	locks_close(&locks);
}

static void ends_by_itself(void **state)
{
	struct locks *locks = open_locks();

	(void)state;
	assert_int_equal(add(locks, "source:erp", T0 + 60000, NULL), 0);
	wall_ms = T0 + 59999;
	assert_true(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	wall_ms = T0 + 60000;
	assert_false(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	assert_int_equal(add(locks, "source:erp", T0 + 120000, NULL), 0);
	assert_true(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	locks_close(&locks);
}

static void the_latest_word_counts(void **state)
{
	struct locks *locks = open_locks();
	struct lock lock;

	(void)state;
	assert_int_equal(add(locks, "source:erp", T0 + 60000, NULL), 0);
	assert_int_equal(add(locks, "source:erp", 0, NULL), 0);
	assert_true(locks_find(locks, LOCK_SOURCE, "erp", &lock));
	assert_int_equal(lock.until_wall_ms, 0);
	assert_int_equal(locks_remove(locks, "source:erp", 10000, NULL), 1);
	assert_false(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	locks_close(&locks);
}

static void is_bounded(void **state)
{
	struct locks *locks = open_locks();
	struct err err = ERR_INIT;
	char key[32];

	(void)state;
	for (int i = 0; i < LOCKS_MAX; i++) {
		struct lock lock = {.reason = "x", .by = "admin"};

		(void)snprintf(lock.key, sizeof(lock.key), "source:%d", i);
		assert_int_equal(locks_add(locks, &lock, 0, &err), 0);
	}
	assert_int_equal(add(locks, "source:more", 0, &err), -1);
	assert_int_equal(err.class, ERR_PERM);
	assert_int_equal(add(locks, "source:7", 0, NULL), 0);
	locks_close(&locks);
	locks = open_locks();
	(void)snprintf(key, sizeof(key), "%d", LOCKS_MAX - 1);
	assert_true(locks_find(locks, LOCK_SOURCE, key, NULL));
	assert_true(locks_find(locks, LOCK_SOURCE, "0", NULL));
	locks_close(&locks);
}

static void damaged_file_is_moved_aside(void **state)
{
	static const char *const damage[] = {"",
					     "x",
					     "key=source:b\n",
					     "key=source:b\nby=\n\n",
					     "key=source:b\nreason=x\nby=admin\nby=admin\n\n",
					     "\n",
					     "key=source:b\r\nreason=x\nby=admin\n\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(damage); i++) {
		char text[256];
		struct locks *locks;
		struct stat st;

		(void)snprintf(text, sizeof(text), "key=source:a\nreason=x\nby=admin\n\n%s",
			       damage[i]);
		(void)unlink(temp_path("locks.damaged"));
		(void)temp_text("locks", text);
		locks = open_locks();
		assert_true(locks_find(locks, LOCK_SOURCE, "a", NULL));
		assert_false(locks_find(locks, LOCK_SOURCE, "b", NULL));
		assert_int_equal(stat(temp_path("locks.damaged"), &st), i == 0 ? -1 : 0);
		locks_close(&locks);
		locks = open_locks(); /* what was read is a good file again */
		assert_true(locks_find(locks, LOCK_SOURCE, "a", NULL));
		locks_close(&locks);
	}
}

static void in_force_though_not_written(void **state)
{
	struct locks *locks;
	struct err err = ERR_INIT;
	char problem[ERR_TEXT_MAX];

	(void)state;
	assert_int_equal(mkdir(temp_path("gone"), 0700), 0);
	locks = locks_open(temp_path("gone/locks"), &err);
	assert_non_null(locks);
	assert_int_equal(rmdir(temp_path("gone")), 0);
	assert_int_equal(add(locks, "source:erp", 0, &err), -1);
	assert_int_equal(err.class, ERR_TEMP);
	assert_non_null(strstr(err.text, "in force"));
	assert_true(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	locks_problem(locks, problem, sizeof(problem));
	assert_string_not_equal(problem, "");

	assert_int_equal(mkdir(temp_path("gone"), 0700), 0);
	assert_int_equal(add(locks, "source:crm", 0, &err), 0); /* both are written now */
	locks_problem(locks, problem, sizeof(problem));
	assert_string_equal(problem, "");
	locks_close(&locks);
	locks = locks_open(temp_path("gone/locks"), &err);
	assert_true(locks_find(locks, LOCK_SOURCE, "erp", NULL));
	assert_true(locks_find(locks, LOCK_SOURCE, "crm", NULL));
	locks_close(&locks);
}

static struct conf *conf_of_test(void)
{
	struct err err = ERR_INIT;
	char text[1024];
	struct conf *conf;

	(void)snprintf(
		text, sizeof(text),
		"tenants: { contoso: { id = \"contoso.com\"; client_id = \"1-2\";"
		" secret_file = \"%s\"; }; };\n"
		"mailboxes: { relay: { address = \"Relay@Contoso.com\"; default = true; };"
		" both: { address = \"both@contoso.com\"; }; };\n"
		"sources: { erp: { logins = [\"erp\"]; }; both: { logins = [\"b\"]; }; };\n",
		temp_write("secret", "x", 1, 0600));
	conf = conf_load(temp_text("conf", text), &err);
	assert_string_equal(err.text, "");
	return conf;
}

static void a_name_means_one_thing(void **state)
{
	static const struct {
		const char *text, *key; /* NULL: an error */
	} cases[] = {
		{"relay", "mailbox:relay@contoso.com"},
		{"RELAY@contoso.com", "mailbox:relay@contoso.com"},
		{"mailbox:relay", "mailbox:relay@contoso.com"},
		{"mailbox:relay@contoso.com", "mailbox:relay@contoso.com"},
		{"erp", "source:erp"},
		{"source:erp", "source:erp"},
		{"source:10.1.0.5", "source:10.1.0.5"},
		{"source:2001:DB8:0::5", "source:2001:db8::5"},
		{"source:IPv6:0:0:0:0:0:0:0:1", "source:::1"}, /* as in Sendmail's log */
		{"source:Some.Login@Contoso.com", "source:some.login@contoso.com"},
		{"both", NULL},
		{"mailbox:both", "mailbox:both@contoso.com"},
		{"source:both", "source:both"},
		{"10.1.0.5", NULL},
		{"mailbox:erp", NULL},
		{"nobody", NULL},
		{"", NULL},
		{"source:", NULL},
		{"source:a\tb", NULL},
	};
	struct conf *conf = conf_of_test();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char key[LOCK_KEY_MAX + 1] = "";
		struct err err = ERR_INIT;

		assert_int_equal(locks_key(conf, cases[i].text, key, &err),
				 cases[i].key == NULL ? -1 : 0);
		if (cases[i].key != NULL)
			assert_string_equal(key, cases[i].key);
		else
			assert_string_not_equal(err.text, "");
	}
	conf_free(&conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(outlives_a_restart, enter, temp_leave),
		cmocka_unit_test_setup_teardown(what_was_answered_is_on_the_disk, enter,
						temp_leave),
		cmocka_unit_test_setup_teardown(ends_by_itself, enter, temp_leave),
		cmocka_unit_test_setup_teardown(the_latest_word_counts, enter, temp_leave),
		cmocka_unit_test_setup_teardown(is_bounded, enter, temp_leave),
		cmocka_unit_test_setup_teardown(damaged_file_is_moved_aside, enter, temp_leave),
		cmocka_unit_test_setup_teardown(in_force_though_not_written, enter, temp_leave),
		cmocka_unit_test_setup_teardown(a_name_means_one_thing, enter, temp_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
