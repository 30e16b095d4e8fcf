#include "quota/ledger.h"

#include "base/xalloc.h"
#include "quota/window.h"

#include <errno.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	BUSY_MS = 5000,
	MAINTAIN_STEP = 500,  /* counters looked at in one transaction */
	WAL_PAGES_MAX = 16384 /* 16 MiB: then writers wait until the WAL can start over */
};

/* The files of a database. */
static const char *const parts[] = {"-wal", "-shm", ""};

enum statement {
	ST_BEGIN,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_ADD,
	ST_COUNTER,
	ST_FORGET,
	ST_LOAD,
	ST_MARK,
	ST_FOLDED,
	ST_NEXT,
	ST_PRUNE,
	ST_DROP,
	ST_COUNT
};

static const char *const sql[ST_COUNT] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_ROLLBACK] = "ROLLBACK",
	[ST_ADD] = "INSERT INTO bucket (counter, at_ms, n) "
		   "SELECT id, ?3, ?4 FROM counter WHERE name = ?1 AND window_ms = ?2 "
		   "ON CONFLICT (counter, at_ms) DO UPDATE SET n = n + excluded.n",
	[ST_COUNTER] = "INSERT INTO counter (name, window_ms) VALUES (?1, ?2) "
		       "ON CONFLICT (name) DO UPDATE SET window_ms = excluded.window_ms",
	[ST_FORGET] = "DELETE FROM bucket WHERE counter = "
		      "(SELECT id FROM counter WHERE name = ?1)",
	[ST_LOAD] = "SELECT name, window_ms, at_ms, n FROM counter JOIN bucket ON counter = id "
		    "ORDER BY id, at_ms",
	[ST_MARK] = "INSERT OR REPLACE INTO mark (one, at_ms, boot_ms, boot_id, wall_ms) "
		    "VALUES (1, ?1, ?2, ?3, ?4)",
	[ST_FOLDED] = "INSERT OR REPLACE INTO folded (one, journal) VALUES (1, ?1)",
	[ST_NEXT] = "SELECT id, window_ms FROM counter WHERE id > ?1 ORDER BY id LIMIT 1",
	[ST_PRUNE] = "DELETE FROM bucket WHERE counter = ?1 AND at_ms < ?2",
	[ST_DROP] = "DELETE FROM counter WHERE id = ?1 AND NOT EXISTS "
		    "(SELECT 1 FROM bucket WHERE counter = ?1)",
};

/* A new file begins as the first version did, and then takes the same steps as an old one. */
static const char first_schema[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE counter (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
	" window_ms INTEGER NOT NULL);"
	"CREATE TABLE bucket (counter INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
	" n INTEGER NOT NULL, PRIMARY KEY (counter, at_ms)) WITHOUT ROWID;"
	"CREATE TABLE mark (one INTEGER PRIMARY KEY CHECK (one = 1), at_ms INTEGER NOT NULL,"
	" boot_ms INTEGER NOT NULL, boot_id TEXT NOT NULL);"
	"PRAGMA user_version = 1;"
	"COMMIT;";

/* How a file of schema i + 1 becomes one of schema i + 2. */
static const char *const migrations[] = {
	"BEGIN IMMEDIATE;"
	"CREATE TABLE folded (one INTEGER PRIMARY KEY CHECK (one = 1),"
	" journal INTEGER NOT NULL);"
	"ALTER TABLE mark ADD COLUMN wall_ms INTEGER NOT NULL DEFAULT 0;"
	"PRAGMA user_version = 2;"
	"COMMIT;",
};
_Static_assert(ARRAY_LEN(migrations) == LEDGER_SCHEMA - 1, "a step for each version");

struct ledger {
	sqlite3 *db;
	sqlite3 *checkpointer;
	sqlite3_stmt *st[ST_COUNT];
	char *path;
	dev_t dev; /* of the file that is open */
	ino_t ino;
	bool damaged;
	int64_t maintained; /* the last counter that maintain() has looked at */
};

/* Sets err from what SQLite said, and notices damage. */
static int failed(struct ledger *ledger, sqlite3 *db, const char *what, struct err *err)
{
	int code = sqlite3_errcode(db) & 0xff;
	const char *why = sqlite3_errmsg(db);

	if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_ERROR)
		ledger->damaged = true;
	if (code == SQLITE_FULL)
		why = "the disk is full";
	return err_set(err, ERR_TEMP, "cannot %s the ledger %s: %s", what, ledger->path, why);
}

static int exec(struct ledger *ledger, const char *text, struct err *err)
{
	if (sqlite3_exec(ledger->db, text, NULL, NULL, NULL) != SQLITE_OK)
		return failed(ledger, ledger->db, "open", err);
	return 0;
}

/* The first column of the first row, as text. */
static int ask(struct ledger *ledger, const char *text, char *answer, size_t cap, struct err *err)
{
	const unsigned char *value;
	sqlite3_stmt *st;
	int rc;

	answer[0] = '\0';
	if (sqlite3_prepare_v2(ledger->db, text, -1, &st, NULL) != SQLITE_OK)
		return failed(ledger, ledger->db, "open", err);
	rc = sqlite3_step(st);
	value = rc == SQLITE_ROW ? sqlite3_column_text(st, 0) : NULL;
	if (value != NULL)
		(void)snprintf(answer, cap, "%s", (const char *)value);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		(void)failed(ledger, ledger->db, "open", err);
	(void)sqlite3_finalize(st);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : -1;
}

static int connect_to(const char *path, sqlite3 **db_r, struct err *err)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
		    SQLITE_OPEN_NOFOLLOW;

	/*
	 * "unix-excl" keeps the file for this process and the WAL's index in its
	 * memory: no lock is taken anew for each transaction, which saves a third
	 * of its time, and no mapped file can fail on a full disk.
	 */
	if (sqlite3_open_v2(path, db_r, flags, "unix-excl") != SQLITE_OK) {
		return err_set(
			err, ERR_CONFIG,
			"cannot open the ledger %s: %s; may this user write in its folder?", path,
			sqlite3_errmsg(*db_r));
	}
	(void)sqlite3_busy_timeout(*db_r, BUSY_MS);
	return 0;
}

