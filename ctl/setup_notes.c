#include "ctl/setup.h"

#include "base/file.h"
#include "base/xalloc.h"
#include "postfix/merge.h"

#include <glob.h>
#include <unistd.h>

enum { PASSWORDS_MAX = 4 << 20 };

struct noting {
	const struct conf *conf;
	struct buf *notes;
	const char *queue_dir;
	bool others; /* other servers are signed in to with a token file */
};

/* Where a token file is, for smtp(8) may see it from within its chroot. The caller's. */
static char *find_token_file(const char *queue_dir, const char *path)
{
	struct buf in_chroot = BUF_INIT(PASSWORDS_MAX);
	char *found;

	(void)buf_addf(&in_chroot, "%s%s", queue_dir, path);
	found = xstrdup(access(buf_text(&in_chroot), F_OK) == 0 ? buf_text(&in_chroot) : path);
	buf_clear(&in_chroot);
	return found;
}

static void note_token_file(const struct noting *to, const char *path, const char *file,
			    const struct conf_mailbox *mailbox)
{
	char *found = find_token_file(to->queue_dir, file);

	(void)buf_addf(to->notes, "%s names %s for %s, a token file of sasl-xoauth2: ", path,
		       file, mailbox->address);
	if (mailbox->tenant->delegated)
		(void)buf_addf(
			to->notes,
			"mailbox %s takes it over with: relay365 authorize %s --import %s; "
			"then take the line out\n",
			mailbox->name, mailbox->name, found);
	else
		(void)buf_addf(
			to->notes,
			"mailbox %s takes over with its tenant's credential; once its mail "
			"flows take the line out\n",
			mailbox->name);
	free(found);
}

/* One "server user:password" line. The password is looked at and never shown. */
static void note_password(struct noting *to, const char *path, const char *server,
			  const char *user, const char *password)
{
	bool token_file = password[0] == '/';
	const struct conf_mailbox *mailbox = conf_mailbox_by_address(to->conf, user);

	if (!merge_leads_to_office365(to->conf, server) && strchr(server, '@') == NULL) {
		to->others |= token_file;
		return;
	}
	if (mailbox == NULL && !merge_leads_to_office365(to->conf, server))
		return;
	if (mailbox == NULL)
		(void)buf_addf(
			to->notes,
			"%s signs in to %s as %s, and no mailbox has this address: add one, "
			"or its mail goes as before\n",
			path, server, user);
	else if (token_file)
		note_token_file(to, path, password, mailbox);
	else
		(void)buf_addf(
			to->notes,
			"%s signs in as %s with a password (Basic authentication): mailbox "
			"%s takes over; once its mail flows take the line out, run postmap, "
			"and change the password\n",
			path, user, mailbox->name);
}

static void note_line(struct noting *to, const char *path, const char *line, size_t len)
{
	char *copy = xstrndup(line, len);
	char *server = copy + strspn(copy, " \t");
	char *user, *password;

	user = server + strcspn(server, " \t");
	if (server[0] != '#' && user[0] != '\0') {
		*user++ = '\0';
		user += strspn(user, " \t");
		password = strchr(user, ':');
		if (password != NULL) {
			*password++ = '\0';
			note_password(to, path, server, user, password);
		}
	}
	/* It held a password. */
	explicit_bzero(copy, len);
	free(copy);
}

static void note_map(struct noting *to, const char *path)
{
	struct buf text = BUF_INIT(PASSWORDS_MAX);
	struct err err = ERR_INIT;
	const char *at;

	if (file_read(path, &text, &err) == 0)
		for (at = buf_text(&text); at[0] != '\0';) {
			size_t len = strcspn(at, "\n");

			note_line(to, path, at, len);
			at += len;
			at += at[0] == '\n';
		}
	buf_clear(&text); /* overwrites */
}

/* The source texts of "hash:/path, texthash:/path". */
static void note_maps(struct noting *to, const char *maps)
{
	while (maps[0] != '\0') {
		size_t len = strcspn(maps, ", \t");
		const char *colon = memchr(maps, ':', len);

		if (colon != NULL && colon[1] == '/') {
			char *path = xstrndup(colon + 1, len - (size_t)(colon + 1 - maps));

			note_map(to, path);
			free(path);
		}
		maps += len;
		maps += strspn(maps, ", \t");
	}
}

static void note_waiting(const struct conf *conf, const struct postfix_facts *facts,
			 struct buf *notes)
{
	char *delay = facts_value(facts->expanded, "delay_warning_time");

	if (delay[0] != '\0' && strtol(delay, NULL, 10) > 0)
		for (size_t i = 0; i < conf->mailboxes; i++)
			if (conf->mailbox[i].when_full == FULL_WAIT) {
				(void)buf_addf(
					notes,
					"delay_warning_time = %s: senders whose mail waits for "
					"room for longer are told so\n",
					delay);
				break;
			}
	free(delay);
}

void setup_notes(const struct conf *conf, const struct postfix_facts *facts, struct buf *notes)
{
	static const char pattern[] = "/usr/lib/" MULTIARCH "/sasl2/lib*xoauth2*.so";
	char *queue_dir = facts_value(facts->expanded, "queue_directory");
	struct noting to = {conf, notes, queue_dir, false};
	char *maps = facts_value(facts->expanded, "smtp_sasl_password_maps");
	glob_t found = {0};

	note_maps(&to, maps);
	free(maps);
	free(queue_dir);
	note_waiting(conf, facts, notes);
	if (glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc > 0)
		(void)buf_addf(notes,
			       "%s is another plugin for XOAUTH2; Postfix prefers relay365's%s\n",
			       found.gl_pathv[0],
			       to.others ? ", so servers that sign in with its token files stop: "
					   "move them to a Postfix instance of their own"
					 : "");
	globfree(&found);
}
