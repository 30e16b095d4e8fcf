/*
 * What errors mean and what to do about them: one table of token endpoint
 * errors (entra.def), one of Exchange's SMTP replies (exchange.def) and one of
 * what Postfix and relay365 say themselves (delivery.def). The log, status, the
 * texts in the mail queue, relay365 explain and, from the replies alone, the
 * generated reply filter all come from these tables. Entries are constant; any thread may look.
 */
#ifndef RELAY365_EXPLAIN_EXPLAIN_H
#define RELAY365_EXPLAIN_EXPLAIN_H

#include "base/compat.h"

#include <stdbool.h>

enum explain_class {
	EXPLAIN_TRANSIENT, /* goes by itself: retry */
	EXPLAIN_CONFIG,	   /* an admin must change something: defer and alarm */
	EXPLAIN_SIGN_IN,   /* a user must sign in again: defer and alarm */
	EXPLAIN_QUOTA,	   /* a limit of Microsoft's was met: wait */
	EXPLAIN_BLOCKED,   /* Microsoft blocked the account or tenant: defer, lock, alarm */
	EXPLAIN_MESSAGE	   /* this message will never be taken: bounce */
};

struct explanation {
	const char *id; /* "AADSTS7000222", "5.7.57", "invalid_client" */
	enum explain_class class;
	const char *meaning; /* a sentence without its full stop */
	const char *action;  /* what to do, likewise */
};

/* The entry of an AADSTS number, or NULL. */
const struct explanation *explain_aadsts(long number);

/* The entry of an OAuth "error" value (RFC 6749, section 5.2), or NULL. */
const struct explanation *explain_oauth_error(const char *error);

/*
 * The entry of an SMTP reply or delivery status text ("5.7.57 ...", whether its
 * first digit is 5 or was softened to 4), or NULL.
 */
const struct explanation *explain_reply(const char *text);

/*
 * The same, but only of the code at the text's beginning, or the one right
 * behind the server's reply code ("... said: 550 5.1.8 ..."): what stands
 * further on may be an address, and anybody's choice.
 */
const struct explanation *explain_verdict(const char *text);

/* Each entry with this enhanced status code ("5.7.139"): one code may mean several things. */
void explain_code(const char *code, void (*each)(void *arg, const struct explanation *what),
		  void *arg);

/* The entry of a reply code without an enhanced one (535), or NULL. */
const struct explanation *explain_basic(long code);

/*
 * The entry of a line of a mail log, or of whatever an admin has copied from
 * one: an AADSTS number, Postfix's own words, a reply or an OAuth error in it.
 * NULL when it tells of no failure that is known.
 */
const struct explanation *explain_line(const char *line);

/* "transient", "config", ... as logs and JSON name it. */
const char *explain_class_name(enum explain_class class);

/*
 * Each rule of the Postfix reply filter: a POSIX extended regular expression
 * that matches a whole 5xx reply line, and what regexp_table(5) is to replace
 * it by, a 4xx line with the same text.
 */
void explain_each_softened(void (*each)(void *arg, const char *pattern, const char *replacement),
			   void *arg);

/*
 * Whether that filter would turn this reply line ("550 5.1.90 ...", without its
 * end) into a 4xx.
 */
bool explain_is_softened(const char *line);

#endif
