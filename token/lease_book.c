#include "token/lease_book.h"

#include "base/file.h"
#include "base/xalloc.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

static const char format[16] = "relay365 leases";

struct page {
	_Atomic int32_t pid; /* 0: free; written last, so that a half-written page is free */
	int32_t recipients;
	int32_t shared;
	int32_t told;
	char name[LEASE_NAME_SIZE + 3];
	char address[332];
};

struct image {
	char format[16];
	uint32_t page_bytes;
	uint32_t pages;
	struct page page[LEASE_BOOK_PAGES];
};

struct lease_book {
	struct image *image;
	int next; /* where to look for a free page */
	bool frozen;
};

static bool is_ours(const struct image *image)
{
	return memcmp(image->format, format, sizeof(format)) == 0 &&
	       image->page_bytes == sizeof(struct page) && image->pages == LEASE_BOOK_PAGES;
}

static void start_anew(struct image *image)
{
	memset(image, 0, sizeof(*image));
	image->page_bytes = sizeof(struct page);
	image->pages = LEASE_BOOK_PAGES;
	memcpy(image->format, format, sizeof(format));
}

struct lease_book *lease_book_open(const char *path, struct err *err)
{
	struct image *image = file_map(path, sizeof(*image), err);
	struct lease_book *book;

	if (image == NULL)
		return NULL;
	if (!is_ours(image))
		start_anew(image);
	book = xcalloc(1, sizeof(*book));
	book->image = image;
	return book;
}

void lease_book_close(struct lease_book **book)
{
	if (*book == NULL)
		return;
	(void)munmap((*book)->image, sizeof(struct image));
	free(*book);
	*book = NULL;
}

static bool lives(pid_t pid)
{
	return kill(pid, 0) == 0 || errno == EPERM;
}

void lease_book_each_left(struct lease_book *book,
			  void (*each)(void *arg, const struct lease_entry *entry, int page),
			  void *arg)
{
	for (int i = 0; i < LEASE_BOOK_PAGES; i++) {
		struct page *page = &book->image->page[i];
		struct lease_entry entry = {page->address,     page->pid,	page->recipients,
					    page->shared != 0, page->told != 0, ""};

		if (entry.pid == 0)
			continue;
		page->address[sizeof(page->address) - 1] = '\0';
		memcpy(entry.name, page->name, sizeof(entry.name) - 1);
		if (entry.pid > 0 && lives(entry.pid))
			each(arg, &entry, i);
		else
			page->pid = 0;
	}
}

int lease_book_add(struct lease_book *book, const struct lease_entry *entry)
{
	for (int i = 0; i < LEASE_BOOK_PAGES; i++) {
		int at = (book->next + i) % LEASE_BOOK_PAGES;
		struct page *page = &book->image->page[at];

		if (page->pid != 0)
			continue;
		(void)snprintf(page->address, sizeof(page->address), "%s", entry->address);
		page->recipients = entry->recipients;
		page->shared = entry->shared;
		page->told = entry->told;
		(void)snprintf(page->name, sizeof(page->name), "%s", entry->name);
		page->pid = entry->pid;
		book->next = (at + 1) % LEASE_BOOK_PAGES;
		return at;
	}
	return -1;
}

void lease_book_tell(struct lease_book *book, int page)
{
	if (page >= 0)
		book->image->page[page].told = true;
}

void lease_book_freeze(struct lease_book *book)
{
	book->frozen = true;
}

void lease_book_strike(struct lease_book *book, int page)
{
	if (page >= 0 && !book->frozen)
		book->image->page[page].pid = 0;
}
