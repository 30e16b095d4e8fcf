#include "ctl/doctor.h"

#include "base/sock.h"
#include "base/xalloc.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>

void doctor_configuration(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;

	doctor_add(doctor, DOCTOR_OK, NULL, "%s: %zu tenant%s, %zu mailbox%s", conf->path,
		   conf->tenants, conf->tenants == 1 ? "" : "s", conf->mailboxes,
		   conf->mailboxes == 1 ? "" : "es");
}

static bool in_group(const struct passwd *user, gid_t gid)
{
	const struct group *group = getgrgid(gid);

	if (user->pw_gid == gid)
		return true;
	for (char **member = group == NULL ? NULL : group->gr_mem;
	     member != NULL && *member != NULL; member++)
		if (strcmp(*member, user->pw_name) == 0)
			return true;
	return false;
}

/* Whether relay365-tokend's own user can read it; its mode was looked at when loading. */
static void check_file(struct doctor *doctor, const char *path)
{
	const struct passwd *user = getpwnam("relay365");
	struct stat st;
	char *action;

	if (path[0] == '\0')
		return;
	if (strncmp(path, CONF_CREDENTIAL_PREFIX, strlen(CONF_CREDENTIAL_PREFIX)) == 0) {
		doctor_add(doctor, DOCTOR_OK, NULL, "%s: systemd hands it to relay365-tokend",
			   path);
		return;
	}
	if (stat(path, &st) < 0) {
		doctor_add(doctor, errno == EACCES ? DOCTOR_UNPROVEN : DOCTOR_FAULT,
			   errno == EACCES ? "run this as root" : "put the file there",
			   "cannot look at %s: %s", path, err_no(errno));
		return;
	}
	if (user == NULL || st.st_uid == user->pw_uid || (st.st_mode & S_IROTH) != 0 ||
	    ((st.st_mode & S_IRGRP) != 0 && in_group(user, st.st_gid))) {
		doctor_add(doctor, DOCTOR_OK, NULL, "%s: mode %04o", path,
			   (unsigned int)(st.st_mode & 07777));
		return;
	}
	action = xasprintf("run: chown relay365 %s", path);
	doctor_add(doctor, DOCTOR_FAULT, action,
		   "%s belongs to uid %u with mode %04o: the user relay365, who is "
		   "relay365-tokend, can't read it",
		   path, (unsigned int)st.st_uid, (unsigned int)(st.st_mode & 07777));
	free(action);
}

void doctor_files(struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->conf->tenants; i++) {
		const struct conf_tenant *tenant = &doctor->conf->tenant[i];
		const char *const files[] = {tenant->secret_file,      tenant->certificate,
					     tenant->private_key,      tenant->passphrase_file,
					     tenant->next_certificate, tenant->next_private_key,
					     tenant->proxy_secret_file};

		for (size_t j = 0; j < ARRAY_LEN(files); j++)
			check_file(doctor, files[j]);
	}
}
