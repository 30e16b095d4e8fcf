#include "ctl/doctor.h"

#include "base/xalloc.h"
#include "ctl/instance.h"
#include "postfix/check.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <unistd.h>

#define SYSTEM_SASL_FOLDER "/usr/lib/" MULTIARCH "/sasl2"

enum { ENVIRONMENT_MAX = 64 * 1024 };

/* ---- is there a Postfix, and does it run ---- */

/* Where Postfix looks by itself; the caller frees. NULL: there is no Postfix. */
static char *usual_config_dir(void)
{
	const char *const args[] = {"-dh", "config_directory", NULL};
	struct buf text = BUF_INIT(4096);
	char *found = NULL;

	if (instance_run(NULL, "postconf", args, NULL, &text, NULL) == 0)
		found = xstrndup(buf_text(&text), strcspn(buf_text(&text), "\n"));
	buf_clear(&text);
	return found;
}

/* Takes config_dir over. */
static void add_instance(struct doctor *doctor, char *config_dir)
{
	struct doctor_instance *instance;
	struct err err = ERR_INIT;

	doctor->instance =
		xreallocarray(doctor->instance, doctor->instances + 1, sizeof(*doctor->instance));
	instance = &doctor->instance[doctor->instances];
	*instance = (struct doctor_instance){.config_dir = config_dir};
	if (setup_facts_read(config_dir, &instance->facts, &err) == 0) {
		doctor->instances++;
		return;
	}
	doctor_add(doctor, DOCTOR_FAULT, "mend Postfix's configuration", "%s", err.text);
	setup_facts_clear(&instance->facts);
	free(config_dir);
}

/* Those of the configuration. A single queue directory may not be Postfix's: look at that. */
static void find_instances(struct doctor *doctor)
{
	const struct conf_list *queues = &doctor->conf->queue_directories;

	if (doctor->config_dir != NULL) {
		add_instance(doctor, xstrdup(doctor->config_dir));
		return;
	}
	for (size_t i = 0; i < queues->count; i++) {
		struct err err = ERR_INIT;
		char *found = instance_config_dir(queues->item[i], &err);

		if (found == NULL && queues->count == 1)
			found = usual_config_dir();
		if (found != NULL)
			add_instance(doctor, found);
		else if (queues->count > 1)
			doctor_add(doctor, DOCTOR_FAULT,
				   "correct queue_directories; postmulti -l lists the instances",
				   "queue_directories has %s, and no Postfix does: %s",
				   queues->item[i], err.text);
	}
}

void doctor_look_at(struct doctor *doctor, const struct doctor_instance *instance)
{
	static const struct postfix_facts none;

	doctor->looks_at =
		instance != NULL && doctor->instances > 1 ? instance->config_dir : NULL;
	if (instance == NULL && doctor->instances > 0)
		instance = &doctor->instance[0];
	doctor->postfix = instance == NULL ? none : setup_facts_view(&instance->facts);
}

void doctor_clear_instances(struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->instances; i++) {
		setup_facts_clear(&doctor->instance[i].facts);
		free(doctor->instance[i].config_dir);
	}
	free(doctor->instance);
}

/* The process id of master(8), 0 when it does not run, -1 when that can't be seen. */
static long master_pid(const struct doctor *doctor)
{
	char *queue = facts_value(doctor->postfix.expanded, "queue_directory");
	char *path = xasprintf("%s/pid/master.pid", queue);
	FILE *file = fopen(path, "r");
	char line[512] = "", proc[64];
	bool denied = file == NULL && errno == EACCES;
	long pid = 0;

	if (file != NULL && fgets(line, sizeof(line), file) != NULL)
		pid = strtol(line, NULL, 10);
	if (file != NULL)
		(void)fclose(file);
	(void)snprintf(proc, sizeof(proc), "/proc/%ld/stat", pid);
	line[0] = '\0';
	file = fopen(proc, "r");
	/* The file stays behind, and another program may have the number by now. */
	if (file == NULL || fgets(line, sizeof(line), file) == NULL ||
	    strstr(line, "(master) ") == NULL || strstr(line, "(master) Z") != NULL)
		pid = 0;
	if (file != NULL)
		(void)fclose(file);
	free(path);
	free(queue);
	return denied ? -1 : pid;
}

static void check_running(struct doctor *doctor)
{
	char *name = facts_value(doctor->postfix.expanded, "mail_version");
	long pid = master_pid(doctor);

	if (pid > 0)
		doctor_add(doctor, DOCTOR_OK, NULL, "Postfix %s runs, pid %ld", name, pid);
	else if (pid < 0)
		doctor_add(doctor, DOCTOR_UNPROVEN, "run this as root",
			   "whether Postfix %s runs can't be seen", name);
	else
		doctor_add(doctor, DOCTOR_FAULT,
			   "run: postfix start; then look into the mail log",
			   "Postfix does not run");
	free(name);
}

static void check_queue(struct doctor *doctor)
{
	const struct conf_list *queues = &doctor->conf->queue_directories;
	char *queue = facts_value(doctor->postfix.expanded, "queue_directory");
	bool known = false;

	for (size_t i = 0; i < queues->count; i++)
		known |= instance_same_folder(queues->item[i], queue);
	if (!known)
		doctor_add(doctor, DOCTOR_FAULT,
			   "name it in queue_directories, then run: systemctl restart "
			   "relay365-tokend relay365-milter",
			   "queue_directories does not name %s, which is Postfix's: no socket is "
			   "there",
			   queue);
	free(queue);
}

