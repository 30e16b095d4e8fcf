/*
 * relay365 setup: its parts. Each gets what follows "setup" and its own word,
 * and reads the configuration if it needs one.
 */
#ifndef RELAY365_CTL_SETUP_H
#define RELAY365_CTL_SETUP_H

#include "ctl/ctl.h"
#include "postfix/facts.h"

enum { SETUP_TIMEOUT_MS = 60000, SETUP_OUTPUT_MAX = 4 << 20 };

/* Prints what generate.h makes: for who puts it into Postfix by other means. Needs ctl->conf. */
int setup_print(const struct ctl *ctl);

int setup_postfix(const struct ctl *ctl);
int setup_tenant(const struct ctl *ctl);

int setup_sendmail(const struct ctl *ctl);

/* ---- setup_facts.c: a Postfix's configuration, seen in a copy that may be changed ---- */

/* The postconf texts of a configuration, and what the tool complained of. */
struct setup_facts {
	struct buf raw, expanded, set, services, options;
	struct buf complaints;
};

/*
 * A private folder that looks like a configuration folder: links to all files
 * of folder but main.cf and master.cf, which are written from text. NULL with
 * err when it can't be made. The caller removes it with setup_mirror_remove().
 */
char *setup_mirror_make(const char *folder, struct err *err);
int setup_mirror_write(const char *mirror, const char *main_cf, const char *master_cf,
		       struct err *err);
void setup_mirror_remove(char **mirror);

/* Asks postconf(1) about a folder. -1 when it says that something is wrong. */
int setup_facts_read(const char *folder, struct setup_facts *facts, struct err *err);
void setup_facts_clear(struct setup_facts *facts);
struct postfix_facts setup_facts_view(const struct setup_facts *facts);

/* ---- setup_files.c: files that change together, or not at all ---- */

struct setup_file {
	char *path;
	struct buf old, new;
	bool exists;
	unsigned int mode;
	unsigned int uid, gid;
};

/* Reads what is there; a file that is missing is empty and gets mode 0644. */
int setup_file_read(struct setup_file *file, const char *path, struct err *err);
bool setup_file_differs(const struct setup_file *file);
/* Adds a unified diff to text. */
void setup_file_diff(const struct setup_file *file, struct buf *text);
/* Writes the new content, with the mode and owner of the old. */
int setup_file_write(const struct setup_file *file, struct err *err);
/* Puts the old content back; a file that was not there goes. */
int setup_file_restore(const struct setup_file *file, struct err *err);
void setup_file_clear(struct setup_file *file);

/* ---- setup_notes.c: what was there before, and what to do about it ---- */

/* Adds sentences, one a line, about passwords and token files of other ways to Office 365. */
void setup_notes(const struct conf *conf, const struct postfix_facts *facts, struct buf *notes);

#endif
