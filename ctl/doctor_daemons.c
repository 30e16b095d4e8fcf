#include "ctl/doctor.h"

#include "base/sock.h"
#include "base/xalloc.h"
#include "ctl/reach.h"
#include "explain/explain.h"
#include "postfix/generate.h"
#include "proto/control.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- are they there ---- */

static cJSON *ask(struct doctor *doctor, const char *daemon, char *socket)
{
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	char *what, *advice;
	enum reach reach;

	if (control_call(socket, "status", NULL, NULL, CTL_TIMEOUT_MS, &answer, &err) == 0) {
		doctor_add(doctor, DOCTOR_OK, NULL, "%s %s, pid %lld", daemon,
			   ctl_text(answer, "version"), ctl_number(answer, "pid"));
		if (ctl_text(answer, "ledger_problem")[0] != '\0')
			doctor_add(doctor, DOCTOR_FAULT,
				   "make room on the disk, or mend its modes",
				   "%s can't write its ledger: %s", daemon,
				   ctl_text(answer, "ledger_problem"));
	} else {
		reach = reach_of(socket);
		what = reach_text(reach, daemon);
		advice = reach_advice(reach, daemon, doctor->conf);
		doctor_add(doctor, reach == REACH_DENIED ? DOCTOR_UNPROVEN : DOCTOR_FAULT, advice,
			   "%s: %s", what, err.text);
		free(advice);
		free(what);
	}
	free(socket);
	return answer;
}

void doctor_daemons(struct doctor *doctor)
{
	char *socket = ctl_submit_socket(doctor->conf);

	doctor->tokend = ask(doctor, "relay365-tokend", ctl_tokend_socket(doctor->conf));
	doctor->milter = ask(doctor, "relay365-milter", ctl_milter_socket(doctor->conf));
	if (socket != NULL)
		cJSON_Delete(ask(doctor, "relay365-submit", socket));
	if (doctor->tokend != NULL &&
	    strcmp(ctl_text(doctor->tokend, "configuration"), doctor->conf->path) != 0)
		doctor_add(doctor, DOCTOR_WARNING, "give both the same file with -c",
			   "relay365-tokend runs with %s, and this is about %s",
			   ctl_text(doctor->tokend, "configuration"), doctor->conf->path);
}

/* ---- their sockets, with the eyes of Postfix ---- */

/* In a child of its own: what it may do is taken from it for good. Its exit status is an errno.
 */
static int connect_as(const char *root, bool chrooted, const struct passwd *user,
		      const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd;

	if (chdir(root) < 0 || (chrooted && chroot(root) < 0) ||
	    initgroups(user->pw_name, user->pw_gid) < 0 || setgid(user->pw_gid) < 0 ||
	    setuid(user->pw_uid) < 0)
		return errno;
	if (strlen(path) >= sizeof(to.sun_path))
		return ENAMETOOLONG;
	(void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0;
}

static void try_socket(struct doctor *doctor, const char *queue, bool chrooted,
		       const struct passwd *user, const char *path, const char *daemon)
{
	pid_t pid = fork();
	int status = 0, error;
	char *action;

	if (pid == 0)
		_exit(connect_as(queue, chrooted, user, path));
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return;
	error = WEXITSTATUS(status);
	if (error == 0) {
		doctor_add(doctor, DOCTOR_OK, NULL, "%s/%s answers user %s%s", queue, path,
			   user->pw_name, chrooted ? " in the chroot" : "");
		return;
	}
	action = error == EACCES
			 ? xasprintf("make %s/%.*s 2750, owner %.*s, group postfix: "
				     "systemd-tmpfiles --create, then systemctl restart %s",
				     queue, (int)strcspn(path, "/"), path,
				     (int)strcspn(path, "/"), path, daemon)
			 : xasprintf("run: systemctl restart %s", daemon);
	doctor_add(doctor, DOCTOR_FAULT, action, "user %s%s can't connect to %s/%s: %s",
		   user->pw_name, chrooted ? ", in the chroot," : "", queue, path, err_no(error));
	free(action);
}

void doctor_sockets(struct doctor *doctor)
{
	const struct passwd *user;
	char *queue, *owner, *milter;
	bool chrooted;

	if (doctor_failed(doctor, "daemons"))
		return;
	owner = facts_value(doctor->postfix.expanded, "mail_owner");
	queue = facts_value(doctor->postfix.expanded, "queue_directory");
	milter = generate_milter(doctor->conf, queue);
	user = getpwnam(owner);
	chrooted = facts_chroot(doctor->postfix.services, CONF_TRANSPORT_PREFIX "relay",
				"unix") == 'y' ||
		   facts_chroot(doctor->postfix.services, "smtp", "unix") == 'y';
	if (geteuid() != 0 || user == NULL) {
		doctor_add(doctor, DOCTOR_UNPROVEN, "run this as root",
			   "only root can look with the eyes of user %s", owner);
	} else {
		try_socket(doctor, queue, chrooted, user, "relay365/token", "relay365-tokend");
		try_socket(doctor, queue, chrooted, user, "relay365/map", "relay365-tokend");
		if (strncmp(milter, "unix:", 5) == 0 && milter[5] != '/')
			try_socket(doctor, queue,
				   facts_chroot(doctor->postfix.services, "smtp", "inet") == 'y',
				   user, milter + 5, "relay365-milter");
	}
	free(milter);
	free(queue);
	free(owner);
}

/* ---- what they say ---- */

/* An error that an admin must mend stops mail when the token that is there has ended. */
static void judge_error(struct doctor *doctor, const cJSON *token, const cJSON *error)
{
	const char *reason = ctl_text(error, "reason");
	const struct explanation *what = reason[0] == '\0' ? NULL : explain_line(reason);
	bool valid = strcmp(ctl_text(token, "state"), "valid") == 0;
	bool lasts = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(error, "permanent"));

	doctor_add(doctor, valid && !lasts ? DOCTOR_WARNING : DOCTOR_FAULT,
		   what != NULL ? what->action : NULL, "tenant %s: %s%s%s",
		   ctl_text(token, "tenant"), reason,
		   valid ? "; mail flows until the token ends at " : "",
		   valid ? ctl_text(token, "expires_at") : "");
}

