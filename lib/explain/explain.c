#include "explain/explain.h"

#include "base/xalloc.h"

#include <pthread.h>
#include <regex.h>

static const struct {
	long number;
	struct explanation what;
} aadsts[] = {
#define AADSTS(number, class, meaning, action) \
	{number, {"AADSTS" #number, EXPLAIN_##class, meaning, action}},
#define OAUTH(error, class, meaning, action)
#include "explain/entra.def"
#undef AADSTS
#undef OAUTH
};

static const struct explanation oauth_errors[] = {
#define AADSTS(number, class, meaning, action)
#define OAUTH(error, class, meaning, action) {error, EXPLAIN_##class, meaning, action},
#include "explain/entra.def"
#undef AADSTS
#undef OAUTH
};

static const struct reply {
	const char *code;
	const char *text;
	struct explanation what;
} replies[] = {
#define REPLY(id, code, text, class, meaning, action) \
	{code, text, {id, EXPLAIN_##class, meaning, action}},
#include "explain/exchange.def"
#undef REPLY
};

static regex_t compiled[ARRAY_LEN(replies)];
static pthread_once_t compile_once = PTHREAD_ONCE_INIT;

/* The enhanced code as a word of its own, then anything, then the text. */
static void compile(void)
{
	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		const struct reply *reply = &replies[i];
		/* What bounces is never softened: with a 4 the code means something else. */
		const char *first = reply->what.class == EXPLAIN_MESSAGE ? "5" : "[45]";
		char *pattern;

		if (reply->text[0] == '\0')
			pattern =
				xasprintf("(^|[^0-9.])%s[.](%s)([^0-9.]|$)", first, reply->code);
		else
			pattern = xasprintf("(^|[^0-9.])%s[.](%s)[^0-9.](.*)(%s)", first,
					    reply->code, reply->text);
		if (regcomp(&compiled[i], pattern, REG_EXTENDED | REG_NOSUB) != 0)
			abort(); /* a mistake in exchange.def, found by the first test */
		free(pattern);
	}
}

const struct explanation *explain_aadsts(long number)
{
	for (size_t i = 0; i < ARRAY_LEN(aadsts); i++)
		if (aadsts[i].number == number)
			return &aadsts[i].what;
	return NULL;
}

const struct explanation *explain_oauth_error(const char *error)
{
	for (size_t i = 0; i < ARRAY_LEN(oauth_errors); i++)
		if (strcmp(oauth_errors[i].id, error) == 0)
			return &oauth_errors[i];
	return NULL;
}

const struct explanation *explain_reply(const char *text)
{
	(void)pthread_once(&compile_once, compile);
	for (size_t i = 0; i < ARRAY_LEN(replies); i++)
		if (regexec(&compiled[i], text, 0, NULL, 0) == 0)
			return &replies[i].what;
	return NULL;
}

const char *explain_class_name(enum explain_class class)
{
	switch (class) {
	case EXPLAIN_TRANSIENT:
		return "transient";
	case EXPLAIN_CONFIG:
		return "config";
	case EXPLAIN_SIGN_IN:
		return "sign-in";
	case EXPLAIN_QUOTA:
		return "quota";
	case EXPLAIN_BLOCKED:
		return "blocked";
	case EXPLAIN_MESSAGE:
		break;
	}
	return "message";
}

void explain_each_softened(void (*each)(void *arg, const char *pattern, const char *replacement),
			   void *arg)
{
	/*
	 * Rules stand in the table's order, so an entry that bounces must keep a
	 * later, wider rule from softening it: it is let through as it is. All
	 * others wait: for time, for room, or for an admin.
	 */
	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		const struct reply *reply = &replies[i];
		char *pattern;

		if (reply->text[0] == '\0')
			pattern =
				xasprintf("^5([0-9][0-9][ -])5[.](%s)([^0-9.].*)?$", reply->code);
		else
			pattern = xasprintf("^5([0-9][0-9][ -])5[.](%s)([^0-9.].*(%s).*)$",
					    reply->code, reply->text);
		each(arg, pattern,
		     reply->what.class == EXPLAIN_MESSAGE ? "5${1}5.${2}${3}"
							  : "4${1}4.${2}${3}");
		free(pattern);
	}
	/* A basic code that refuses with an enhanced code that does not. */
	each(arg, "^5([0-9][0-9][ -])(4[.][0-9].*)$", "4${1}${2}");
}
