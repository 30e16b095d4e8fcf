#include "alarm/alarm.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/plain.h"
#include "base/xalloc.h"
#include "proto/json_time.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
	RETRY_MS = 300000,  /* after a notice that could not be delivered */
	NOTICE_MAX = 16384, /* bytes of JSON: a new pipe takes 64 KB without waiting */
};

struct incident {
	char id[ALARM_ID_MAX + 1];
	int level;   /* 0: it is over */
	int told;    /* the level an admin knows of */
	int telling; /* with pid: what the notice under way says */
	pid_t pid;   /* 0: no notice is under way */
	int64_t since_wall_ms;
	int64_t next_boot_ms; /* no notice before */
	char what[ALARM_TEXT_MAX];
	char action[ALARM_TEXT_MAX];
	struct incident *next;
};

/* The one book of this program. */
static struct {
	pthread_mutex_t lock;
	const char *daemon; /* NULL: not open */
	char *folder;
	char *command; /* the relay365 command */
	char *conf_path;
	cJSON *settings; /* for the notices: a file that is being edited must not stop them */
	bool tells;	 /* alarm_command or alarm_url is set */
	struct incident *first;
	size_t incidents;
	unsigned int children;
} book = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- what was told, on disk ---- */

static char *record_path(const char *id)
{
	char *path = xasprintf("%s/%s", book.folder, id);

	for (char *p = path + strlen(book.folder) + 1; *p != '\0'; p++)
		if (*p == '/')
			*p = ':';
	return path;
}

static void copy_text(const cJSON *json, const char *name, char *to, size_t cap)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

	(void)snprintf(to, cap, "%s", text == NULL ? "" : text);
}

static struct incident *add_incident(const char *id)
{
	struct incident *incident = xcalloc(1, sizeof(*incident));

	(void)snprintf(incident->id, sizeof(incident->id), "%s", id);
	incident->next = book.first;
	book.first = incident;
	book.incidents++;
	return incident;
}

static void read_record(const char *path)
{
	struct buf text = BUF_INIT(NOTICE_MAX);
	const cJSON *level, *since;
	cJSON *json = NULL;
	char id[ALARM_ID_MAX + 1];

	if (file_read(path, &text, NULL) == 0)
		json = cJSON_ParseWithLength(buf_text(&text), text.len);
	copy_text(json, "id", id, sizeof(id));
	level = cJSON_GetObjectItemCaseSensitive(json, "level");
	since = cJSON_GetObjectItemCaseSensitive(json, "since_ms");
	if (id[0] != '\0' && cJSON_IsNumber(level) && level->valueint > 0 &&
	    cJSON_IsNumber(since) && book.incidents < ALARM_INCIDENTS_MAX) {
		struct incident *incident = add_incident(id);

		incident->level = incident->told = level->valueint;
		incident->since_wall_ms = (int64_t)since->valuedouble;
		copy_text(json, "what", incident->what, sizeof(incident->what));
		copy_text(json, "action", incident->action, sizeof(incident->action));
	}
	cJSON_Delete(json);
	buf_clear(&text);
}

static void read_records(void)
{
	DIR *folder = opendir(book.folder);
	const struct dirent *entry;

	if (folder == NULL)
		return;
	while ((entry = readdir(folder)) != NULL) {
		char *path = xasprintf("%s/%s", book.folder, entry->d_name);

		if (entry->d_name[0] != '.')
			read_record(path);
		free(path);
	}
	(void)closedir(folder);
}

/* ---- notices ---- */

static char *notice_text(const struct incident *incident)
{
	char *path = record_path(incident->id);
	cJSON *json = cJSON_CreateObject();
	char *text;

	(void)cJSON_AddStringToObject(json, "event", incident->level > 0 ? "alarm" : "recovery");
	(void)cJSON_AddStringToObject(json, "id", incident->id);
	(void)cJSON_AddNumberToObject(json, "level", incident->level);
	(void)cJSON_AddStringToObject(json, "daemon", book.daemon);
	json_add_time(json, "since", incident->since_wall_ms);
	(void)cJSON_AddNumberToObject(json, "since_ms", (double)incident->since_wall_ms);
	json_add_time(json, "at", clock_wall_ms());
	(void)cJSON_AddStringToObject(json, "what", incident->what);
	(void)cJSON_AddStringToObject(json, "action", incident->action);
	(void)cJSON_AddStringToObject(json, "record", path);
	(void)cJSON_AddItemToObject(json, "settings", cJSON_Duplicate(book.settings, true));
	text = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	free(path);
	return text;
}

