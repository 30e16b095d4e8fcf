#include "postfix/facts.h"

#include "base/xalloc.h"

static const char *line_after(const char *line)
{
	line += strcspn(line, "\n");
	return line[0] == '\0' ? line : line + 1;
}

/* Where the value begins, or NULL. */
static const char *find(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (; text[0] != '\0'; text = line_after(text)) {
		const char *rest;

		if (strncmp(text, name, len) != 0)
			continue;
		rest = text + len + strspn(text + len, " ");
		if (rest[0] == '=')
			return rest + 1 + strspn(rest + 1, " ");
	}
	return NULL;
}

char *facts_value(const char *text, const char *name)
{
	const char *value = find(text, name);

	return value == NULL ? xstrdup("") : xstrndup(value, strcspn(value, "\n"));
}

bool facts_has(const char *text, const char *name)
{
	return find(text, name) != NULL;
}

/* The word at *at, which goes behind it and the spaces that follow. */
static size_t word(const char **at, const char **word_r)
{
	size_t len = strcspn(*at, " \t\n");

	*word_r = *at;
	*at += len;
	*at += strspn(*at, " \t");
	return len;
}

static bool is(const char *text, size_t len, const char *wanted)
{
	return strlen(wanted) == len && strncmp(text, wanted, len) == 0;
}

char facts_chroot(const char *services, const char *name, const char *type)
{
	for (; services[0] != '\0'; services = line_after(services)) {
		const char *at = services, *field;
		size_t len = word(&at, &field);

		if (!is(field, len, name))
			continue;
		len = word(&at, &field);
		if (!is(field, len, type))
			continue;
		for (int column = 3; column <= 5; column++)
			len = word(&at, &field);
		return len == 1 ? field[0] : 'n';
	}
	return 'n';
}

void facts_each_option(const char *options, const char *name,
		       void (*each)(void *arg, const char *service, const char *value), void *arg)
{
	size_t len = strlen(name);

	for (; options[0] != '\0'; options = line_after(options)) {
		size_t line = strcspn(options, "\n");
		const char *equals = memchr(options, '=', line);
		size_t key = equals == NULL ? 0 : (size_t)(equals - options);
		char *service, *value;

		while (key > 0 && options[key - 1] == ' ')
			key--;
		if (key <= len || options[key - len - 1] != '/' ||
		    strncmp(options + key - len, name, len) != 0)
			continue;
		service = xstrndup(options, key - len - 1);
		equals += 1 + strspn(equals + 1, " ");
		value = xstrndup(equals, strcspn(equals, "\n"));
		each(arg, service, value);
		free(service);
		free(value);
	}
}

bool facts_lists(const char *list, const char *wanted)
{
	while (list[0] != '\0') {
		size_t len = strcspn(list, ", \t");

		if (is(list, len, wanted))
			return true;
		list += len;
		list += strspn(list, ", \t");
	}
	return false;
}
