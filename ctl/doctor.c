#include "ctl/doctor.h"

#include "base/plain.h"
#include "base/xalloc.h"

#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

enum { EVIDENCE_MAX = 2048, TRANSCRIPT_MAX = 1 << 20 };

enum { NAGIOS_OK, NAGIOS_WARNING, NAGIOS_CRITICAL, NAGIOS_UNKNOWN };

static void doctor_unseen(struct doctor *doctor)
{
	doctor_add(doctor, DOCTOR_UNPROVEN, NULL,
		   "licences, SendAs rights and Sent Items quota can't be seen from here; the "
		   "audit script of relay365 setup tenant lists them");
}

/* What a check looks at: the machine, or each Postfix instance by itself. */
enum scope { ONCE, EACH };

static const struct check {
	const char *id;
	const char *title;
	void (*run)(struct doctor *doctor);
	enum scope scope;
} checks[] = {
	{"configuration", "relay365.conf", doctor_configuration, ONCE},
	{"files", "keys and secrets", doctor_files, ONCE},
	{"daemons", "daemons", doctor_daemons, ONCE},
	{"clock", "clock", doctor_clock, ONCE},
	{"tokens", "access tokens", doctor_tokens, ONCE},
	{"postfix", "Postfix", doctor_postfix, ONCE},
	{"wiring", "relay365 in Postfix", doctor_wiring, EACH},
	{"plugin", "SASL plugin", doctor_plugin, EACH},
	{"sendmail", "relay365 in Sendmail", doctor_sendmail, ONCE},
	{"sockets", "sockets, as Postfix sees them", doctor_sockets, EACH},
	{"server", "the way to Office 365", doctor_server, ONCE},
	{"sign-in", "signing in", doctor_sign_in, ONCE},
	{"mailboxes", "mailboxes", doctor_mailboxes, ONCE},
	{"settings", "settings of Postfix that hurt", doctor_settings, EACH},
	{"domains", "SPF, DKIM, DMARC", doctor_domains, ONCE},
	{"limits", "limits", doctor_limits, ONCE},
	{"send", "a real message", doctor_send, ONCE},
	{"unseen", "not proven", doctor_unseen, ONCE},
};

static const char *const words[] = {"ok", "not proven", "warning", "fault"};

/* With several Postfix instances: of which one. The caller frees. */
static char *whose(const struct doctor *doctor, const char *evidence)
{
	if (doctor->looks_at == NULL)
		return xstrdup(evidence);
	return xasprintf("%s: %s", doctor->looks_at, evidence);
}

void doctor_add(struct doctor *doctor, enum verdict verdict, const char *action, const char *fmt,
		...)
{
	char evidence[EVIDENCE_MAX];
	struct finding *finding;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(evidence, sizeof(evidence), fmt, ap);
	va_end(ap);
	doctor->finding =
		xreallocarray(doctor->finding, doctor->findings + 1, sizeof(doctor->finding[0]));
	finding = &doctor->finding[doctor->findings++];
	finding->check = doctor->current;
	finding->verdict = verdict;
	finding->evidence = plain(whose(doctor, evidence));
	finding->action = plain(xstrdup(action == NULL ? "" : action));
}

bool doctor_failed(const struct doctor *doctor, const char *check)
{
	for (size_t i = 0; i < doctor->findings; i++)
		if (strcmp(doctor->finding[i].check, check) == 0 &&
		    doctor->finding[i].verdict == DOCTOR_FAULT)
			return true;
	return false;
}

static enum verdict worst(const struct doctor *doctor, const char *check)
{
	enum verdict found = DOCTOR_OK;

	for (size_t i = 0; i < doctor->findings; i++)
		if ((check == NULL || strcmp(doctor->finding[i].check, check) == 0) &&
		    doctor->finding[i].verdict > found)
			found = doctor->finding[i].verdict;
	return found;
}

/* The first of the worst. */
static const struct finding *first_cause(const struct doctor *doctor)
{
	enum verdict wanted = worst(doctor, NULL);

	for (size_t i = 0; i < doctor->findings; i++)
		if (doctor->finding[i].verdict == wanted)
			return &doctor->finding[i];
	return NULL;
}

/*
 * Why next to nothing could be seen, where nothing worse is known: the configuration
 * or a daemon that this user may not read or ask. NULL: it could.
 */
static const struct finding *blindness(const struct doctor *doctor)
{
	const struct finding *finding = doctor->finding;

	if (worst(doctor, NULL) >= DOCTOR_WARNING)
		return NULL;
	for (size_t i = 0; i < doctor->findings; i++, finding++)
		if (finding->verdict == DOCTOR_UNPROVEN &&
		    (strcmp(finding->check, "configuration") == 0 ||
		     strcmp(finding->check, "daemons") == 0))
			return finding;
	return NULL;
}

static void print_summary(const struct doctor *doctor)
{
	static const char *const leads[] = {"", "Not proven", "Warning", "Fault"};
	const struct finding *blind = blindness(doctor);
	const struct finding *first = blind != NULL ? blind : first_cause(doctor);

	if (first == NULL || (blind == NULL && first->verdict < DOCTOR_WARNING))
		(void)puts("All that can be seen from here is well.");
	else if (first->action[0] == '\0')
		(void)printf("%s: %s.\n", leads[first->verdict], first->evidence);
	else
		(void)printf("%s: %s. What to do: %s.\n", leads[first->verdict], first->evidence,
			     first->action);
}