static int migrate(struct ledger *ledger, struct err *err)
{
	char answer[32];
	long long version;

	if (ask(ledger, "PRAGMA user_version", answer, sizeof(answer), err) < 0)
		return -1;
	version = strtoll(answer, NULL, 10);
	if (version > LEDGER_SCHEMA)
		return err_set(err, ERR_CONFIG,
			       "the ledger %s has schema %lld and this program knows %d: install "
			       "the newer relay365 again, or move the file away to count anew",
			       ledger->path, version, LEDGER_SCHEMA);
	if (version <= 0) {
		ledger->damaged = true;
		return err_set(err, ERR_PERM, "%s has no ledger in it", ledger->path);
	}
	for (; version < LEDGER_SCHEMA; version++)
		if (exec(ledger, migrations[version - 1], err) < 0)
			return -1;
	return 0;
}

static void remove_parts(const char *path)
{
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		char *part = xasprintf("%s%s", path, parts[i]);

		(void)unlink(part);
		free(part);
	}
}

/*
 * Makes a new file, complete before it gets its name: whoever is killed here
 * leaves nothing that looks like a damaged ledger.
 */
static int create(struct ledger *ledger, struct err *err)
{
	char *fresh = xasprintf("%s.new", ledger->path);
	int rc = -1;

	/* SQLite would read a WAL that was left alone into the new file. */
	remove_parts(fresh);
	remove_parts(ledger->path);
	/* Small pages, as each transaction writes one: half the time of the usual 4096 bytes. */
	if (connect_to(fresh, &ledger->db, err) == 0 &&
	    exec(ledger, "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL", err) == 0)
		rc = exec(ledger, first_schema, err);
	(void)sqlite3_close(ledger->db);
	ledger->db = NULL;
	if (rc == 0 && rename(fresh, ledger->path) < 0)
		rc = err_set(err, ERR_CONFIG, "cannot rename %s: %s", fresh, err_no(errno));
	free(fresh);
	return rc;
}

