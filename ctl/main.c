/* relay365: options and sub-commands. */
#include "base/compat.h"

#include "ctl/ctl.h"

#include "base/plain.h"
#include "base/xalloc.h"

#include <errno.h>
#include <getopt.h>
#include <unistd.h>

static const struct command {
	const char *name;
	const char *arguments;
	const char *doc;
	int (*run)(const struct ctl *ctl);
	bool alone; /* needs no configuration: ctl->conf is NULL */
} commands[] = {
	{"alarm", "", "tell of an incident, which the daemons hand over", ctl_alarm, true},
	{"backup", "FILE", "copy the ledger of accepted mail, while the milter runs", ctl_backup,
	 false},
	{"authorize", "MAILBOX",
	 "sign in for a mailbox of a delegated tenant: [--browser | --import FILE]",
	 ctl_authorize, false},
	{"check", "", "read the configuration and say what is wrong with it", ctl_check, false},
	{"status", "[--watch]", "tokens, what was accepted and delivered, and the limits",
	 ctl_status, false},
	{"limits", "", "each limit in force and who uses it most; or --what-if CONFIG",
	 ctl_limits, false},
	{"metrics", "", "what status tells, as OpenMetrics", ctl_metrics, false},
	{"queue", "", "who waits, why, until when, and when it expires", ctl_queue, false},
	{"why", "ID", "what happened to a message: QUEUE-ID [--log FILE...]", ctl_why, false},
	{"hold", "ID|KEY", "keep queued mail back: a message, or all of a mailbox or source",
	 ctl_hold, false},
	{"release", "[ID|KEY]", "list mail on hold, or let it go", ctl_release, false},
	{"lock", "KEY", "stop a mailbox or a source: --reason TEXT [--for 2h]", ctl_lock, false},
	{"unlock", "KEY", "let it send again", ctl_unlock, false},
	{"reset", "KEY", "set what is counted for it to zero: [--limit NAME] [--delivered]",
	 ctl_reset, false},
	{"probe", "[MAILBOX]",
	 "sign in to the SMTP server with its token: [--wait 2h] [--transcript]", ctl_probe,
	 false},
	{"reload", "[DAEMON]", "let the daemons, or one, read the configuration again",
	 ctl_reload, false},
	{"token", "MAILBOX", "print an access token, for programs that ask for one", ctl_token,
	 false},
	{"setup", "tenant|postfix|sendmail",
	 "write the configuration; change the MTA's, and back", ctl_setup, true},
	{"doctor", "[--send TO]", "walk the way that mail goes and name the first fault",
	 ctl_doctor, true},
	{"explain", "[TEXT|FILE]", "what an error, a log line or a log file means", ctl_explain,
	 true},
};

static void usage(FILE *to)
{
	(void)fputs("usage: relay365 [-c FILE] [--json] COMMAND [ARGUMENT...]\n\n", to);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		(void)fprintf(to, "  %-9s %-11s  %s\n", commands[i].name, commands[i].arguments,
			      commands[i].doc);
	(void)fputs("\nExit status: 0 well, 1 a problem found, 2 usage, 75 try later, 78 "
		    "configuration.\n"
		    "See relay365(8).\n",
		    to);
}

char *ctl_tokend_socket(const struct conf *conf)
{
	return xasprintf("%s/control", conf->run_dir);
}

char *ctl_milter_socket(const struct conf *conf)
{
	return xasprintf("%s/control", conf->milter_run_dir);
}

char *ctl_submit_socket(const struct conf *conf)
{
	char *path = xasprintf("%s/control", conf->submit_run_dir);

	if (access(path, F_OK) == 0 || errno != ENOENT)
		return path;
	free(path);
	return NULL;
}

const char *ctl_text(const cJSON *object, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));

	return text == NULL ? "" : text;
}

long long ctl_number(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	return cJSON_IsNumber(item) ? (long long)item->valuedouble : 0;
}

/* The option that argument names, with its value in *value_r when it has one behind "=". */
static const struct ctl_option *option_of(const char *argument, const struct ctl_option *options,
					  size_t count, const char **value_r)
{
	size_t len = strcspn(argument, "=");

	for (size_t i = 0; i < count; i++)
		if (strlen(options[i].name) == len &&
		    strncmp(options[i].name, argument, len) == 0) {
			*value_r = argument[len] == '=' ? argument + len + 1 : NULL;
			return &options[i];
		}
	return NULL;
}

int ctl_options(const struct ctl *ctl, const struct ctl_option *options, size_t count,
		const char **rest)
{
	int n = 0;

	for (int i = 0; i < ctl->argc; i++) {
		const char *value;
		const struct ctl_option *option;

		if (strcmp(ctl->argv[i], "--") == 0) {
			while (++i < ctl->argc)
				rest[n++] = ctl->argv[i];
			break;
		}
		if (ctl->argv[i][0] != '-' || ctl->argv[i][1] == '\0') {
			rest[n++] = ctl->argv[i];
			continue;
		}
		option = option_of(ctl->argv[i], options, count, &value);
		if (option == NULL || (option->flag != NULL && value != NULL)) {
			(void)fprintf(stderr, "relay365: unknown option %s\n", ctl->argv[i]);
			return -1;
		}
		if (option->flag != NULL) {
			*option->flag = true;
			continue;
		}
		if (value == NULL && i + 1 < ctl->argc)
			value = ctl->argv[++i];
		if (value == NULL) {
			(void)fprintf(stderr, "relay365: %s needs a value\n", option->name);
			return -1;
		}
		*option->value = value;
	}
	return n;
}

