/*
 * relay365 backup: the milter copies its ledger beside it, since only the
 * milter's process may read what it has open and only there it may write; from
 * there the copy goes to where the admin wants it.
 */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/xalloc.h"
#include "proto/control.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 64 * 1024, BACKUP_MS = 120 * 1000 };

static int copy_data(int in, int out)
{
	static char block[BLOCK];
	ssize_t n;

	while ((n = read(in, block, sizeof(block))) > 0)
		for (ssize_t done = 0; done < n;) {
			ssize_t wrote = write(out, block + done, (size_t)(n - done));

			if (wrote < 0)
				return -1;
			done += wrote;
		}
	return n < 0 || fsync(out) < 0 ? -1 : 0;
}

/* Moves a file, to another file system too: what had the name before stays until all is there. */
static int move_file(const char *from, const char *to, struct err *err)
{
	char *fresh = xasprintf("%s.new", to);
	int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), out = -1, rc = -1;

	if (in < 0) {
		(void)err_set(err, ERR_CONFIG, "cannot read %s: %s", from, err_no(errno));
	} else {
		(void)unlink(fresh);
		out = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (out >= 0 && copy_data(in, out) == 0 && rename(fresh, to) == 0)
			rc = 0;
		else
			(void)err_set(err, ERR_CONFIG, "cannot write %s: %s", to, err_no(errno));
	}
	if (out >= 0)
		(void)close(out);
	if (in >= 0)
		(void)close(in);
	if (rc == 0)
		(void)unlink(from);
	else
		(void)unlink(fresh);
	free(fresh);
	return rc;
}

/* Only a file gives way to the copy: a device or a link is there for others. */
static int check_target(const char *path, struct err *err)
{
	struct stat st;

	if (lstat(path, &st) < 0 || S_ISREG(st.st_mode))
		return 0;
	return err_set(err, ERR_CONFIG, "%s is %s; name a file, or one that is yet to be made",
		       path,
		       S_ISDIR(st.st_mode)   ? "a folder"
		       : S_ISLNK(st.st_mode) ? "a symbolic link"
					     : "no plain file");
}

int ctl_backup(const struct ctl *ctl)
{
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	char *socket, *from;
	int rc;

	if (ctl->argc != 1) {
		(void)fputs("usage: relay365 [-c FILE] [--json] backup FILE\n", stderr);
		return CTL_USAGE;
	}
	socket = ctl_milter_socket(ctl->conf);
	rc = check_target(ctl->argv[0], &err);
	if (rc == 0)
		rc = control_call(socket, "backup", NULL, NULL, BACKUP_MS, &answer, &err);
	free(socket);
	cJSON_Delete(answer);
	/* Where it is known to be, and not where the answer says: this may run as root. */
	from = xasprintf("%s/ledger.db.backup", ctl->conf->milter_state_dir);
	if (rc == 0)
		rc = move_file(from, ctl->argv[0], &err);
	free(from);
	if (rc < 0)
		return ctl_print_error(ctl, &err,
				       err.class == ERR_TEMP ? CTL_TRY_LATER : CTL_PROBLEM);
	if (ctl->json) {
		answer = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(answer, "file", ctl->argv[0]);
		return ctl_print_json(answer, CTL_OK);
	}
	(void)printf("the ledger of accepted mail is copied to %s\n", ctl->argv[0]);
	return CTL_OK;
}
