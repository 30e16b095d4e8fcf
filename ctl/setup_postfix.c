/* relay365 setup postfix: what would change, --apply, --undo. */
#include "ctl/setup.h"

#include "base/file.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "ctl/child.h"
#include "ctl/instance.h"
#include "postfix/edit.h"
#include "postfix/generate.h"
#include "postfix/merge.h"

#include <errno.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

enum which { SENDER_TRANSPORT, REPLY_FILTER, MASTER, MAIN, FILES };

/* From relay365's files to main.cf: what names another file comes after it. */
struct work {
	const struct ctl *ctl;
	char *config_dir;
	char *queue_dir;
	struct setup_file file[FILES];
	struct buf notes;
	bool restart; /* Postfix must be stopped and started */
};

/* ---- which Postfix ---- */

/* The first line of what a command prints, or NULL. */
static char *first_line(const char *const argv[])
{
	struct buf text = BUF_INIT(64 * 1024), errors = BUF_INIT(64 * 1024);
	char *line = NULL;

	if (child_exec(argv, NULL, &text, &errors, SETUP_TIMEOUT_MS) == 0)
		line = xstrndup(buf_text(&text), strcspn(buf_text(&text), "\n"));
	buf_clear(&text);
	buf_clear(&errors);
	return line;
}

static int choose(struct work *work, const char *given, struct err *err)
{
	const char *const where[] = {"postconf", "-dh", "config_directory", NULL};
	char *found = given != NULL ? xstrdup(given) : first_line(where);
	char *others;

	if (found == NULL)
		return err_set(err, ERR_CONFIG,
			       "postconf is not found; is Postfix installed? relay365 setup "
			       "postfix --print shows what would go into it");
	work->config_dir = realpath(found, NULL);
	if (work->config_dir == NULL)
		err_set(err, ERR_CONFIG, "there is no folder %s: %s", found, err_no(errno));
	free(found);
	if (work->config_dir == NULL)
		return -1;
	if (given != NULL)
		return 0;
	others = first_line((const char *const[]){"postconf", "-c", work->config_dir, "-hx",
						  "multi_instance_directories", NULL});
	if (others != NULL && others[0] != '\0')
		err_set(err, ERR_CONFIG,
			"this machine has several Postfix instances; say which one: --config-dir "
			"%s, or one of: %s",
			work->config_dir, others);
	else
		err->class = ERR_NONE;
	free(others);
	return err->class == ERR_NONE ? 0 : -1;
}

/* ---- what each file is to hold ---- */

static int read_files(struct work *work, struct err *err)
{
	const struct conf *conf = work->ctl->conf;
	char *folder = conf == NULL ? NULL : generate_folder(conf);
	const struct {
		enum which which;
		const char *folder;
		const char *name;
	} files[FILES] = {{SENDER_TRANSPORT, folder, "sender_transport"},
			  {REPLY_FILTER, folder, "reply_filter"},
			  {MASTER, work->config_dir, "master.cf"},
			  {MAIN, work->config_dir, "main.cf"}};
	int result = 0;

	/* Without a configuration only Postfix's own are looked at. */
	for (size_t i = conf == NULL ? MASTER : 0; result == 0 && i < FILES; i++) {
		struct setup_file *file = &work->file[files[i].which];
		char *path = xasprintf("%s/%s", files[i].folder, files[i].name);

		result = setup_file_read(file, path, err);
		if (result == 0 && i >= MASTER && !file->exists)
			result = err_set(
				err, ERR_CONFIG,
				"there is no %s: Postfix is not configured; on Debian run "
				"dpkg-reconfigure postfix",
				path);
		free(path);
	}
	free(folder);
	return result;
}

static int undo_texts(struct work *work, struct buf *main_cf, struct buf *master_cf,
		      struct err *err)
{
	if (edit_undo(buf_text(&work->file[MAIN].old), main_cf, err) < 0)
		return err_add(err, "%s", work->file[MAIN].path);
	if (edit_undo(buf_text(&work->file[MASTER].old), master_cf, err) < 0)
		return err_add(err, "%s", work->file[MASTER].path);
	return 0;
}

