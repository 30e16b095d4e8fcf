#include "ctl/setup.h"

#include "base/file.h"
#include "base/xalloc.h"
#include "ctl/child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ours(const char *name)
{
	return strcmp(name, "main.cf") == 0 || strcmp(name, "master.cf") == 0;
}

char *setup_mirror_make(const char *folder, struct err *err)
{
	char *mirror = xstrdup("/tmp/relay365-setup-XXXXXX");
	DIR *dir = opendir(folder);
	struct dirent *entry;
	bool whole = true;

	if (dir == NULL || mkdtemp(mirror) == NULL) {
		err_set(err, ERR_CONFIG, "cannot look into %s: %s", folder, err_no(errno));
		if (dir != NULL)
			(void)closedir(dir);
		free(mirror);
		return NULL;
	}
	while (whole && (entry = readdir(dir)) != NULL) {
		char *from, *to;

		if (entry->d_name[0] == '.' || ours(entry->d_name))
			continue;
		from = xasprintf("%s/%s", folder, entry->d_name);
		to = xasprintf("%s/%s", mirror, entry->d_name);
		/* postconf would complain of what it misses */
		whole = symlink(from, to) == 0;
		if (!whole)
			err_set(err, ERR_CONFIG, "cannot make the link %s: %s", to,
				err_no(errno));
		free(from);
		free(to);
	}
	(void)closedir(dir);
	if (!whole)
		setup_mirror_remove(&mirror);
	return mirror;
}

/*
 * Postfix waits for two seconds before it reads a file that was written just
 * now: it may be half there. Ours are whole, and five programs read them.
 */
static int write_aged(const char *folder, const char *name, const char *text, struct err *err)
{
	const struct timespec then[2] = {{1, 0}, {1, 0}};
	char *path = xasprintf("%s/%s", folder, name);
	int result = file_replace(path, text, strlen(text), 0600, err);

	if (result == 0)
		(void)utimensat(AT_FDCWD, path, then, 0);
	free(path);
	return result;
}

int setup_mirror_write(const char *mirror, const char *main_cf, const char *master_cf,
		       struct err *err)
{
	if (write_aged(mirror, "main.cf", main_cf, err) < 0)
		return -1;
	return write_aged(mirror, "master.cf", master_cf, err);
}

void setup_mirror_remove(char **mirror)
{
	DIR *dir = *mirror == NULL ? NULL : opendir(*mirror);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		(void)unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir != NULL)
		(void)closedir(dir);
	if (*mirror != NULL)
		(void)rmdir(*mirror);
	free(*mirror);
	*mirror = NULL;
}

static int ask(const char *folder, const char *option, struct buf *to, struct buf *complaints,
	       struct err *err)
{
	const char *const argv[] = {"postconf", "-c", folder, option, NULL};
	const char *why;
	int status;

	*to = (struct buf)BUF_INIT(SETUP_OUTPUT_MAX);
	status = child_exec(argv, NULL, to, complaints, SETUP_TIMEOUT_MS);
	if (status == 0)
		return 0;
	if (status == 127)
		return err_set(err, ERR_CONFIG, "postconf is not found; is Postfix installed?");
	why = child_complaint(buf_text(complaints));
	return err_set(err, ERR_CONFIG, "postconf fails: %.*s", (int)strcspn(why, "\n"), why);
}

int setup_facts_read(const char *folder, struct setup_facts *facts, struct err *err)
{
	*facts = (struct setup_facts){.complaints = BUF_INIT(64 * 1024)};
	if (ask(folder, NULL, &facts->raw, &facts->complaints, err) < 0 ||
	    ask(folder, "-x", &facts->expanded, &facts->complaints, err) < 0 ||
	    ask(folder, "-n", &facts->set, &facts->complaints, err) < 0 ||
	    ask(folder, "-M", &facts->services, &facts->complaints, err) < 0 ||
	    ask(folder, "-P", &facts->options, &facts->complaints, err) < 0)
		return -1;
	return 0;
}

void setup_facts_clear(struct setup_facts *facts)
{
	buf_clear(&facts->raw);
	buf_clear(&facts->expanded);
	buf_clear(&facts->set);
	buf_clear(&facts->services);
	buf_clear(&facts->options);
	buf_clear(&facts->complaints);
}

struct postfix_facts setup_facts_view(const struct setup_facts *facts)
{
	return (struct postfix_facts){buf_text(&facts->raw), buf_text(&facts->expanded),
				      buf_text(&facts->set), buf_text(&facts->services),
				      buf_text(&facts->options)};
}
