#include "quota/journal.h"

#include "base/hash.h"
#include "base/xalloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

enum {
	NAME_MAX_LEN = 1024,
	BLOCK = 1 << 20, /* bytes read at once */
	BLOCK_ENTRIES = 64 * 1024,
	PROBE = 64 * 1024, /* bytes that must be free when a disk is to be well again */
	USUAL = 2048	   /* bytes that most records fit in */
};

static const char magic[8] = {'R', '3', '6', '5', 'J', 'R', 'N', '1'};

struct head {
	char magic[8];
	uint64_t number;
	uint64_t check; /* of number */
};

/* Before each record: what follows, and the checksum of that and of its place. */
struct record {
	uint32_t len;
	uint32_t count;
	uint64_t check;
};

/* Before each name. */
struct item {
	int64_t window_ms, at_ms, n;
	uint64_t name_len;
};

struct journal {
	char *path[2];
	int fd[2];	   /* -1: not open */
	uint64_t number;   /* of the file that is appended to; 0: none */
	uint64_t prepared; /* 0: none */
	_Atomic off_t end; /* where the next record goes */
	atomic_bool has_records;
};

struct journal *journal_new(const char *path)
{
	struct journal *journal = xcalloc(1, sizeof(*journal));

	for (int i = 0; i < 2; i++) {
		journal->path[i] = xasprintf("%s.recent-%d", path, i);
		journal->fd[i] = -1;
	}
	return journal;
}

void journal_free(struct journal **journal)
{
	struct journal *j = *journal;

	if (j == NULL)
		return;
	for (int i = 0; i < 2; i++) {
		if (j->fd[i] >= 0)
			(void)close(j->fd[i]);
		free(j->path[i]);
	}
	free(j);
	*journal = NULL;
}

void journal_remove(struct journal *journal)
{
	for (int i = 0; i < 2; i++)
		(void)unlink(journal->path[i]);
	journal->number = 0;
}

/* The checksum of bytes that lie at a place of the file with this number. */
static uint64_t check(uint64_t number, off_t place, const void *data, size_t len)
{
	uint64_t seed[2] = {number, (uint64_t)place};

	return hash_bytes(seed, data, len);
}

