/*
 * SMTP replies (RFC 5321, section 4.2): where one ends, and which of
 * Microsoft's refusals are turned into "later". Pure.
 */
#ifndef RELAY365_SENDMAIL_REPLY_H
#define RELAY365_SENDMAIL_REPLY_H

#include "base/compat.h"

#include <stdbool.h>

struct reply {
	int code;
	char *text; /* all its lines; points into the data that was parsed */
	size_t len;
};

/* 1: *reply_r has the first reply in data; 0: it is not all there; -1: this is no SMTP. */
int reply_parse(char *data, size_t len, struct reply *reply_r);

/*
 * Makes a refusal 4xx, in place, where mail must wait instead of bounce: those
 * that explain_is_softened() names, and every "not signed in" (530, 534, 535,
 * 538). Says whether it did.
 */
bool reply_soften(struct reply *reply);

/*
 * One line for people: all lines' texts, printable, without the code's
 * repetition. Cut at cap, which is at least 4.
 */
void reply_line(const struct reply *reply, char *to, size_t cap);

#endif