/* Everything that shows whether the file is sound. */
static int set_up(struct ledger *ledger, struct err *err)
{
	char answer[256];

	if (access(ledger->path, F_OK) < 0 && errno == ENOENT && create(ledger, err) < 0)
		return -1;
	if (connect_to(ledger->path, &ledger->db, err) < 0 ||
	    ask(ledger, "PRAGMA journal_mode = WAL", answer, sizeof(answer), err) < 0)
		return -1;
	if (strcmp(answer, "wal") != 0)
		return err_set(err, ERR_CONFIG,
			       "the file system of %s can't keep a ledger; use a local disk",
			       ledger->path);
	if (exec(ledger,
		 "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;"
		 "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;",
		 err) < 0 ||
	    migrate(ledger, err) < 0 ||
	    /* Not quick_check, for which an index may say something else than its table. */
	    ask(ledger, "PRAGMA integrity_check(1)", answer, sizeof(answer), err) < 0)
		return -1;
	if (strcmp(answer, "ok") != 0) {
		ledger->damaged = true;
		return err_set(err, ERR_PERM, "%s is damaged: %s", ledger->path, answer);
	}
	for (int i = 0; i < ST_COUNT; i++)
		if (sqlite3_prepare_v3(ledger->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &ledger->st[i], NULL) != SQLITE_OK)
			return failed(ledger, ledger->db, "open", err);
	if (connect_to(ledger->path, &ledger->checkpointer, err) < 0)
		return -1;
	/* A connection that has read nothing does not know of the WAL, and moves nothing. */
	if (sqlite3_exec(ledger->checkpointer, "SELECT count(*) FROM counter", NULL, NULL,
			 NULL) != SQLITE_OK)
		return failed(ledger, ledger->checkpointer, "open", err);
	return 0;
}

static void tear_down(struct ledger *ledger)
{
	for (int i = 0; i < ST_COUNT; i++) {
		(void)sqlite3_finalize(ledger->st[i]);
		ledger->st[i] = NULL;
	}
	(void)sqlite3_close(ledger->checkpointer);
	(void)sqlite3_close(ledger->db);
	ledger->db = ledger->checkpointer = NULL;
}

static int move_aside(struct ledger *ledger, struct ledger_news *news, struct err *err)
{
	char when[CLOCK_TEXT_MAX], now[CLOCK_TEXT_MAX + 16];

	(void)clock_rfc3339(clock_wall_ms(), when);
	(void)snprintf(now, sizeof(now), "%s", when);
	for (int try = 1; try < 100; try++) {
		(void)snprintf(news->damaged_as, sizeof(news->damaged_as), "%s.damaged-%s",
			       ledger->path, now);
		if (access(news->damaged_as, F_OK) < 0)
			break;
		(void)snprintf(now, sizeof(now), "%s.%d", when, try);
	}
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		char *from = xasprintf("%s%s", ledger->path, parts[i]);
		char *to = xasprintf("%s%s", news->damaged_as, parts[i]);
		int rc = rename(from, to);

		if (rc < 0 && errno != ENOENT)
			(void)err_set(err, ERR_CONFIG, "cannot move %s aside: %s", from,
				      err_no(errno));
		else
			rc = 0;
		free(from);
		free(to);
		if (rc < 0)
			return -1;
	}
	return 0;
}

static void remember_file(struct ledger *ledger)
{
	struct stat st;

	if (stat(ledger->path, &st) == 0) {
		ledger->dev = st.st_dev;
		ledger->ino = st.st_ino;
	}
}

static int read_folded(struct ledger *ledger, struct ledger_news *news, struct err *err)
{
	char answer[32];

	if (ask(ledger, "SELECT journal FROM folded", answer, sizeof(answer), err) < 0)
		return -1;
	news->folded = strtoull(answer, NULL, 10);
	return 0;
}

static int read_mark(struct ledger *ledger, struct ledger_news *news, struct err *err)
{
	const unsigned char *boot_id;
	sqlite3_stmt *st;

	if (sqlite3_prepare_v2(ledger->db, "SELECT at_ms, boot_ms, boot_id, wall_ms FROM mark",
			       -1, &st, NULL) != SQLITE_OK)
		return failed(ledger, ledger->db, "read", err);
	if (sqlite3_step(st) == SQLITE_ROW) {
		news->has_mark = true;
		news->mark.at_ms = sqlite3_column_int64(st, 0);
		news->mark.boot_ms = sqlite3_column_int64(st, 1);
		boot_id = sqlite3_column_text(st, 2);
		(void)snprintf(news->mark.boot_id, sizeof(news->mark.boot_id), "%s",
			       boot_id == NULL ? "" : (const char *)boot_id);
		news->mark.wall_ms = sqlite3_column_int64(st, 3);
	}
	(void)sqlite3_finalize(st);
	return 0;
}

struct ledger *ledger_open(const char *path, struct ledger_news *news_r, struct err *err)
{
	struct ledger *ledger = xcalloc(1, sizeof(*ledger));
	struct err why = ERR_INIT;
	struct stat st;
	int rc;