static int check_queue(struct work *work, const struct postfix_facts *facts, struct err *err)
{
	const struct conf_list *known = &work->ctl->conf->queue_directories;

	work->queue_dir = facts_value(facts->expanded, "queue_directory");
	for (size_t i = 0; i < known->count; i++)
		if (instance_same_folder(known->item[i], work->queue_dir))
			return 0;
	return err_set(
		err, ERR_CONFIG,
		"%s: queue_directories does not name this Postfix; set queue_directories = "
		"[\"%s\"] and run systemctl restart relay365-tokend relay365-milter",
		work->ctl->conf->path, work->queue_dir);
}

static void add_complaints(struct work *work, const struct setup_facts *before,
			   const struct setup_facts *after)
{
	const char *line = buf_text(&after->complaints);

	for (; line[0] != '\0'; line += strcspn(line, "\n"), line += line[0] == '\n') {
		char *text = xstrndup(line, strcspn(line, "\n"));

		if (strstr(buf_text(&before->complaints), text) == NULL &&
		    strstr(buf_text(&work->notes), text) == NULL)
			(void)buf_addf(&work->notes, "%s\n", text);
		free(text);
	}
}

/* What postconf says of the result, before it counts. */
static int try_result(struct work *work, const char *mirror, const struct setup_facts *before,
		      struct err *err)
{
	struct setup_facts after = {.complaints = BUF_INIT(0)};
	int result = setup_mirror_write(mirror, buf_text(&work->file[MAIN].new),
					buf_text(&work->file[MASTER].new), err);

	if (result == 0) {
		result = setup_facts_read(mirror, &after, err);
		add_complaints(work, before, &after);
		setup_facts_clear(&after);
	}
	return result;
}

static int make_texts(struct work *work, const struct postfix_facts *facts, struct err *err)
{
	const struct conf *conf = work->ctl->conf;
	struct buf services = BUF_INIT(GENERATE_MAX);
	struct merge merge;
	int result;

	merge_main(conf, facts, &merge);
	generate_master(conf, facts_chroot(facts->services, "smtp", "unix"), &services);
	generate_sender_transport(conf, &work->file[SENDER_TRANSPORT].new);
	generate_reply_filter(&work->file[REPLY_FILTER].new);
	result = edit_main(buf_text(&work->file[MAIN].old), merge.parameter, merge.count,
			   &work->file[MAIN].new, err);
	if (result == 0)
		result = edit_master(buf_text(&work->file[MASTER].old), buf_text(&services),
				     &work->file[MASTER].new, err);
	(void)buf_adds(&work->notes, buf_text(&merge.notes));
	setup_notes(conf, facts, &work->notes);
	for (size_t i = 0; i < merge.count; i++)
		if (strcmp(merge.parameter[i].name, "import_environment") == 0 &&
		    strstr(buf_text(&work->file[MAIN].old), merge.parameter[i].value) == NULL)
			work->restart = true;
	merge_clear(&merge);
	buf_clear(&services);
	return result;
}

static int plan(struct work *work, struct err *err)
{
	struct buf main_cf = BUF_INIT(EDIT_MAX), master_cf = BUF_INIT(EDIT_MAX);
	struct setup_facts before = {.complaints = BUF_INIT(0)};
	char *mirror = setup_mirror_make(work->config_dir, err);
	int result = -1;

	if (mirror != NULL && undo_texts(work, &main_cf, &master_cf, err) == 0 &&
	    setup_mirror_write(mirror, buf_text(&main_cf), buf_text(&master_cf), err) == 0 &&
	    setup_facts_read(mirror, &before, err) == 0) {
		struct postfix_facts facts = setup_facts_view(&before);

		if (check_queue(work, &facts, err) == 0 && make_texts(work, &facts, err) == 0)
			result = try_result(work, mirror, &before, err);
	}
	setup_facts_clear(&before);
	setup_mirror_remove(&mirror);
	buf_clear(&main_cf);
	buf_clear(&master_cf);
	return result;
}

/* ---- doing it ---- */