void ctl_plain(cJSON *json)
{
	cJSON *item;

	if (cJSON_IsString(json))
		(void)plain(json->valuestring);
	cJSON_ArrayForEach (item, json)
		ctl_plain(item);
}

int ctl_print_json(cJSON *json, int status)
{
	char *text = cJSON_Print(json);

	if (text != NULL)
		(void)puts(text);
	cJSON_free(text);
	cJSON_Delete(json);
	return status;
}

int ctl_print_error(const struct ctl *ctl, const struct err *err, int status)
{
	cJSON *json;

	if (ctl->json) {
		json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "error", err->text);
		return ctl_print_json(json, status);
	}
	(void)fprintf(stderr, "relay365: %s\n", err->text);
	return status;
}

int ctl_print_daemon_error(const struct ctl *ctl, const char *daemon, const struct err *err,
			   int status)
{
	struct err whole = *err;

	if (ctl->json) {
		(void)err_add(&whole, "relay365-%s", daemon);
		return ctl_print_error(ctl, &whole, status);
	}
	(void)fprintf(stderr, "relay365-%s: %s\n", daemon, err->text);
	return status;
}

int ctl_with_conf(const struct ctl *without, int (*run)(const struct ctl *ctl))
{
	struct ctl ctl = *without;
	struct err err = ERR_INIT;
	struct conf *conf = conf_load(ctl.conf_path, &err);
	int status;

	if (conf == NULL)
		return ctl_print_error(&ctl, &err, CTL_CONFIG);
	ctl.conf = conf;
	status = run(&ctl);
	conf_free(&conf);
	return status;
}

/* Every command takes -j and --json behind its name as well; the rest stays, how many is
 * returned. */
static int take_json(struct ctl *ctl, int argc)
{
	int n = 0;

	for (int i = 0; i < argc; i++) {
		if (strcmp(ctl->argv[i], "--") == 0) {
			while (i < argc)
				ctl->argv[n++] = ctl->argv[i++];
			break;
		}
		if (strcmp(ctl->argv[i], "--json") == 0 || strcmp(ctl->argv[i], "-j") == 0)
			ctl->json = true;
		else
			ctl->argv[n++] = ctl->argv[i];
	}
	return n;
}

/* Postfix's and Sendmail's tools are in folders that only root has in its PATH, if at all. */
static void complete_path(void)
{
	static const char theirs[] = "/usr/local/sbin:/usr/sbin:/sbin";
	const char *path = getenv("PATH");
	char *whole;

	if (path == NULL || path[0] == '\0')
		path = "/usr/local/bin:/usr/bin:/bin";
	whole = xasprintf("%s:%s", path, theirs);
	(void)setenv("PATH", whole, 1);
	free(whole);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},
						{"version", no_argument, NULL, 'V'},
						{NULL, 0, NULL, 0}};
	struct ctl ctl = {.conf_path = CONF_PATH_DEFAULT};
	int c;

	/* "+": what follows the command is the command's own. */
	while ((c = getopt_long(argc, argv, "+c:jhV", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			ctl.conf_path = optarg;
			break;
		case 'j':
			ctl.json = true;
			break;
		case 'h':
			usage(stdout);
			return CTL_OK;
		case 'V':
			(void)puts("relay365 " PACKAGE_VERSION);
			return CTL_OK;
		default:
			usage(stderr);
			return CTL_USAGE;
		}
	}
	if (optind < argc) {
		ctl.argv = argv + optind + 1;
		ctl.argc = take_json(&ctl, argc - optind - 1);
		for (size_t i = 0; i < ARRAY_LEN(commands); i++)
			if (strcmp(argv[optind], commands[i].name) == 0)
				return commands[i].alone ? commands[i].run(&ctl)
							 : ctl_with_conf(&ctl, commands[i].run);
		(void)fprintf(stderr, "relay365: there is no command \"%s\"\n", argv[optind]);
	}
	usage(stderr);
	return CTL_USAGE;
}

int main(int argc, char **argv)
{
	int status;

	complete_path();
	status = run(argc, argv);
	/* Whatever was printed, by whichever command: said is only what has arrived. */
	errno = 0;
	if (fflush(stdout) == 0 && ferror(stdout) == 0)
		return status;
	(void)fprintf(stderr, "relay365: cannot write the output%s%s\n", errno == 0 ? "" : ": ",
		      errno == 0 ? "" : err_no(errno));
	return status == CTL_OK ? CTL_PROBLEM : status;
}