	memset(news_r, 0, sizeof(*news_r));
	ledger->path = xstrdup(path);
	news_r->created = lstat(path, &st) < 0;
	if (!news_r->created && S_ISREG(st.st_mode) && st.st_size == 0) {
		ledger->damaged = true; /* a ledger is never empty, not even a new one */
		rc = err_set(&why, ERR_PERM, "%s is empty", path);
	} else {
		rc = set_up(ledger, &why);
	}
	if (rc < 0 && ledger->damaged) {
		tear_down(ledger);
		(void)snprintf(news_r->damage, sizeof(news_r->damage), "%s", why.text);
		ledger->damaged = false;
		rc = move_aside(ledger, news_r, &why);
		if (rc == 0)
			rc = set_up(ledger, &why);
	}
	if (rc < 0 || read_mark(ledger, news_r, &why) < 0 ||
	    read_folded(ledger, news_r, &why) < 0) {
		(void)err_set(err, why.class, "%s", why.text);
		ledger_close(&ledger);
		return NULL;
	}
	remember_file(ledger);
	return ledger;
}

void ledger_close(struct ledger **ledger)
{
	if (*ledger == NULL)
		return;
	tear_down(*ledger);
	free((*ledger)->path);
	free(*ledger);
	*ledger = NULL;
}

/* Steps a statement that has its values, to its end. */
static int run(struct ledger *ledger, enum statement which, const char *what, struct err *err)
{
	sqlite3_stmt *st = ledger->st[which];
	int rc = sqlite3_step(st);

	if (rc != SQLITE_DONE && rc != SQLITE_ROW) {
		(void)failed(ledger, ledger->db, what, err);
		(void)sqlite3_reset(st);
		ledger_rollback(ledger);
		return -1;
	}
	(void)sqlite3_reset(st);
	return 0;
}

int ledger_load(struct ledger *ledger,
		void (*each)(void *arg, const char *name, int64_t window_ms, int64_t at_ms,
			     int64_t n),
		void *arg, struct err *err)
{
	sqlite3_stmt *st = ledger->st[ST_LOAD];
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		const unsigned char *name = sqlite3_column_text(st, 0);

		if (name != NULL)
			each(arg, (const char *)name, sqlite3_column_int64(st, 1),
			     sqlite3_column_int64(st, 2), sqlite3_column_int64(st, 3));
	}
	if (rc != SQLITE_DONE)
		(void)failed(ledger, ledger->db, "read", err);
	(void)sqlite3_reset(st);
	return rc == SQLITE_DONE ? 0 : -1;
}

int ledger_begin(struct ledger *ledger, struct err *err)
{
	return run(ledger, ST_BEGIN, "write", err);
}

int ledger_commit(struct ledger *ledger, struct err *err)
{
	return run(ledger, ST_COMMIT, "write", err);
}

void ledger_rollback(struct ledger *ledger)
{
	if (sqlite3_get_autocommit(ledger->db) != 0)
		return;
	(void)sqlite3_step(ledger->st[ST_ROLLBACK]);
	(void)sqlite3_reset(ledger->st[ST_ROLLBACK]);
}

static void bind_counter(sqlite3_stmt *st, const char *name, int64_t window_ms)
{
	(void)sqlite3_bind_text(st, 1, name, -1, SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 2, window_ms);
}

int ledger_add(struct ledger *ledger, const char *name, int64_t window_ms, int64_t at_ms,
	       int64_t n, struct err *err)
{
	sqlite3_stmt *add = ledger->st[ST_ADD];
	struct window window;
	int64_t end_ms;

	window_init(&window, window_ms);
	end_ms = (window_index(&window, at_ms) + 1) * window.width_ms - 1;
	bind_counter(add, name, window_ms);
	(void)sqlite3_bind_int64(add, 3, end_ms);
	(void)sqlite3_bind_int64(add, 4, n);
	if (run(ledger, ST_ADD, "write", err) < 0)
		return -1;
	if (sqlite3_changes(ledger->db) > 0)
		return 0;
	/* A counter that is not there yet, or whose window is another now. */
	bind_counter(ledger->st[ST_COUNTER], name, window_ms);
	if (run(ledger, ST_COUNTER, "write", err) < 0)
		return -1;
	return run(ledger, ST_ADD, "write", err);
}

int ledger_forget(struct ledger *ledger, const char *name, struct err *err)
{
	(void)sqlite3_bind_text(ledger->st[ST_FORGET], 1, name, -1, SQLITE_STATIC);
	return run(ledger, ST_FORGET, "write", err);
}

