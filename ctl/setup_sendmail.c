/* relay365 setup sendmail: what would change, --apply, --undo. */
#include "ctl/setup.h"

#include "base/file.h"
#include "base/xalloc.h"
#include "ctl/child.h"
#include "sendmail/generate.h"

#include <errno.h>
#include <sys/stat.h>

#define CONFIG_DIR "/etc/mail"

/* In the order in which they are written: m4 reads the first for the third. */
enum which { FEATURE, MC, CF, FILES };

struct work {
	const struct ctl *ctl;
	const char *config_dir;
	const char *feature_file;
	struct setup_file file[FILES];
	struct buf notes;
};

/* ---- what each file is to hold ---- */

static int read_one(struct work *work, enum which which, char *path, struct err *err)
{
	int result = setup_file_read(&work->file[which], path, err);

	if (result == 0 && which != FEATURE && !work->file[which].exists)
		result = err_set(err, ERR_CONFIG,
				 "there is no %s; say with --config-dir where Sendmail's is",
				 path);
	free(path);
	return result;
}

static int read_files(struct work *work, struct err *err)
{
	char *cf;

	if (read_one(work, MC, xasprintf("%s/sendmail.mc", work->config_dir), err) < 0 ||
	    read_one(work, CF, xasprintf("%s/sendmail.cf", work->config_dir), err) < 0)
		return -1;
	cf = generate_cf_folder(buf_text(&work->file[MC].old));
	if (cf == NULL)
		return err_set(
			err, ERR_CONFIG,
			"%s does not include .../m4/cf.m4, so nobody knows where Sendmail's "
			"features are",
			work->file[MC].path);
	if (read_one(work, FEATURE, xasprintf("%s/feature/relay365.m4", cf), err) < 0) {
		free(cf);
		return -1;
	}
	free(cf);
	return file_read(work->feature_file, &work->file[FEATURE].new, err);
}

/* sendmail.cf of a sendmail.mc, as make -C /etc/mail would make it. */
static int compile(const struct work *work, const struct buf *mc, struct buf *cf, struct err *err)
{
	const char *const argv[] = {"sh", "-c", "cd \"$0\" && exec m4 -", work->config_dir, NULL};
	struct buf errors = BUF_INIT(SETUP_OUTPUT_MAX);
	int status = child_exec(argv, buf_text(mc), cf, &errors, SETUP_TIMEOUT_MS);

	if (status != 0 || cf->len == 0 || errors.len > 0)
		err_set(err, ERR_CONFIG, "m4 does not make a sendmail.cf of it: %.*s",
			(int)strcspn(buf_text(&errors), "\n"),
			errors.len > 0 ? buf_text(&errors) : "is m4 installed?");
	status = status != 0 || cf->len == 0 || errors.len > 0 ? -1 : 0;
	buf_clear(&errors);
	return status;
}

/* A sendmail.cf that somebody has edited would lose that. */
static int check_cf(const struct work *work, struct err *err)
{
	struct buf now = BUF_INIT(SETUP_OUTPUT_MAX);
	int result = compile(work, &work->file[MC].old, &now, err);

	if (result == 0 && !generate_same_cf(buf_text(&now), buf_text(&work->file[CF].old)))
		result = err_set(err, ERR_CONFIG,
				 "%s is not what m4 makes of sendmail.mc: it was edited, or "
				 "sendmail.mc was changed since; run make -C %s first, or use "
				 "relay365 setup sendmail --print and do it by hand",
				 work->file[CF].path, work->config_dir);
	buf_clear(&now);
	return result;
}

/* With Postfix's queue directory in the configuration, on a machine without. */
static int check_queue_directories(const struct conf *conf, struct err *err)
{
	struct stat st;

	for (size_t i = 0; i < conf->queue_directories.count; i++)
		if (stat(conf->queue_directories.item[i], &st) < 0 && errno == ENOENT)
			return err_set(
				err, ERR_CONFIG,
				"%s: there is no %s; without Postfix set queue_directories "
				"= [], and restart the daemons",
				conf->path, conf->queue_directories.item[i]);
	return 0;
}

