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

static const struct failure {
	const char *text;
	struct explanation what;
} failures[] = {
#define FAILURE(id, text, class, meaning, action) {text, {id, EXPLAIN_##class, meaning, action}},
#define BASIC(code, meaning, action)
#include "explain/delivery.def"
#undef FAILURE
#undef BASIC
};

static const struct {
	long code;
	struct explanation what;
} basics[] = {
#define FAILURE(id, text, class, meaning, action)
#define BASIC(code, meaning, action) \
	{code, {#code, code < 500 ? EXPLAIN_TRANSIENT : EXPLAIN_CONFIG, meaning, action}},
#include "explain/delivery.def"
#undef FAILURE
#undef BASIC
};

static regex_t compiled[ARRAY_LEN(replies)];
static regex_t compiled_failures[ARRAY_LEN(failures)];
static regex_t compiled_reply_code;
static pthread_once_t compile_once = PTHREAD_ONCE_INIT;

static void compile_failures(void)
{
	for (size_t i = 0; i < ARRAY_LEN(failures); i++)
		if (regcomp(&compiled_failures[i], failures[i].text, REG_EXTENDED | REG_NOSUB) !=
		    0)
			abort(); /* a mistake in delivery.def, found by the first test */
}

/* The enhanced code as a word of its own, then anything, then the text. */
static void compile(void)
{
	compile_failures();
	/* Postfix says "host ... said:", and of a greeting "host ... refused to talk to me:". */
	if (regcomp(&compiled_reply_code,
		    "(^|^[45][.0-9]+ | (said|refused to talk to me): )[45][0-9]{2}[ -]",
		    REG_EXTENDED) != 0)
		abort();
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
		if (regcomp(&compiled[i], pattern, REG_EXTENDED) != 0)
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

/* The entry whose code the text begins with. */
static const struct explanation *beginning(const char *text)
{
	regmatch_t match;

	if (text[0] != '4' && text[0] != '5')
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(replies); i++)
		if (regexec(&compiled[i], text, 1, &match, 0) == 0 && match.rm_so == 0)
			return &replies[i].what;
	return NULL;
}

const struct explanation *explain_verdict(const char *text)
{
	const struct explanation *what;
	regmatch_t code;

	(void)pthread_once(&compile_once, compile);
	what = beginning(text);
	if (what == NULL && regexec(&compiled_reply_code, text, 1, &code, 0) == 0)
		what = beginning(text + code.rm_eo);
	return what;
}

void explain_code(const char *code, void (*each)(void *arg, const struct explanation *what),
		  void *arg)
{
	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		const char *first = replies[i].what.class == EXPLAIN_MESSAGE ? "5" : "[45]";
		char *pattern = xasprintf("^%s[.](%s)$", first, replies[i].code);
		regex_t regex;

		/* An entry for any code says nothing of this one. */
		if (strstr(replies[i].code, "[0-9]+") != NULL) {
			free(pattern);
			continue;
		}
		if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
			abort(); /* as above */
		if (regexec(&regex, code, 0, NULL, 0) == 0)
			each(arg, &replies[i].what);
		regfree(&regex);
		free(pattern);
	}
}

const struct explanation *explain_basic(long code)
{
	for (size_t i = 0; i < ARRAY_LEN(basics); i++)
		if (basics[i].code == code)
			return &basics[i].what;
	return NULL;
}

/* The number behind a word in the text, 0 when it does not stand there. */
static long number_behind(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	return at == NULL ? 0 : strtol(at + strlen(word), NULL, 10);
}

/* As tokend writes it: error=invalid_client, or with quotes. */
static const struct explanation *oauth_error_in(const char *line)
{
	static const char word[] = "error";
	const char *at = line;

	while ((at = strstr(at, word)) != NULL) {
		char error[48];
		size_t n;

		at += sizeof(word) - 1;
		n = strspn(at, "=:\" ");
		if (n == 0)
			continue;
		at += n;
		n = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
		if (n == 0 || n >= sizeof(error))
			continue;
		memcpy(error, at, n);
		error[n] = '\0';
		if (explain_oauth_error(error) != NULL)
			return explain_oauth_error(error);
	}
	return NULL;
}

const struct explanation *explain_line(const char *line)
{
	const struct explanation *what;
	long number = number_behind(line, "AADSTS");

	if (number == 0)
		number = number_behind(line, "aadsts=");
	what = number == 0 ? NULL : explain_aadsts(number);
	(void)pthread_once(&compile_once, compile);
	for (size_t i = 0; what == NULL && i < ARRAY_LEN(failures); i++)
		if (regexec(&compiled_failures[i], line, 0, NULL, 0) == 0)
			what = &failures[i].what;
	if (what == NULL)
		what = explain_reply(line);
	return what != NULL ? what : oauth_error_in(line);
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

/* The filter's rules, compiled: one for each reply, and the last. */
static struct {
	regex_t pattern;
	bool softens;
} rules[ARRAY_LEN(replies) + 1];
static size_t rules_count;
static pthread_once_t rules_once = PTHREAD_ONCE_INIT;

static void add_rule(void *arg, const char *pattern, const char *replacement)
{
	(void)arg;
	if (rules_count == ARRAY_LEN(rules) ||
	    regcomp(&rules[rules_count].pattern, pattern, REG_EXTENDED | REG_NOSUB) != 0)
		abort(); /* a mistake here or in exchange.def, found by the first test */
	rules[rules_count++].softens = replacement[0] == '4';
}

static void compile_rules(void)
{
	explain_each_softened(add_rule, NULL);
}

bool explain_is_softened(const char *line)
{
	(void)pthread_once(&rules_once, compile_rules);
	for (size_t i = 0; i < rules_count; i++)
		if (regexec(&rules[i].pattern, line, 0, NULL, 0) == 0)
			return rules[i].softens;
	return false;
}
