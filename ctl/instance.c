#include "ctl/instance.h"

#include "base/file.h"
#include "base/xalloc.h"
#include "ctl/child.h"

#include <ctype.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARGS_MAX = 12, TEXT_MAX = 64 * 1024, QUEUE_MAX = 512 << 20 };

int instance_run(const char *config_dir, const char *command, const char *const *args,
		 const char *input, struct buf *output, struct err *err)
{
	struct buf errors = BUF_INIT(TEXT_MAX);
	const char *argv[ARGS_MAX], *why;
	size_t n = 0;
	int status;

	argv[n++] = command;
	if (config_dir != NULL) {
		argv[n++] = "-c";
		argv[n++] = config_dir;
	}
	while (*args != NULL && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	argv[n] = NULL;
	status = child_exec(argv, input, output, &errors, INSTANCE_TIMEOUT_MS);
	why = child_complaint(buf_text(&errors));
	if (status == 0 && output->overflowed)
		err_set(err, ERR_TEMP, "%s tells more than %zu bytes", command, output->max);
	else if (status == 127)
		err_set(err, ERR_CONFIG, "%s is not found; is Postfix installed?", command);
	else if (status != 0)
		err_set(err, ERR_TEMP, "%s failed: %.*s", command, (int)strcspn(why, "\n"), why);
	buf_clear(&errors);
	return status == 0 && !output->overflowed ? 0 : -1;
}

char *instance_parameter(const char *config_dir, const char *name, struct err *err)
{
	const char *const args[] = {"-hx", name, NULL};
	struct buf text = BUF_INIT(TEXT_MAX);
	char *value = NULL;

	if (instance_run(config_dir, "postconf", args, NULL, &text, err) == 0)
		value = xstrndup(buf_text(&text), strcspn(buf_text(&text), "\n"));
	buf_clear(&text);
	return value;
}

/* MAIL_CONFIG in the environment of the queue's master, to be freed; NULL: it does not run. */
static char *config_of_master(const char *queue_dir)
{
	static const char name[] = "MAIL_CONFIG=";
	struct buf pid = BUF_INIT(64), env = BUF_INIT(1 << 20);
	char *path = xasprintf("%s/pid/master.pid", queue_dir), *found = NULL;
	const char *number;
	int result = file_read(path, &pid, NULL);

	free(path);
	number = buf_text(&pid);
	while (isspace((unsigned char)*number))
		number++;
	path = xasprintf("/proc/%.*s/environ", (int)strspn(number, "0123456789"), number);
	if (result == 0)
		result = file_read(path, &env, NULL);
	for (size_t at = 0; result == 0 && at < env.len; at += strlen(env.data + at) + 1)
		if (strncmp(env.data + at, name, sizeof(name) - 1) == 0)
			found = xstrdup(env.data + at + sizeof(name) - 1);
	free(path);
	buf_clear(&pid);
	buf_clear(&env);
	return found;
}

bool instance_same_folder(const char *a, const char *b)
{
	struct stat x, y;

	return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 &&
				     x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

static bool owns(const char *config_dir, const char *queue_dir, struct err *err)
{
	char *its = instance_parameter(config_dir, "queue_directory", err);
	bool same = its != NULL && instance_same_folder(its, queue_dir);

	free(its);
	return same;
}

/* One of the folders in Postfix's multi_instance_directories, to be freed. */
static char *one_of_several(const char *queue_dir)
{
	char *all = instance_parameter(NULL, "multi_instance_directories", NULL), *found = NULL;

	for (const char *at = all; at != NULL && *at != '\0' && found == NULL;) {
		size_t n = strcspn(at, ", \t");
		char *folder = xstrndup(at, n);

		if (n > 0 && owns(folder, queue_dir, NULL))
			found = folder;
		else
			free(folder);
		at += n + (at[n] != '\0');
	}
	free(all);
	return found;
}

char *instance_config_dir(const char *queue_dir, struct err *err)
{
	char *found = config_of_master(queue_dir);
	struct err why = ERR_INIT;

	if (found != NULL && owns(found, queue_dir, NULL))
		return found;
	free(found);
	if (owns(NULL, queue_dir, &why))
		return instance_parameter(NULL, "config_directory", err);
	found = one_of_several(queue_dir);
	if (found == NULL && why.class == ERR_CONFIG) /* there is no postconf */
		err_set(err, why.class, "%s", why.text);
	else if (found == NULL)
		err_set(err, ERR_CONFIG,
			"no Postfix on this machine has the queue directory %s; look at "
			"queue_directories%s",
			queue_dir, geteuid() == 0 ? "" : ", or run this as root");
	return found;
}

int instance_queue(const char *config_dir, void (*each)(void *arg, const cJSON *message),
		   void *arg, struct err *err)
{
	const char *const args[] = {"-j", NULL};
	struct buf queue = BUF_INIT(QUEUE_MAX);

	if (instance_run(config_dir, "postqueue", args, NULL, &queue, err) < 0) {
		buf_clear(&queue);
		return -1;
	}
	for (const char *line = buf_text(&queue); *line != '\0';) {
		size_t len = strcspn(line, "\n");
		cJSON *message = cJSON_ParseWithLength(line, len);

		if (message != NULL)
			each(arg, message);
		cJSON_Delete(message);
		line += len + (line[len] == '\n');
	}
	buf_clear(&queue);
	return 0;
}