static void add_notes(struct work *work)
{
	const char *mc = buf_text(&work->file[MC].old);

	if (strstr(mc, "define(`SMART_HOST'") != NULL)
		(void)buf_adds(&work->notes,
			       "sendmail.mc names a SMART_HOST; relay365 takes its place\n");
	if (strstr(mc, "authinfo") != NULL)
		(void)buf_adds(&work->notes,
			       "sendmail.mc has authinfo; the password for Office 365 in it is "
			       "not used any more, remove it when all works\n");
}

static int plan(struct work *work, struct err *err)
{
	struct buf line = BUF_INIT(4096);
	int result = check_queue_directories(work->ctl->conf, err);

	if (result == 0)
		result = generate_feature(work->ctl->conf, &line, err);
	if (result == 0)
		result = generate_mc(buf_text(&work->file[MC].old), buf_text(&line),
				     &work->file[MC].new, err);
	if (result < 0)
		err_add(err, "%s", work->file[MC].path);
	buf_clear(&line);
	add_notes(work);
	return result;
}

/* Takes our lines out; the feature's file may stay. */
static int plan_undo(struct work *work, struct err *err)
{
	buf_clear(&work->file[FEATURE].new);
	(void)buf_adds(&work->file[FEATURE].new, buf_text(&work->file[FEATURE].old));
	if (generate_mc_undo(buf_text(&work->file[MC].old), &work->file[MC].new, err) == 0)
		return 0;
	return err_add(err, "%s", work->file[MC].path);
}

/* ---- doing it ---- */

static bool differs(const struct work *work)
{
	return setup_file_differs(&work->file[MC]) || setup_file_differs(&work->file[FEATURE]);
}

/* What was there before the first change. */
static int keep_copies(const struct work *work, struct err *err)
{
	const char *slash = strrchr(work->ctl->conf->path, '/');
	char *folder = xasprintf("%.*s/sendmail-backup",
				 slash == NULL ? 1 : (int)(slash - work->ctl->conf->path),
				 slash == NULL ? "." : work->ctl->conf->path);
	int result = file_make_folder(folder, err);

	for (int i = MC; i < FILES && result == 0; i++) {
		const struct setup_file *file = &work->file[i];
		char *path = xasprintf("%s/%s", folder, strrchr(file->path, '/') + 1);

		result = file_replace(path, buf_text(&file->old), file->old.len, file->mode, err);
		free(path);
	}
	free(folder);
	return result;
}

static int write_all(struct work *work, int *done, struct err *err)
{
	for (*done = 0; *done < FILES; (*done)++) {
		struct setup_file *file = &work->file[*done];

		if (*done == CF && compile(work, &work->file[MC].new, &file->new, err) < 0)
			return -1;
		if (setup_file_differs(file) && setup_file_write(file, err) < 0)
			return -1;
	}
	return 0;
}

/* All files, or none. */
static int change_files(struct work *work, bool keep, struct err *err)
{
	struct err worse = ERR_INIT;
	int done = 0;

	if (!differs(work))
		return 0;
	if (check_cf(work, err) < 0 || (keep && keep_copies(work, err) < 0))
		return -1;
	if (write_all(work, &done, err) == 0)
		return 0;
	for (int i = done < CF ? done : MC; i >= 0; i--)
		if (setup_file_differs(&work->file[i]) &&
		    setup_file_restore(&work->file[i], &worse) < 0)
			return err_add(err, "%s, and it is left half changed", worse.text);
	return err_add(err, "nothing is changed");
}

/* ---- saying it ---- */

static const char *next_step(const struct work *work, bool changed)
{
	if (!differs(work))
		return "Nothing is to be changed.";
	if (!changed)
		return "Nothing was changed; sendmail.cf would be made anew. To do it: relay365 "
		       "setup sendmail --apply";
	return "Now restart Sendmail: systemctl restart sendmail";
}