/* Starts `relay365 alarm` with fd as its standard input. */
static pid_t start_process(int fd)
{
	char *const argv[] = {book.command, (char[]){"-c"}, book.conf_path, (char[]){"alarm"},
			      NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t how;
	sigset_t none, pipe_only;
	pid_t pid = 0;
	int error;

	(void)sigemptyset(&none);
	(void)sigemptyset(&pipe_only);
	(void)sigaddset(&pipe_only, SIGPIPE);
	if (posix_spawn_file_actions_init(&actions) != 0)
		return 0;
	if (posix_spawnattr_init(&how) != 0) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return 0;
	}
	(void)posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
	(void)posix_spawnattr_setsigmask(&how, &none);
	(void)posix_spawnattr_setsigdefault(&how, &pipe_only);
	(void)posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	error = posix_spawn(&pid, book.command, &actions, &how, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&how);
	if (error == 0)
		return pid;
	log_say(EV_FAULT, "cannot start %s to tell of an alarm: %s", book.command, err_no(error));
	return 0;
}

static void tell(struct incident *incident)
{
	char *text = notice_text(incident);
	size_t len = text == NULL ? 0 : strlen(text);
	int end[2];

	incident->next_boot_ms = clock_boot_ms() + RETRY_MS;
	if (len > 0 && len <= NOTICE_MAX && pipe2(end, O_CLOEXEC) == 0) {
		if (write(end[1], text, len) == (ssize_t)len)
			incident->pid = start_process(end[0]);
		(void)close(end[0]);
		(void)close(end[1]);
	}
	if (incident->pid != 0) {
		incident->telling = incident->level;
		book.children++;
	}
	cJSON_free(text);
}

/* It is not so bad any more: should it get as bad as it was, that is news. */
static void ease(struct incident *incident, int level)
{
	if (incident->told > level)
		incident->told = level;
	if (incident->telling > level)
		incident->telling = level;
}

static bool is_to_tell(const struct incident *incident)
{
	return incident->pid == 0 &&
	       (incident->level == 0 ? incident->told > 0 : incident->level > incident->told);
}

static void look_after(struct incident *incident)
{
	int status = 0;

	if (incident->pid != 0) {
		pid_t pid = waitpid(incident->pid, &status, WNOHANG);

		if (pid == 0 || (pid < 0 && errno == EINTR))
			return;
		incident->pid = 0;
		book.children--;
		if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			incident->told = incident->telling;
			incident->next_boot_ms = 0;
		}
	}
	if (!book.tells)
		incident->told = incident->level;
	else if (is_to_tell(incident) && book.children < ALARM_CHILDREN_MAX &&
		 clock_boot_ms() >= incident->next_boot_ms)
		tell(incident);
}

static void look_after_all(void)
{
	struct incident **at = &book.first;

	while (*at != NULL) {
		struct incident *incident = *at;

		look_after(incident);
		if (incident->level > 0 || incident->told > 0 || incident->pid != 0) {
			at = &incident->next;
			continue;
		}
		*at = incident->next;
		free(incident);
		book.incidents--;
	}
}

void alarms_tick(void)
{
	(void)pthread_mutex_lock(&book.lock);
	look_after_all();
	(void)pthread_mutex_unlock(&book.lock);
}

/* ---- incidents ---- */

static struct incident *find(const char *id)
{
	for (struct incident *i = book.first; i != NULL; i = i->next)
		if (strcmp(i->id, id) == 0)
			return i;
	return NULL;
}

