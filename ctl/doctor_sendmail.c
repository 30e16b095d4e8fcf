/* relay365 doctor: what Sendmail's configuration says of relay365. */
#include "ctl/doctor.h"

#include "base/file.h"
#include "base/xalloc.h"

#include <unistd.h>

#define SENDMAIL_DIR "/etc/mail"
#define HOW "run: relay365 setup sendmail --apply"

enum { CF_MAX = 4 << 20 };

/* The rest of the first line of text that begins so, or NULL. */
static const char *line_of(const char *text, const char *begin)
{
	size_t n = strlen(begin);

	while (strncmp(text, begin, n) != 0) {
		text = strchr(text, '\n');
		if (text == NULL)
			return NULL;
		text++;
	}
	return text + n;
}

/* Lines that begin with white space go on with the one before. */
static void check_mailer(struct doctor *doctor, const char *mailer)
{
	char *wanted = xasprintf("A=FILE %s/submit\n", doctor->conf->submit_run_dir);
	const char *end = mailer, *found;

	do
		end += strcspn(end, "\n") + 1;
	while (end[-1] == '\n' && (*end == '\t' || *end == ' '));
	found = strstr(mailer, wanted);
	if (found != NULL && found < end)
		doctor_add(doctor, DOCTOR_OK, NULL, "the mailer relay365 leads to %s/submit",
			   doctor->conf->submit_run_dir);
	else
		doctor_add(doctor, DOCTOR_FAULT, HOW ", then restart Sendmail",
			   "the mailer relay365 does not lead to %s/submit, where "
			   "relay365-submit is",
			   doctor->conf->submit_run_dir);
	free(wanted);
}

static void check_filter(struct doctor *doctor, const char *filter)
{
	size_t len = filter == NULL ? 0 : strcspn(filter, "\n");
	char *line = filter == NULL ? NULL : xstrndup(filter, len);

	if (line == NULL)
		doctor_add(
			doctor, DOCTOR_WARNING, HOW ", then restart Sendmail",
			"Sendmail does not ask relay365-milter: limits hold only where mail is "
			"submitted");
	else if (strstr(line, "F=T") == NULL)
		doctor_add(doctor, DOCTOR_WARNING, "add F=T to the filter",
			   "without F=T mail passes uncounted while relay365-milter is down");
	else
		doctor_add(doctor, DOCTOR_OK, NULL, "relay365-milter is asked, with F=T");
	free(line);
}

static void check_cf(struct doctor *doctor, const char *cf)
{
	const char *mailer = line_of(cf, "Mrelay365,");
	char *socket;

	if (mailer == NULL) {
		if (doctor->instances == 0)
			doctor_add(doctor, DOCTOR_WARNING, HOW,
				   "Sendmail does not deliver through relay365");
		return;
	}
	check_mailer(doctor, mailer);
	check_filter(doctor, line_of(cf, "Xrelay365,"));
	if (line_of(cf, "DSrelay365:") == NULL)
		doctor_add(
			doctor, DOCTOR_OK, NULL,
			"relay365 is not the smart host: only what other maps name goes there");
	socket = ctl_submit_socket(doctor->conf);
	if (socket == NULL)
		doctor_add(doctor, DOCTOR_FAULT, "run: systemctl start relay365-submit",
			   "relay365-submit is not running: Sendmail keeps all mail");
	free(socket);
}

void doctor_sendmail(struct doctor *doctor)
{
	const char *folder = doctor->sendmail_dir == NULL ? SENDMAIL_DIR : doctor->sendmail_dir;
	char *path = xasprintf("%s/sendmail.cf", folder);
	struct buf cf = BUF_INIT(CF_MAX);
	struct err err = ERR_INIT;

	if (access(path, F_OK) < 0) {
		if (doctor->instances == 0)
			doctor_add(doctor, DOCTOR_UNPROVEN, NULL, "there is no %s either", path);
	} else if (file_read(path, &cf, &err) < 0) {
		doctor_add(doctor, DOCTOR_UNPROVEN, "run this as root", "%s", err.text);
	} else {
		check_cf(doctor, buf_text(&cf));
	}
	buf_clear(&cf);
	free(path);
}