/* The state without relay365, for an admin who would rather look than undo. */
static int keep_copies(const struct work *work, struct err *err)
{
	struct buf main_cf = BUF_INIT(EDIT_MAX), master_cf = BUF_INIT(EDIT_MAX);
	struct work copy = *work;
	char *folder = generate_folder(work->ctl->conf);
	const char *name = strrchr(work->config_dir, '/') + 1;
	char *backup = xasprintf("%s/backup-%s", folder, name);
	char *main_path = xasprintf("%s/main.cf", backup);
	char *master_path = xasprintf("%s/master.cf", backup);
	int result = -1;

	if (mkdir(folder, 0755) < 0 && errno != EEXIST)
		err_set(err, ERR_CONFIG, "cannot make the folder %s: %s", folder, err_no(errno));
	else if (file_make_folder(backup, err) == 0 &&
		 undo_texts(&copy, &main_cf, &master_cf, err) == 0 &&
		 file_replace(main_path, buf_text(&main_cf), main_cf.len, work->file[MAIN].mode,
			      err) == 0)
		result = file_replace(master_path, buf_text(&master_cf), master_cf.len,
				      work->file[MASTER].mode, err);
	free(folder);
	free(backup);
	free(main_path);
	free(master_path);
	buf_clear(&main_cf);
	buf_clear(&master_cf);
	return result;
}

static int make_folder_of(const char *path, const struct passwd *user)
{
	if (mkdir(path, 0750) < 0)
		return errno == EEXIST ? 0 : -1;
	return chown(path, user->pw_uid, sock_group("postfix")) < 0 ? -1 : chmod(path, 02750);
}

/* tmpfiles.d makes these at boot in Postfix's own queue directory, and in no other. */
static void make_folder(const struct work *work, const char *name)
{
	char *path = xasprintf("%s/%s", work->queue_dir, name);
	const struct passwd *user = getpwnam(name);

	if (user != NULL && make_folder_of(path, user) < 0)
		(void)fprintf(stderr, "relay365: cannot make %s for %s: %s\n", path, name,
			      err_no(errno));
	free(path);
}

static int postfix_check(const struct work *work, struct err *err)
{
	const char *const argv[] = {"postfix", "-c", work->config_dir, "check", NULL};
	struct buf said = BUF_INIT(64 * 1024);
	int status = child_exec(argv, NULL, &said, &said, SETUP_TIMEOUT_MS);
	const char *why = child_complaint(buf_text(&said));

	if (status != 0)
		err_set(err, ERR_CONFIG, "postfix check fails, see the mail log%s%.*s",
			why[0] == '\0' ? "" : ": ", (int)strcspn(why, "\n"), why);
	buf_clear(&said);
	return status == 0 ? 0 : -1;
}

/* All files, or none. */
static int change_files(const struct work *work, struct err *err)
{
	struct err worse = ERR_INIT;
	int done = 0, result = 0;

	while (result == 0 && done < FILES) {
		if (setup_file_differs(&work->file[done]))
			result = setup_file_write(&work->file[done], err);
		done++;
	}
	if (result == 0)
		result = postfix_check(work, err);
	if (result == 0)
		return 0;
	for (int i = done - 1; i >= 0; i--)
		if (setup_file_differs(&work->file[i]) &&
		    setup_file_restore(&work->file[i], &worse) < 0)
			return err_add(err, "%s, and it is left half changed", worse.text);
	return err_add(err, "nothing is changed");
}

static bool differs(const struct work *work)
{
	for (int i = 0; i < FILES; i++)
		if (setup_file_differs(&work->file[i]))
			return true;
	return false;
}

static int apply(struct work *work, struct err *err)
{
	if (differs(work) && (keep_copies(work, err) < 0 || change_files(work, err) < 0))
		return -1;
	/* The check that ends a change has made a queue directory that was missing. */
	make_folder(work, "relay365");
	make_folder(work, "relay365m");
	return 0;
}

/* ---- saying it ---- */

static const char *next_step(const struct work *work, bool changed)
{
	if (!differs(work))
		return "Nothing is to be changed.";
	if (!changed)
		return "Nothing was changed. To do it: relay365 setup postfix --apply";
	if (work->restart)
		return "Now stop Postfix and start it: postfix stop; postfix start (a reload "
		       "does "
		       "not bring SASL_PATH in).";
	return "Now run: postfix reload";
}

