#include "base/compat.h"

#include "sendmail/generate.h"

#include "base/xalloc.h"

#define BEGIN "dnl relay365 setup sendmail: begin; what stands up to the end is kept by it\n"
#define END "dnl relay365 setup sendmail: end\n"

enum {
	RECIPIENTS = 100,     /* Sendmail's own default */
	RECIPIENTS_LEAST = 10 /* so that one small mailbox does not split all others' mail */
};

/* ---- the line ---- */

static int64_t recipients(const struct conf *conf)
{
	int64_t least = RECIPIENTS;

	for (size_t i = 0; i < conf->mailboxes; i++)
		if (conf_transaction_recipients(&conf->mailbox[i]) < least)
			least = conf_transaction_recipients(&conf->mailbox[i]);
	return least < RECIPIENTS_LEAST ? RECIPIENTS_LEAST : least;
}

static int add_milter(const struct conf *conf, struct buf *line, struct err *err)
{
	const char *given = conf->milter_socket;

	if (given[0] == '\0' && conf->queue_directories.count > 1)
		return err_set(err, ERR_CONFIG,
			       "%s: with several queue_directories set "
			       "milter_socket",
			       conf->path);
	if (given[0] == '\0' && conf->queue_directories.count == 1)
		return buf_addf(line, "local:%s/relay365m/milter",
				conf->queue_directories.item[0]);
	if (given[0] == '\0')
		return buf_addf(line, "local:%s/milter", conf->milter_run_dir);
	if (strncmp(given, "unix:", 5) == 0)
		return buf_addf(line, "local:%s", given + 5);
	return buf_addf(line, "%s%s", given[0] == '/' ? "local:" : "", given);
}

int generate_feature(const struct conf *conf, struct buf *line, struct err *err)
{
	(void)buf_addf(line, "FEATURE(`relay365', `%s/submit', `", conf->submit_run_dir);
	if (add_milter(conf, line, err) < 0)
		return -1;
	return buf_addf(line, "', `%lld')dnl\n", (long long)recipients(conf));
}

/* ---- sendmail.mc ---- */

int generate_mc_undo(const char *text, struct buf *to, struct err *err)
{
	const char *begin = strstr(text, BEGIN);
	const char *end = begin == NULL ? NULL : strstr(begin, END);

	if (begin == NULL)
		return buf_adds(to, text);
	if (end == NULL)
		return err_set(err, ERR_CONFIG,
			       "the line \"%.*s\" is missing; put it back where the lines of "
			       "relay365 end",
			       (int)strlen(END) - 1, END);
	if (buf_add(to, text, (size_t)(begin - text)) < 0)
		return -1;
	return buf_adds(to, end + strlen(END));
}

/* The first line that begins with MAILER: features must stand above. */
static const char *mailers(const char *text)
{
	while (*text != '\0' && strncmp(text, "MAILER", 6) != 0) {
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	return *text == '\0' ? NULL : text;
}

int generate_mc(const char *text, const char *feature, struct buf *to, struct err *err)
{
	struct buf plain = BUF_INIT(GENERATE_MC_MAX);
	const char *at;
	int result = generate_mc_undo(text, &plain, err);

	if (result == 0) {
		at = mailers(buf_text(&plain));
		if (at == NULL)
			result = err_set(
				err, ERR_CONFIG,
				"there is no line MAILER(`smtp'): is this a sendmail.mc?");
		else
			result = buf_addf(to, "%.*s" BEGIN "%s" END "%s",
					  (int)(at - buf_text(&plain)), buf_text(&plain), feature,
					  at);
	}
	buf_clear(&plain);
	return result;
}

char *generate_cf_folder(const char *text)
{
	static const char include[] = "include(`", file[] = "/m4/cf.m4'";
	const char *end = strstr(text, file), *at = NULL;

	for (const char *p = text; end != NULL && p != NULL && p < end;
	     p = strstr(p + 1, include))
		if (strncmp(p, include, strlen(include)) == 0)
			at = p + strlen(include);
	return at == NULL ? NULL : xstrndup(at, (size_t)(end - at));
}

/* ---- sendmail.cf ---- */

/* The next line that says something; its length in *len_r; NULL: there is none. */
static const char *next_line(const char **text, size_t *len_r)
{
	while (**text != '\0') {
		const char *line = *text;

		*len_r = strcspn(line, "\n");
		*text = line + *len_r + (line[*len_r] == '\n');
		if (*len_r > 0 && line[0] != '#')
			return line;
	}
	return NULL;
}

bool generate_same_cf(const char *a, const char *b)
{
	for (;;) {
		size_t a_len = 0, b_len = 0;
		const char *from_a = next_line(&a, &a_len), *from_b = next_line(&b, &b_len);

		if (from_a == NULL || from_b == NULL)
			return from_a == from_b;
		if (a_len != b_len || memcmp(from_a, from_b, a_len) != 0)
			return false;
	}
}
