/*
 * The reader of the ledger's journal. An input is a file's bytes behind one
 * that says whether its checksums are made right first: by chance they never
 * are, and what lies behind them would not be reached.
 */
#include "base/compat.h"

#include "fuzz.h"

#include "base/hash.h"
#include "quota/journal.h"

#include <fcntl.h>
#include <unistd.h>

/* As journal.c writes them. */
enum { FILE_HEAD = 24, RECORD_HEAD = 16, ITEM = 32, SIZE_MAX_HERE = 1 << 17 };

static char folder[] = "/tmp/relay365-fuzz.XXXXXX", path[64];

static void clean_up(void)
{
	(void)unlink(path);
	(void)rmdir(folder);
}

static void write_file(const uint8_t *data, size_t size)
{
	int fd;

	if (path[0] == '\0') {
		must(mkdtemp(folder) != NULL);
		(void)snprintf(path, sizeof(path), "%s/j.recent-1", folder);
		must(atexit(clean_up) == 0);
	}
	(void)unlink(path); /* quicker than to cut it short */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	(void)close(fd);
}

static void put_check(uint8_t *at, uint64_t number, uint64_t place, const uint8_t *data,
		      size_t len)
{
	const uint64_t seed[2] = {number, place};
	uint64_t check = hash_bytes(seed, data, len);

	memcpy(at, &check, sizeof(check));
}

/* Of the head, and of each record as far as their lengths lead from one to the next. */
static void make_right(uint8_t *data, size_t size)
{
	uint64_t number = 1;
	uint32_t len;

	if (size < FILE_HEAD)
		return;
	memcpy(data, "R365JRN1", 8);
	memcpy(data + 8, &number, sizeof(number));
	put_check(data + 16, number, 0, data + 8, sizeof(number));
	for (size_t at = FILE_HEAD; size - at >= RECORD_HEAD; at += RECORD_HEAD + len) {
		memcpy(&len, data + at, sizeof(len));
		if (len > size - at - RECORD_HEAD)
			return;
		put_check(data + at + 8, number, at, data + at + RECORD_HEAD, len);
	}
}

struct seen {
	size_t bytes;
	unsigned int sum;
};

static int on_entries(void *arg, const struct journal_entry *entries, size_t count,
		      struct err *err)
{
	struct seen *seen = arg;
	unsigned int sum = 0;

	(void)err;
	must(count > 0);
	for (size_t i = 0; i < count; i++) {
		seen->bytes += ITEM + entries[i].name_len;
		for (size_t k = 0; k < entries[i].name_len; k++)
			sum += (unsigned char)entries[i].name[k]; /* all of it can be read */
	}
	seen->sum += sum;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t copy[SIZE_MAX_HERE];
	char *slash, base[sizeof(path)];
	struct err err = ERR_INIT;
	struct seen seen = {0};
	struct journal *journal;
	uint64_t number;

	if (size < 1 || size > sizeof(copy))
		return 0;
	memcpy(copy, data + 1, size - 1);
	if ((data[0] & 1) != 0)
		make_right(copy, size - 1);
	write_file(copy, size - 1);
	memcpy(base, path, sizeof(base));
	slash = strrchr(base, '/');
	slash[2] = '\0'; /* "j" */
	journal = journal_new(base);
	number = journal_number(journal, 1);
	must(number == 0 || !journal_is_damaged(journal, 1));
	must(journal_read(journal, number, on_entries, &seen, &err) == 0);
	must(number != 0 || seen.bytes == 0);
	must(seen.bytes <= size);
	journal_free(&journal);
	return 0;
}