void alarm_raise(const char *id, int level, const char *what, const char *action)
{
	struct incident *incident;

	(void)pthread_mutex_lock(&book.lock);
	incident = book.daemon == NULL ? NULL : find(id);
	if (incident == NULL && book.daemon != NULL && book.incidents < ALARM_INCIDENTS_MAX)
		incident = add_incident(id);
	if (incident != NULL) {
		if (incident->level == 0 && incident->told == 0)
			incident->since_wall_ms = clock_wall_ms();
		incident->level = level;
		ease(incident, level);
		(void)snprintf(incident->what, sizeof(incident->what), "%s", what);
		(void)plain(incident->what);
		(void)snprintf(incident->action, sizeof(incident->action), "%s", action);
		look_after_all();
	}
	(void)pthread_mutex_unlock(&book.lock);
}

void alarm_clear(const char *id)
{
	struct incident *incident;

	(void)pthread_mutex_lock(&book.lock);
	incident = find(id);
	if (incident != NULL && incident->level > 0) {
		incident->level = 0;
		look_after_all();
	}
	(void)pthread_mutex_unlock(&book.lock);
}

cJSON *alarms_status(void)
{
	cJSON *list = cJSON_CreateArray();

	(void)pthread_mutex_lock(&book.lock);
	for (const struct incident *i = book.first; i != NULL; i = i->next) {
		cJSON *json;

		if (i->level == 0)
			continue;
		json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "id", i->id);
		json_add_time(json, "since", i->since_wall_ms);
		(void)cJSON_AddStringToObject(json, "what", i->what);
		(void)cJSON_AddStringToObject(json, "action", i->action);
		(void)cJSON_AddItemToArray(list, json);
	}
	(void)pthread_mutex_unlock(&book.lock);
	return list;
}

/* ---- life ---- */

void alarms_open(const char *daemon, const char *folder, const struct conf *conf)
{
	const char *command = getenv("RELAY365_COMMAND");

	(void)pthread_mutex_lock(&book.lock);
	book.daemon = daemon;
	book.folder = xstrdup(folder);
	book.command = xstrdup(command == NULL ? RELAY365_BINDIR "/relay365" : command);
	if (file_make_folder(folder, NULL) == 0) /* else a restart tells once more */
		read_records();
	(void)pthread_mutex_unlock(&book.lock);
	alarms_configure(conf);
}

static cJSON *settings_of(const struct conf *conf)
{
	cJSON *json = cJSON_CreateObject(), *queues;

	(void)cJSON_AddStringToObject(json, "alarm_command", conf->alarm_command);
	(void)cJSON_AddStringToObject(json, "alarm_url", conf->alarm_url);
	(void)cJSON_AddStringToObject(json, "postmaster", conf->postmaster);
	(void)cJSON_AddBoolToObject(json, "log_to_stderr", conf->log_to_stderr);
	(void)cJSON_AddBoolToObject(json, "log_json", conf->log_json);
	queues = cJSON_AddArrayToObject(json, "queue_directories");
	for (size_t i = 0; i < conf->queue_directories.count; i++)
		(void)cJSON_AddItemToArray(queues,
					   cJSON_CreateString(conf->queue_directories.item[i]));
	return json;
}

void alarms_configure(const struct conf *conf)
{
	(void)pthread_mutex_lock(&book.lock);
	free(book.conf_path);
	book.conf_path = xstrdup(conf->path);
	cJSON_Delete(book.settings);
	book.settings = settings_of(conf);
	book.tells = conf->alarm_command[0] != '\0' || conf->alarm_url[0] != '\0';
	(void)pthread_mutex_unlock(&book.lock);
}

void alarms_close(void)
{
	(void)pthread_mutex_lock(&book.lock);
	while (book.first != NULL) {
		struct incident *incident = book.first;

		book.first = incident->next;
		free(incident);
	}
	free(book.folder);
	free(book.command);
	free(book.conf_path);
	cJSON_Delete(book.settings);
	book.settings = NULL;
	book.folder = book.command = book.conf_path = NULL;
	book.daemon = NULL;
	book.incidents = book.children = 0;
	(void)pthread_mutex_unlock(&book.lock);
}