static void print_notes(const char *notes)
{
	while (notes[0] != '\0') {
		int len = (int)strcspn(notes, "\n");

		(void)printf("Note: %.*s.\n", len, notes);
		notes += len + (notes[len] == '\n');
	}
}

static int print_work(const struct work *work, bool changed)
{
	struct buf diff = BUF_INIT(SETUP_OUTPUT_MAX);
	cJSON *json, *files;

	for (int i = 0; i < FILES; i++)
		setup_file_diff(&work->file[i], &diff);
	if (!work->ctl->json) {
		if (!changed)
			(void)fputs(buf_text(&diff), stdout);
		print_notes(buf_text(&work->notes));
		(void)puts(next_step(work, changed));
		buf_clear(&diff);
		return CTL_OK;
	}
	json = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(json, "config_dir", work->config_dir);
	(void)cJSON_AddBoolToObject(json, "changed", changed && differs(work));
	files = cJSON_AddArrayToObject(json, "files");
	for (int i = 0; i < FILES; i++)
		if (setup_file_differs(&work->file[i]))
			(void)cJSON_AddItemToArray(files, cJSON_CreateString(work->file[i].path));
	(void)cJSON_AddStringToObject(json, "diff", buf_text(&diff));
	(void)cJSON_AddStringToObject(json, "notes", buf_text(&work->notes));
	(void)cJSON_AddStringToObject(json, "next", next_step(work, changed));
	buf_clear(&diff);
	return ctl_print_json(json, CTL_OK);
}

/* Takes our marks out; what --apply wrote beside Postfix's own files may stay. */
static int undo(struct work *work, struct err *err)
{
	if (undo_texts(work, &work->file[MAIN].new, &work->file[MASTER].new, err) < 0)
		return -1;
	work->restart = strstr(buf_text(&work->file[MAIN].old), "SASL_PATH=") != NULL;
	return differs(work) ? change_files(work, err) : 0;
}

struct wish {
	bool apply, undo, print;
	const char *config_dir;
};

static int run(const struct ctl *ctl, const struct wish *wish)
{
	struct work work = {.ctl = ctl, .notes = BUF_INIT(128 * 1024)};
	struct err err = ERR_INIT;
	int result = choose(&work, wish->config_dir, &err), status;

	if (result == 0)
		result = read_files(&work, &err);
	if (result == 0)
		result = wish->undo ? undo(&work, &err) : plan(&work, &err);
	if (result == 0 && wish->apply)
		result = apply(&work, &err);
	if (result == 0)
		status = print_work(&work, wish->apply || wish->undo);
	else
		status = ctl_print_error(ctl, &err,
					 err.class == ERR_TEMP ? CTL_PROBLEM : CTL_CONFIG);
	for (int i = 0; i < FILES; i++)
		setup_file_clear(&work.file[i]);
	buf_clear(&work.notes);
	free(work.config_dir);
	free(work.queue_dir);
	return status;
}

static int read_wish(const struct ctl *ctl, struct wish *wish)
{
	const struct ctl_option options[] = {{"--apply", &wish->apply, NULL},
					     {"--undo", &wish->undo, NULL},
					     {"--print", &wish->print, NULL},
					     {"--config-dir", NULL, &wish->config_dir}};
	const char **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest);

	free(rest);
	return n == 0 && wish->apply + wish->undo + wish->print <= 1 ? 0 : -1;
}

static int with_conf(const struct ctl *ctl)
{
	struct wish wish = {.config_dir = NULL};

	(void)read_wish(ctl, &wish);
	if (wish.print || (ctl->json && !wish.apply && wish.config_dir == NULL))
		return setup_print(ctl);
	return run(ctl, &wish);
}

int setup_postfix(const struct ctl *ctl)
{
	struct wish wish = {.config_dir = NULL};

	if (read_wish(ctl, &wish) < 0) {
		(void)fputs("usage: relay365 [-c FILE] setup postfix [--apply|--undo|--print] "
			    "[--config-dir DIR]\n",
			    stderr);
		return CTL_USAGE;
	}
	/* What is done can be undone whatever became of the configuration. */
	return wish.undo ? run(ctl, &wish) : ctl_with_conf(ctl, with_conf);
}
