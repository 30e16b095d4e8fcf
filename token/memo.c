#include "token/memo.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/xalloc.h"

#include <sys/mman.h>

static const char format[16] = "relay365 memo";

struct image {
	char format[16];
	char boot_id[40];
	uint32_t page_bytes;
	uint32_t pages;
	struct memo_page page[MEMO_PAGES];
};

/* A page when there is none left in the image. */
struct spare {
	struct memo_page page;
	struct spare *next;
};

struct memo {
	struct image *image;
	struct spare *spares;
};

static void begin(struct image *image)
{
	char boot_id[sizeof(image->boot_id)] = "";

	clock_boot_id(boot_id);
	if (memcmp(image->format, format, sizeof(format)) == 0 &&
	    image->page_bytes == sizeof(struct memo_page) && image->pages == MEMO_PAGES &&
	    memcmp(image->boot_id, boot_id, sizeof(boot_id)) == 0)
		return;
	memset(image, 0, sizeof(*image));
	image->page_bytes = sizeof(struct memo_page);
	image->pages = MEMO_PAGES;
	memcpy(image->boot_id, boot_id, sizeof(boot_id));
	memcpy(image->format, format, sizeof(format)); /* last: until then it is of no format */
}

struct memo *memo_open(const char *path, struct err *err)
{
	struct image *image = file_map(path, sizeof(*image), err);
	struct memo *memo;

	if (image == NULL)
		return NULL;
	begin(image);
	for (size_t i = 0; i < MEMO_PAGES; i++) {
		struct memo_page *page = &image->page[i];

		page->address[sizeof(page->address) - 1] = '\0';
		if (page->unwritten <= 0 && page->circuit_step == 0)
			page->address[0] = '\0'; /* free */
	}
	memo = xcalloc(1, sizeof(*memo));
	memo->image = image;
	return memo;
}

void memo_close(struct memo **memo)
{
	struct memo *m = *memo;

	if (m == NULL)
		return;
	while (m->spares != NULL) {
		struct spare *spare = m->spares;

		m->spares = spare->next;
		free(spare);
	}
	(void)munmap(m->image, sizeof(*m->image));
	free(m);
	*memo = NULL;
}

static struct memo_page *free_page(struct memo *memo, const char *address)
{
	struct spare *spare;

	if (strlen(address) < sizeof(memo->image->page[0].address))
		for (size_t i = 0; i < MEMO_PAGES; i++)
			if (memo->image->page[i].address[0] == '\0')
				return &memo->image->page[i];
	spare = xcalloc(1, sizeof(*spare));
	spare->next = memo->spares;
	memo->spares = spare;
	return &spare->page;
}

static struct memo_page *find(struct memo *memo, const char *address)
{
	for (size_t i = 0; i < MEMO_PAGES; i++)
		if (strcmp(memo->image->page[i].address, address) == 0)
			return &memo->image->page[i];
	for (struct spare *s = memo->spares; s != NULL; s = s->next)
		if (strcmp(s->page.address, address) == 0)
			return &s->page;
	return NULL;
}

struct memo_page *memo_of(struct memo *memo, const char *address)
{
	struct memo_page *page = find(memo, address);

	if (page != NULL)
		return page;
	page = free_page(memo, address);
	memset(page, 0, sizeof(*page));
	(void)snprintf(page->address, sizeof(page->address), "%s", address);
	return page;
}

void memo_each_unwritten(struct memo *memo, void (*each)(void *arg, const struct memo_page *page),
			 void *arg)
{
	for (size_t i = 0; i < MEMO_PAGES; i++)
		if (memo->image->page[i].address[0] != '\0' && memo->image->page[i].unwritten > 0)
			each(arg, &memo->image->page[i]);
}