static void print_check(const struct doctor *doctor, const struct check *check)
{
	for (size_t i = 0; i < doctor->findings; i++) {
		const struct finding *finding = &doctor->finding[i];

		if (strcmp(finding->check, check->id) != 0)
			continue;
		(void)printf("  %-10s %s: %s\n", words[finding->verdict], check->title,
			     finding->evidence);
		if (finding->action[0] != '\0')
			(void)printf("             -> %s\n", finding->action);
	}
}

static int print_text(const struct doctor *doctor, int status)
{
	print_summary(doctor);
	(void)putchar('\n');
	for (size_t i = 0; i < ARRAY_LEN(checks); i++)
		print_check(doctor, &checks[i]);
	if (doctor->verbose)
		(void)printf("\n%s", buf_text(&doctor->transcript));
	return status;
}

static int print_json(const struct doctor *doctor, int status)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *list = cJSON_AddArrayToObject(json, "findings");

	(void)cJSON_AddStringToObject(json, "verdict", words[worst(doctor, NULL)]);
	for (size_t i = 0; i < doctor->findings; i++) {
		cJSON *item = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(item, "check", doctor->finding[i].check);
		(void)cJSON_AddStringToObject(item, "verdict", words[doctor->finding[i].verdict]);
		(void)cJSON_AddStringToObject(item, "evidence", doctor->finding[i].evidence);
		(void)cJSON_AddStringToObject(item, "action", doctor->finding[i].action);
		(void)cJSON_AddItemToArray(list, item);
	}
	if (doctor->verbose)
		(void)cJSON_AddStringToObject(json, "transcript", buf_text(&doctor->transcript));
	return ctl_print_json(json, status);
}

/* One line and the exit status, as Nagios and its like want them. */
static int print_nagios(const struct doctor *doctor)
{
	static const char *const states[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
	const struct finding *blind = blindness(doctor), *first = first_cause(doctor);
	enum verdict verdict = worst(doctor, NULL);
	int faults = 0, warnings = 0;
	int state = verdict == DOCTOR_FAULT	? NAGIOS_CRITICAL
		    : verdict == DOCTOR_WARNING ? NAGIOS_WARNING
		    : blind != NULL		? NAGIOS_UNKNOWN
						: NAGIOS_OK;

	for (size_t i = 0; i < doctor->findings; i++) {
		faults += doctor->finding[i].verdict == DOCTOR_FAULT;
		warnings += doctor->finding[i].verdict == DOCTOR_WARNING;
	}
	(void)printf("RELAY365 %s - %s | faults=%d warnings=%d\n", states[state],
		     state == NAGIOS_OK ? "all that can be seen is well"
		     : blind != NULL	? blind->evidence
					: first->evidence,
		     faults, warnings);
	return fflush(stdout) == 0 ? state : NAGIOS_UNKNOWN;
}

static void clear(struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->findings; i++) {
		free(doctor->finding[i].evidence);
		free(doctor->finding[i].action);
	}
	free(doctor->finding);
	doctor_clear_instances(doctor);
	buf_clear(&doctor->transcript);
	cJSON_Delete(doctor->tokend);
	cJSON_Delete(doctor->milter);
}

static void run(struct doctor *doctor, const struct check *check)
{
	doctor->current = check->id;
	for (size_t i = 0; check->scope == EACH && i < doctor->instances; i++) {
		doctor_look_at(doctor, &doctor->instance[i]);
		check->run(doctor);
	}
	doctor_look_at(doctor, NULL);
	if (check->scope == ONCE)
		check->run(doctor);
}

static int report(const struct doctor *doctor, bool json, bool nagios)
{
	bool well = worst(doctor, NULL) < DOCTOR_WARNING && blindness(doctor) == NULL;
	int status = well ? CTL_OK : CTL_PROBLEM;

	if (nagios)
		return print_nagios(doctor);
	return json ? print_json(doctor, status) : print_text(doctor, status);
}

int ctl_doctor(const struct ctl *ctl)
{
	struct doctor doctor = {.conf_path = ctl->conf_path,
				.transcript = BUF_INIT(TRANSCRIPT_MAX)};
	bool nagios = false;
	const struct ctl_option options[] = {{"--nagios", &nagios, NULL},
					     {"--transcript", &doctor.verbose, NULL},
					     {"--send", NULL, &doctor.send_to},
					     {"--config-dir", NULL, &doctor.config_dir},
					     {"--sendmail-dir", NULL, &doctor.sendmail_dir}};
	const char **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest), status;
	struct conf *conf = NULL;
	struct err err = ERR_INIT;

	free(rest);
	if (n != 0) {
		(void)fputs(
			"usage: relay365 [-c FILE] [--json] doctor [--send TO] [--transcript] "
			"[--nagios] [--config-dir DIR] [--sendmail-dir DIR]\n",
			stderr);
		return CTL_USAGE;
	}
	conf = conf_load(ctl->conf_path, &err);
	doctor.conf = conf;
	if (conf == NULL) {
		bool denied = access(ctl->conf_path, R_OK) < 0 && errno == EACCES;

		doctor.current = checks[0].id;
		doctor_add(&doctor, denied ? DOCTOR_UNPROVEN : DOCTOR_FAULT,
			   denied ? "run this as root"
				  : "mend the file; relay365 check reads it again",
			   "%s", err.text);
	}
	for (size_t i = 0; conf != NULL && i < ARRAY_LEN(checks); i++)
		run(&doctor, &checks[i]);
	status = report(&doctor, ctl->json, nagios);
	clear(&doctor);
	conf_free(&conf);
	return status;
}