void doctor_postfix(struct doctor *doctor)
{
	size_t before = doctor->findings;

	find_instances(doctor);
	if (doctor->instances == 0 && doctor->findings == before)
		doctor_add(doctor, DOCTOR_UNPROVEN, NULL,
			   "there is no Postfix, or queue_directories = [] says so");
	for (size_t i = 0; i < doctor->instances; i++) {
		doctor_look_at(doctor, &doctor->instance[i]);
		check_queue(doctor);
		check_running(doctor);
	}
}

/* ---- what postconf says ---- */

struct judging {
	struct doctor *doctor;
	size_t count;
};

static void on_finding(void *arg, enum check_grade grade, const char *evidence,
		       const char *action)
{
	struct judging *judging = arg;

	judging->count++;
	doctor_add(judging->doctor, grade == CHECK_FAULT ? DOCTOR_FAULT : DOCTOR_WARNING, action,
		   "%s", evidence);
}

void doctor_wiring(struct doctor *doctor)
{
	struct judging judging = {doctor, 0};

	check_wiring(doctor->conf, &doctor->postfix, on_finding, &judging);
	if (judging.count == 0)
		doctor_add(doctor, DOCTOR_OK, NULL,
			   "services, the map of senders and the milter are in place");
}

void doctor_settings(struct doctor *doctor)
{
	struct judging judging = {doctor, 0};

	check_settings(doctor->conf, &doctor->postfix, on_finding, &judging);
	if (judging.count == 0)
		doctor_add(doctor, DOCTOR_OK, NULL, "none found");
}

/* ---- the plugin ---- */

/* Reads /proc/PID/environ; "" when it may not be read. NULs become line feeds. */
static void environment_of(long pid, struct buf *to)
{
	char path[64];
	FILE *file;
	int c;

	(void)snprintf(path, sizeof(path), "/proc/%ld/environ", pid);
	file = fopen(path, "r");
	while (file != NULL && (c = getc(file)) != EOF)
		(void)buf_addf(to, "%c", c == '\0' ? '\n' : c);
	if (file != NULL)
		(void)fclose(file);
}

static long parent_of(const char *pid)
{
	char path[300], line[512] = "";
	const char *at;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	file = fopen(path, "r");
	if (file != NULL && fgets(line, sizeof(line), file) == NULL)
		line[0] = '\0';
	if (file != NULL)
		(void)fclose(file);
	/* "12 (qmgr) S 11 ...": the name may hold anything, so look from its end. */
	at = strrchr(line, ')');
	return at == NULL || strlen(at) < 5 ? 0 : strtol(at + 4, NULL, 10);
}

/* What master(8) gives its children: -1 when that can't be seen, else whether ours is in. */
static int running_has_plugin(const struct doctor *doctor)
{
	long master = master_pid(doctor);
	DIR *dir = master == 0 ? NULL : opendir("/proc");
	struct dirent *entry;
	int found = -1;

	while (dir != NULL && found < 0 && (entry = readdir(dir)) != NULL) {
		struct buf environment = BUF_INIT(ENVIRONMENT_MAX);

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
		    parent_of(entry->d_name) != master)
			continue;
		environment_of(strtol(entry->d_name, NULL, 10), &environment);
		if (environment.len > 0) {
			const char *path = strstr(buf_text(&environment), "SASL_PATH=");

			found = path != NULL && strncmp(path, "SASL_PATH=", 10) == 0;
		}
		buf_clear(&environment);
	}
	if (dir != NULL)
		(void)closedir(dir);
	return found;
}

/* The plugin in one of the folders of a list with colons; the caller frees. */
static char *find_plugin(const char *path)
{
	while (path[0] != '\0') {
		size_t len = strcspn(path, ": ");
		char *file = xasprintf("%.*s/librelay365.so", (int)len, path);

		if (access(file, R_OK) == 0)
			return file;
		free(file);
		path += len;
		if (path[0] != ':')
			break;
		path++;
	}
	return NULL;
}

/* In the folders that Postfix looks into, or the system's. */
static void list_others(struct doctor *doctor, const char *path)
{
	while (path[0] != '\0' && path[0] != ' ') {
		size_t len = strcspn(path, ": ");
		char *pattern = xasprintf("%.*s/*xoauth2*.so", (int)len, path);
		glob_t found = {0};

		if (glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc > 0)
			doctor_add(
				doctor, DOCTOR_WARNING,
				"remove it if nothing else uses it; Postfix prefers relay365's",
				"%s is another plugin for XOAUTH2", found.gl_pathv[0]);
		globfree(&found);
		free(pattern);
		path += len;
		path += path[0] == ':';
	}
}

void doctor_plugin(struct doctor *doctor)
{
	char *environment, *plugin = NULL;
	const char *path;

	environment = facts_value(doctor->postfix.expanded, "import_environment");
	path = strstr(environment, "SASL_PATH=");
	if (path != NULL)
		plugin = find_plugin(path + strlen("SASL_PATH="));
	if (path == NULL)
		doctor_add(doctor, DOCTOR_FAULT, "run relay365 setup postfix --apply",
			   "import_environment has no SASL_PATH, so Postfix does not find the "
			   "plugin");
	else if (plugin == NULL)
		doctor_add(doctor, DOCTOR_FAULT,
			   "install relay365 again, or correct SASL_PATH in import_environment",
			   "librelay365.so is in none of the folders of %s", path);
	else if (running_has_plugin(doctor) == 0)
		doctor_add(doctor, DOCTOR_FAULT, "run: postfix stop; postfix start",
			   "Postfix was started before SASL_PATH was in import_environment, and "
			   "does not know it");
	else
		doctor_add(doctor, DOCTOR_OK, NULL, "%s", plugin);
	list_others(doctor, path != NULL ? path + strlen("SASL_PATH=") : SYSTEM_SASL_FOLDER);
	free(plugin);
	free(environment);
}