static int open_slot(struct journal *journal, int slot)
{
	if (journal->fd[slot] < 0)
		journal->fd[slot] = open(journal->path[slot], O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return journal->fd[slot];
}

uint64_t journal_number(struct journal *journal, int slot)
{
	int fd = open_slot(journal, slot);
	struct head head;

	if (fd < 0 || pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
	    memcmp(head.magic, magic, sizeof(magic)) != 0 ||
	    head.check != check(head.number, 0, &head.number, sizeof(head.number)) ||
	    (head.number & 1) != (uint64_t)slot)
		return 0;
	return head.number;
}

bool journal_is_damaged(struct journal *journal, int slot)
{
	static const struct head none = {.number = 0};
	int fd = open_slot(journal, slot);
	struct head head = none;

	/* Who died before the head was there has left nothing, or zeros. */
	return fd >= 0 && pread(fd, &head, sizeof(head), 0) > 0 &&
	       memcmp(&head, &none, sizeof(head)) != 0 && journal_number(journal, slot) == 0;
}

static int write_whole(int fd, const void *data, size_t len, off_t at)
{
	ssize_t n = pwrite(fd, data, len, at);

	if (n == (ssize_t)len)
		return 0;
	if (n >= 0)
		errno = ENOSPC; /* a part of it: what a disk that is nearly full does */
	return -1;
}

static int cannot(const struct journal *journal, const char *what, int slot, struct err *err)
{
	return err_set(err, ERR_TEMP, "cannot %s the ledger's %s: %s", what, journal->path[slot],
		       errno == ENOSPC || errno == EDQUOT ? "the disk is full" : err_no(errno));
}

int journal_prepare(struct journal *journal, uint64_t number, bool probe, struct err *err)
{
	struct head head = {.number = number};
	off_t room = probe ? journal->end + PROBE : 0;
	int slot = (int)(number & 1), fd;

	/*
	 * Always anew: somebody may have removed the file that is open. And not
	 * cut short: ext4 writes to the disk what such a file had, and nobody
	 * needs it any more.
	 */
	if (journal->fd[slot] >= 0)
		(void)close(journal->fd[slot]);
	(void)unlink(journal->path[slot]);
	fd = open(journal->path[slot], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	journal->fd[slot] = fd;
	if (fd < 0)
		return cannot(journal, "open", slot, err);
	memcpy(head.magic, magic, sizeof(magic));
	head.check = check(number, 0, &head.number, sizeof(head.number));
	errno = room > 0 ? posix_fallocate(fd, 0, room) : 0; /* zeros are no record */
	if (errno != 0 || write_whole(fd, &head, sizeof(head), 0) < 0)
		return cannot(journal, "write", slot, err);
	journal->prepared = number;
	return 0;
}

uint64_t journal_switch(struct journal *journal)
{
	journal->number = journal->prepared;
	journal->end = sizeof(struct head);
	journal->has_records = false;
	return journal->number;
}

bool journal_is_empty(const struct journal *journal)
{
	return !journal->has_records;
}

int64_t journal_size(const struct journal *journal)
{
	return journal->end;
}

static size_t record_size(const struct journal_entry *entries, size_t count)
{
	size_t len = sizeof(struct record);

	for (size_t i = 0; i < count; i++)
		len += sizeof(struct item) + entries[i].name_len;
	return len;
}

/* A record of len bytes, for a place of the file with this number. */
static void put_together(uint64_t number, off_t place, const struct journal_entry *entries,
			 size_t count, unsigned char *record, size_t len)
{
	struct record head = {.len = (uint32_t)(len - sizeof(head)), .count = (uint32_t)count};
	size_t at = sizeof(head);

	for (size_t i = 0; i < count; i++) {
		const struct journal_entry *e = &entries[i];
		struct item item = {e->window_ms, e->at_ms, e->n, e->name_len};

		memcpy(record + at, &item, sizeof(item));
		memcpy(record + at + sizeof(item), e->name, e->name_len);
		at += sizeof(item) + e->name_len;
	}
	head.check = check(number, place, record + sizeof(head), head.len);
	memcpy(record, &head, sizeof(head));
}

int journal_append(struct journal *journal, const struct journal_entry *entries, size_t count,
		   struct err *err)
{
	int slot = (int)(journal->number & 1), rc;
	unsigned char usual[USUAL], *record = usual;
	off_t at, behind;
	size_t len;

	if (journal->number == 0 || count > JOURNAL_ENTRIES_MAX)
		return err_set(err, ERR_TEMP, "cannot write %s now", journal->path[slot]);
	for (size_t i = 0; i < count; i++)
		if (entries[i].name_len > NAME_MAX_LEN)
			return err_set(err, ERR_TEMP, "a counter's name is too long");
	len = record_size(entries, count);
	if (len > sizeof(usual))
		record = xmalloc(len);
	/* Nobody waits for another's write: each has its place, and a gap is read over. */
	at = atomic_fetch_add(&journal->end, (off_t)len);
	put_together(journal->number, at, entries, count, record, len);
	rc = write_whole(journal->fd[slot], record, len, at);
	if (rc < 0)
		(void)cannot(journal, "write", slot, err);
	if (record != usual)
		free(record);
	if (rc < 0) {
		/* The next one writes over a part of a record, unless others have come behind. */
		behind = at + (off_t)len;
		(void)atomic_compare_exchange_strong(&journal->end, &behind, at);
		return -1;
	}
	journal->has_records = true;
	return 0;
}

/* A record's entries, without copying names. Returns their number, or 0 when it is not sound. */
static size_t take_apart(const unsigned char *data, size_t len, size_t count,
			 struct journal_entry *entries)
{
	size_t at = 0;

	for (size_t i = 0; i < count; i++) {
		struct item item;

		if (len - at < sizeof(item))
			return 0;
		memcpy(&item, data + at, sizeof(item));
		at += sizeof(item);
		if (item.name_len > NAME_MAX_LEN || item.name_len > len - at)
			return 0;
		entries[i] = (struct journal_entry){(const char *)data + at, item.name_len,
						    item.window_ms, item.at_ms, item.n};
		at += item.name_len;
	}
	return at == len ? count : 0;
}

struct block {
	unsigned char *data;
	size_t len;  /* bytes in data */
	size_t used; /* of them, that nothing more is to be found in */
	off_t place; /* of data in the file */
	struct journal_entry *entry;
	size_t count;
};

/* Whether a record can have such a head. */
static bool is_likely(const struct record *head)
{
	return head->len <= BLOCK - sizeof(*head) && head->count > 0 &&
	       head->count <= JOURNAL_ENTRIES_MAX &&
	       head->len >= head->count * sizeof(struct item);
}

/*
 * Takes whole records apart until the block, or the room for entries, ends.
 * Where there is none it is looked for behind: who was killed in the middle of
 * a write has left a gap, and others, who were faster, have written behind it.
 */
static void take_records(struct block *block, uint64_t number)
{
	struct record head;

	block->count = 0;
	while (block->len - block->used >= sizeof(head)) {
		const unsigned char *data = block->data + block->used + sizeof(head);
		size_t left = block->len - block->used - sizeof(head);
		bool likely;

		memcpy(&head, block->data + block->used, sizeof(head));
		likely = is_likely(&head);
		if (likely && ((head.len > left && block->used > 0) ||
			       head.count > BLOCK_ENTRIES - block->count))
			return; /* with the next block */
		if (likely && head.len <= left &&
		    head.check ==
			    check(number, block->place + (off_t)block->used, data, head.len) &&
		    take_apart(data, head.len, head.count, block->entry + block->count) > 0) {
			block->count += head.count;
			block->used += sizeof(head) + head.len;
		} else {
			block->used++;
		}
	}
}

int journal_read(struct journal *journal, uint64_t number,
		 int (*each)(void *arg, const struct journal_entry *entries, size_t count,
			     struct err *err),
		 void *arg, struct err *err)
{
	int slot = (int)(number & 1), fd, rc = 0;
	struct block block = {.place = sizeof(struct head)};

	if (number == 0 || journal_number(journal, slot) != number)
		return 0;
	fd = journal->fd[slot];
	block.data = xmalloc(BLOCK);
	block.entry = xreallocarray(NULL, BLOCK_ENTRIES, sizeof(*block.entry));
	while (rc == 0) {
		ssize_t n = pread(fd, block.data, BLOCK, block.place);

		if (n < 0)
			rc = cannot(journal, "read", slot, err);
		if (n <= 0)
			break;
		block.len = (size_t)n;
		block.used = 0;
		take_records(&block, number);
		if (block.used == 0)
			break; /* the end */
		if (block.count > 0)
			rc = each(arg, block.entry, block.count, err);
		block.place += (off_t)block.used;
	}
	free(block.entry);
	free(block.data);
	return rc;
}