/* What an admin must renew: certificates, secrets, sign-ins. */
static void judge_calendar(struct doctor *doctor)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(doctor->tokend, "calendar"))
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "near")))
			doctor_add(doctor, DOCTOR_WARNING,
				   "renew it before: relay365-runbooks(7) tells how",
				   "%s ends at %s, in %lld days", ctl_text(item, "what"),
				   ctl_text(item, "ends"), ctl_number(item, "days_left"));
}

void doctor_tokens(struct doctor *doctor)
{
	const cJSON *token;

	cJSON_ArrayForEach (token, cJSON_GetObjectItemCaseSensitive(doctor->tokend, "tokens")) {
		const cJSON *error = cJSON_GetObjectItemCaseSensitive(token, "last_error");

		if (error != NULL)
			judge_error(doctor, token, error);
		else if (strcmp(ctl_text(token, "state"), "valid") == 0)
			doctor_add(doctor, DOCTOR_OK, NULL,
				   "tenant %s: by %s, valid for %lld min",
				   ctl_text(token, "tenant"), ctl_text(token, "grant"),
				   ctl_number(token, "expires_in_s") / 60);
		else
			doctor_add(doctor, DOCTOR_UNPROVEN, NULL, "tenant %s: none yet (%s)",
				   ctl_text(token, "tenant"), ctl_text(token, "state"));
	}
	judge_calendar(doctor);
}

void doctor_mailboxes(struct doctor *doctor)
{
	const cJSON *mailbox;

	cJSON_ArrayForEach (mailbox,
			    cJSON_GetObjectItemCaseSensitive(doctor->tokend, "mailboxes")) {
		const char *problem = ctl_text(mailbox, "problem");
		const char *refusal = ctl_text(mailbox, "last_refusal");
		const struct explanation *what =
			problem[0] != '\0' ? explain_line(problem) : explain_line(refusal);

		if (problem[0] != '\0')
			doctor_add(doctor, DOCTOR_FAULT, what != NULL ? what->action : NULL,
				   "mailbox %s: %s", ctl_text(mailbox, "name"), problem);
		else if (refusal[0] != '\0')
			doctor_add(doctor, DOCTOR_WARNING, what != NULL ? what->action : NULL,
				   "mailbox %s: last refusal %s: %s%s%s",
				   ctl_text(mailbox, "name"),
				   ctl_text(mailbox, "last_refusal_at"), refusal,
				   what != NULL ? "; " : "", what != NULL ? what->meaning : "");
		else
			doctor_add(doctor, DOCTOR_OK, NULL,
				   "mailbox %s: %lld of %lld recipients delivered in 24 h",
				   ctl_text(mailbox, "name"), ctl_number(mailbox, "delivered"),
				   ctl_number(mailbox, "recipients_per_day"));
	}
}

static void add_limit(struct doctor *doctor, const cJSON *limit)
{
	char window[64] = "";

	if (ctl_number(limit, "window_s") > 0)
		(void)snprintf(window, sizeof(window), " in %lld s",
			       ctl_number(limit, "window_s"));
	doctor_add(doctor, DOCTOR_OK, NULL, "%s: %lld %s per %s%s, %s (%s)",
		   ctl_text(limit, "limit"), ctl_number(limit, "max"), ctl_text(limit, "count"),
		   ctl_text(limit, "per"), window, ctl_text(limit, "action"),
		   ctl_text(limit, "from"));
}

void doctor_limits(struct doctor *doctor)
{
	char *socket = ctl_milter_socket(doctor->conf);
	struct err err = ERR_INIT;
	cJSON *answer = NULL;
	const cJSON *limit;

	if (doctor->milter != NULL &&
	    control_call(socket, "limits", NULL, NULL, CTL_TIMEOUT_MS, &answer, &err) == 0)
		cJSON_ArrayForEach (limit, cJSON_GetObjectItemCaseSensitive(answer, "limits"))
			add_limit(doctor, limit);
	if (doctor->conf->shadow)
		doctor_add(doctor, DOCTOR_WARNING, "set shadow = false",
			   "shadow = true: limits are logged and not kept");
	cJSON_Delete(answer);
	free(socket);
}
