/* A ledger that an older version wrote becomes one of this version, and loses nothing. */
#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quota/ledger.h"

#include <sqlite3.h>
#include <unistd.h>

#include "temp.h"

enum { ROWS = 3000 };

/* As version 1 made it. */
static const char schema_1[] =
	"PRAGMA page_size = 1024; PRAGMA journal_mode = WAL;"
	"CREATE TABLE counter (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
	" window_ms INTEGER NOT NULL);"
	"CREATE TABLE bucket (counter INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
	" n INTEGER NOT NULL, PRIMARY KEY (counter, at_ms)) WITHOUT ROWID;"
	"CREATE TABLE mark (one INTEGER PRIMARY KEY CHECK (one = 1), at_ms INTEGER NOT NULL,"
	" boot_ms INTEGER NOT NULL, boot_id TEXT NOT NULL);"
	"PRAGMA user_version = 1;"
	"INSERT INTO counter VALUES (1, 'recipients_per_day/relay@contoso.com', 86400000);"
	"INSERT INTO counter VALUES (2, 'per-user/erp', 3600000);"
	"INSERT INTO mark VALUES (1, 1795442825000, 1000000, 'a-boot');";

static void run(sqlite3 *db, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s", why);
}

static void write_schema_1(const char *path)
{
	sqlite3 *db;
	char sql[128];

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	run(db, schema_1);
	run(db, "BEGIN");
	for (int i = 0; i < ROWS; i++) {
		(void)snprintf(sql, sizeof(sql), "INSERT INTO bucket VALUES (%d, %d, %d)",
			       1 + i % 2, 60000 * i - 1, i);
		run(db, sql);
	}
	run(db, "COMMIT");
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

struct sums {
	int64_t mailbox, user;
};

static void on_row(void *arg, const char *name, int64_t window_ms, int64_t at_ms, int64_t n)
{
	struct sums *sums = arg;

	(void)at_ms;
	if (strcmp(name, "per-user/erp") == 0) {
		assert_int_equal(window_ms, 3600000);
		sums->user += n;
	} else {
		assert_string_equal(name, "recipients_per_day/relay@contoso.com");
		assert_int_equal(window_ms, 86400000);
		sums->mailbox += n;
	}
}

static void test_from_schema_1(void **state)
{
	const char *path = temp_path("ledger.db");

	(void)state;
	write_schema_1(path);
	for (uint64_t folded = 0; folded < 3; folded++) {
		struct ledger_news news;
		struct err err = ERR_INIT;
		struct ledger *ledger = ledger_open(path, &news, &err);
		struct sums sums = {0, 0};

		if (ledger == NULL)
			fail_msg("%s", err.text);
		assert_string_equal(news.damaged_as, "");
		assert_false(news.created);
		assert_true(news.has_mark);
		assert_int_equal(news.mark.at_ms, 1795442825000);
		assert_string_equal(news.mark.boot_id, "a-boot");
		assert_int_equal(news.folded, folded);
		assert_int_equal(ledger_load(ledger, on_row, &sums, &err), 0);
		assert_int_equal(sums.mailbox + sums.user, ROWS * (ROWS - 1) / 2);
		assert_int_equal(sums.user - sums.mailbox, ROWS / 2);
		assert_int_equal(ledger_begin(ledger, &err), 0);
		assert_int_equal(ledger_set_folded(ledger, folded + 1, &err), 0);
		assert_int_equal(ledger_commit(ledger, &err), 0);
		ledger_close(&ledger);
	}
}

static int64_t version_of(const char *path)
{
	sqlite3 *db;
	sqlite3_stmt *st;
	int64_t version;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	version = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return version;
}

/* A new file and an old one end as the same version. */
static void test_version(void **state)
{
	static const char *const names[] = {"old.db", "new.db"};

	(void)state;
	write_schema_1(temp_path("old.db"));
	assert_int_equal(version_of(temp_path("old.db")), 1);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct ledger_news news;
		struct err err = ERR_INIT;
		struct ledger *ledger = ledger_open(temp_path(names[i]), &news, &err);

		assert_non_null(ledger);
		ledger_close(&ledger);
		assert_int_equal(version_of(temp_path(names[i])), LEDGER_SCHEMA);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_from_schema_1), TEST(test_version)};

	return cmocka_run_group_tests_name("ledger schema", tests, NULL, NULL);
}
