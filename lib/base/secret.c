#include "base/secret.h"

#include <sys/mman.h>
#include <unistd.h>

int secret_set(struct secret *secret, const char *data, size_t len)
{
	long page = sysconf(_SC_PAGESIZE);
	struct secret fresh = SECRET_INIT;

	if (len > SECRET_MAX)
		return -1;
	fresh.mapped = (len + 1 + (size_t)page - 1) / (size_t)page * (size_t)page;
	fresh.data = mmap(NULL, fresh.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	if (fresh.data == MAP_FAILED)
		return -1;
	/* Best effort both: an old kernel or a small limit must not stop mail. */
	(void)mlock(fresh.data, fresh.mapped);
	(void)madvise(fresh.data, fresh.mapped, MADV_DONTDUMP);
	memcpy(fresh.data, data, len);
	fresh.data[len] = '\0';
	fresh.len = len;
	secret_move(secret, &fresh);
	return 0;
}

void secret_move(struct secret *to, struct secret *from)
{
	secret_clear(to);
	*to = *from;
	from->data = NULL;
	from->len = from->mapped = 0;
}

void secret_clear(struct secret *secret)
{
	if (secret->data != NULL) {
		explicit_bzero(secret->data, secret->mapped);
		(void)munmap(secret->data, secret->mapped);
	}
	secret->data = NULL;
	secret->len = secret->mapped = 0;
}

void secret_trim(struct secret *secret)
{
	while (secret->len > 0 && strchr(" \t\r\n", secret->data[secret->len - 1]) != NULL)
		secret->data[--secret->len] = '\0';
}

bool secret_is_set(const struct secret *secret)
{
	return secret->data != NULL && secret->len > 0;
}
