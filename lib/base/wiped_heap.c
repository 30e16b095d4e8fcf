#include "base/wiped_heap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Before each block; as large as keeps the block aligned for anything. */
union head {
	size_t size;
	max_align_t aligned;
};

void *wiped_malloc(size_t size)
{
	union head *head = size > SIZE_MAX - sizeof(*head) ? NULL : malloc(sizeof(*head) + size);

	if (head == NULL)
		return NULL;
	head->size = size;
	return head + 1;
}

void *wiped_calloc(size_t count, size_t size)
{
	void *block = size != 0 && count > SIZE_MAX / size ? NULL : wiped_malloc(count * size);

	if (block != NULL)
		memset(block, 0, count * size);
	return block;
}

void wiped_free(void *block)
{
	union head *head = block;

	if (block == NULL)
		return;
	head--;
	explicit_bzero(block, head->size);
	free(head);
}

void *wiped_realloc(void *block, size_t size)
{
	const union head *head = block;
	void *fresh = wiped_malloc(size);

	if (block == NULL || fresh == NULL)
		return fresh; /* the old one stays as it is */
	head--;
	memcpy(fresh, block, size < head->size ? size : head->size);
	wiped_free(block);
	return fresh;
}

char *wiped_strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = wiped_malloc(size);

	if (copy != NULL)
		memcpy(copy, text, size);
	return copy;
}