int ledger_set_folded(struct ledger *ledger, uint64_t journal, struct err *err)
{
	(void)sqlite3_bind_int64(ledger->st[ST_FOLDED], 1, (sqlite3_int64)journal);
	return run(ledger, ST_FOLDED, "write", err);
}

int ledger_mark(struct ledger *ledger, const struct steady_mark *now, struct err *err)
{
	sqlite3_stmt *st = ledger->st[ST_MARK];

	(void)sqlite3_bind_int64(st, 1, now->at_ms);
	(void)sqlite3_bind_int64(st, 2, now->boot_ms);
	(void)sqlite3_bind_text(st, 3, now->boot_id, -1, SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 4, now->wall_ms);
	return run(ledger, ST_MARK, "write", err);
}

/* Prunes the next counter. Returns 1, 0 when there is none, or -1. */
static int maintain_one(struct ledger *ledger, int64_t now_ms, struct err *err)
{
	sqlite3_stmt *next = ledger->st[ST_NEXT];
	int64_t id, window_ms;
	int rc;

	(void)sqlite3_bind_int64(next, 1, ledger->maintained);
	rc = sqlite3_step(next);
	id = sqlite3_column_int64(next, 0);
	window_ms = sqlite3_column_int64(next, 1);
	(void)sqlite3_reset(next);
	if (rc == SQLITE_DONE)
		return 0;
	if (rc != SQLITE_ROW) {
		(void)failed(ledger, ledger->db, "read", err);
		ledger_rollback(ledger);
		return -1;
	}
	(void)sqlite3_bind_int64(ledger->st[ST_PRUNE], 1, id);
	(void)sqlite3_bind_int64(ledger->st[ST_PRUNE], 2, now_ms - window_ms);
	(void)sqlite3_bind_int64(ledger->st[ST_DROP], 1, id);
	if (run(ledger, ST_PRUNE, "write", err) < 0 || run(ledger, ST_DROP, "write", err) < 0)
		return -1;
	ledger->maintained = id;
	return 1;
}

int ledger_maintain(struct ledger *ledger, int64_t now_ms, struct err *err)
{
	int more = 1;

	if (ledger_begin(ledger, err) < 0)
		return -1;
	for (int i = 0; i < MAINTAIN_STEP && more == 1; i++)
		more = maintain_one(ledger, now_ms, err);
	if (more < 0 || ledger_commit(ledger, err) < 0)
		return -1;
	if (more == 0)
		ledger->maintained = 0;
	return more;
}

int ledger_checkpoint(struct ledger *ledger, struct err *err)
{
	sqlite3 *db = ledger->checkpointer;
	int pages = 0, moved = 0, rc;

	rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &moved);
	if (rc == SQLITE_OK && pages > WAL_PAGES_MAX)
		rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, &pages,
					       &moved);
	if (rc == SQLITE_OK || rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
		return 0;
	/* Not failed(): that belongs to the other thread. */
	return err_set(err, ERR_TEMP, "cannot write the ledger %s: %s", ledger->path,
		       sqlite3_errmsg(db));
}

/* All in one read transaction, which no writer waits for. */
static int copy_database(sqlite3 *from, sqlite3 *to)
{
	sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");

	if (backup == NULL)
		return sqlite3_errcode(to);
	(void)sqlite3_backup_step(backup, -1);
	return sqlite3_backup_finish(backup);
}

int ledger_backup(const char *path, const char *to, struct err *err)
{
	sqlite3 *source = NULL, *copy = NULL;
	int rc = -1;

	remove_parts(to);
	if (connect_to(path, &source, err) == 0 && connect_to(to, &copy, err) == 0) {
		rc = copy_database(source, copy) == SQLITE_OK ? 0 : -1;
		if (rc < 0)
			(void)err_set(err, ERR_TEMP, "cannot copy the ledger to %s: %s", to,
				      sqlite3_errmsg(copy));
	}
	(void)sqlite3_close(copy);
	(void)sqlite3_close(source);
	if (rc < 0)
		remove_parts(to);
	return rc;
}

bool ledger_is_lost(struct ledger *ledger)
{
	struct stat st;

	if (!ledger->damaged && stat(ledger->path, &st) == 0)
		return st.st_dev != ledger->dev || st.st_ino != ledger->ino;
	return ledger->damaged || errno == ENOENT;
}
