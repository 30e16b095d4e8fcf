#include "base/compat.h"

#include "fuzz.h"

#include "conf/conf.h"
#include "postfix/generate.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* libconfig 1.5 loses the half of a text when a syntax error ends it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig";
}

/* The corpus names its secrets /proc/self/fd/200. */
enum { SECRET_FD = 200 };

static void make_secret(void)
{
	static bool made;
	int fd;

	if (made)
		return;
	made = true;
	fd = memfd_create("secret", MFD_CLOEXEC);
	must(fd >= 0 && fchmod(fd, 0600) == 0 && dup2(fd, SECRET_FD) == SECRET_FD);
	(void)close(fd);
}

static void on_parameter(void *arg, const char *name, const char *value, bool add)
{
	(void)arg;
	(void)add;
	must(name[0] != '\0' && strchr(value, '\n') == NULL);
}

/* What is made from a configuration that was taken. */
static void check(const struct conf *conf)
{
	struct buf text = BUF_INIT(GENERATE_MAX);

	must(conf->tenants > 0 && conf->mailboxes > 0);
	for (size_t i = 0; i < conf->mailboxes; i++) {
		const struct conf_mailbox *mailbox = &conf->mailbox[i];

		must(mailbox->tenant != NULL);
		must(conf_mailbox_by_name(conf, mailbox->name, strlen(mailbox->name)) == mailbox);
		must(conf_mailbox_by_address(conf, mailbox->address) == mailbox);
		must(conf_transaction_recipients(mailbox) >= 1);
	}
	generate_master(conf, 'y', &text);
	generate_sender_transport(conf, &text);
	generate_main(conf, NULL, on_parameter, NULL);
	buf_clear(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	struct conf *conf;
	char path[64];
	int fd;

	/* Other files are none of a fuzzer's business. */
	if (memmem(data, size, "@include", 8) != NULL)
		return 0;
	make_secret();
	fd = memfd_create("relay365.conf", MFD_CLOEXEC);
	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	conf = conf_load(path, &err);
	if (conf == NULL)
		must(err.class == ERR_CONFIG && err.text[0] != '\0');
	else
		check(conf);
	conf_free(&conf);
	(void)close(fd);
	return 0;
}