static int print_work(const struct work *work, bool changed)
{
	struct buf diff = BUF_INIT(SETUP_OUTPUT_MAX);
	const char *note = buf_text(&work->notes);
	cJSON *json;

	setup_file_diff(&work->file[FEATURE], &diff);
	setup_file_diff(&work->file[MC], &diff);
	if (work->ctl->json) {
		json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "config_dir", work->config_dir);
		(void)cJSON_AddBoolToObject(json, "changed", changed && differs(work));
		(void)cJSON_AddStringToObject(json, "diff", buf_text(&diff));
		(void)cJSON_AddStringToObject(json, "notes", note);
		(void)cJSON_AddStringToObject(json, "next", next_step(work, changed));
		buf_clear(&diff);
		return ctl_print_json(json, CTL_OK);
	}
	if (!changed)
		(void)fputs(buf_text(&diff), stdout);
	for (; *note != '\0'; note += strcspn(note, "\n") + 1)
		(void)printf("Note: %.*s.\n", (int)strcspn(note, "\n"), note);
	(void)puts(next_step(work, changed));
	buf_clear(&diff);
	return CTL_OK;
}

/* For who puts it into sendmail.mc by other means. */
static int print_feature(const struct ctl *ctl)
{
	struct buf line = BUF_INIT(4096);
	struct err err = ERR_INIT;
	cJSON *json;
	int status = CTL_OK;

	if (generate_feature(ctl->conf, &line, &err) < 0) {
		status = ctl_print_error(ctl, &err, CTL_CONFIG);
	} else if (ctl->json) {
		json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "sendmail_mc", buf_text(&line));
		status = ctl_print_json(json, CTL_OK);
	} else {
		(void)fputs(buf_text(&line), stdout);
	}
	buf_clear(&line);
	return status;
}

static int run(struct work *work, bool want_apply, bool want_undo)
{
	struct err err = ERR_INIT;
	int result = read_files(work, &err);

	if (result == 0)
		result = want_undo ? plan_undo(work, &err) : plan(work, &err);
	if (result == 0 && (want_apply || want_undo))
		result = change_files(work, want_apply, &err);
	if (result == 0)
		return print_work(work, want_apply || want_undo);
	return ctl_print_error(work->ctl, &err, err.class == ERR_TEMP ? CTL_PROBLEM : CTL_CONFIG);
}

int setup_sendmail(const struct ctl *ctl)
{
	struct work work = {.ctl = ctl,
			    .config_dir = CONFIG_DIR,
			    .feature_file = RELAY365_DATADIR "/relay365.m4",
			    .notes = BUF_INIT(4096)};
	bool want_apply = false, want_undo = false, want_print = false;
	const struct ctl_option options[] = {{"--apply", &want_apply, NULL},
					     {"--undo", &want_undo, NULL},
					     {"--print", &want_print, NULL},
					     {"--config-dir", NULL, &work.config_dir},
					     {"--feature", NULL, &work.feature_file}};
	const char **rest = xcalloc((size_t)ctl->argc + 1, sizeof(*rest));
	int n = ctl_options(ctl, options, ARRAY_LEN(options), rest), status;

	free(rest);
	if (n != 0 || want_apply + want_undo + want_print > 1) {
		(void)fputs("usage: relay365 [-c FILE] setup sendmail [--apply|--undo|--print] "
			    "[--config-dir DIR] [--feature FILE]\n",
			    stderr);
		return CTL_USAGE;
	}
	if (want_print)
		return print_feature(ctl);
	for (int i = 0; i < FILES; i++)
		work.file[i].old = work.file[i].new = (struct buf)BUF_INIT(SETUP_OUTPUT_MAX);
	status = run(&work, want_apply, want_undo);
	for (int i = 0; i < FILES; i++)
		setup_file_clear(&work.file[i]);
	buf_clear(&work.notes);
	return status;
}
