/*
 * The messages that a mail log tells of, in the order in which they came: who
 * sent each, and to whom it went on by SMTP. For Postfix and Sendmail. What the
 * MTA made itself (bounces) is none of them, nor is a message whose arrival the
 * log does not show. What postsuper -r queues again is the same message.
 */
#ifndef RELAY365_MAILLOG_MAILS_H
#define RELAY365_MAILLOG_MAILS_H

#include "maillog/logline.h"

#include <stddef.h>

#define MAILS_MAX 5000000	   /* messages that are kept; one more is refused */
#define MAILS_RECIPIENTS_MAX 10000 /* of one message; the others are left out */

/* Strings are never NULL and live as long as the mails. */
struct mail {
	int64_t at_ms; /* when it came */
	size_t number; /* its place among all, as the log tells them */
	const char *id;
	const char *sender;	/* without <>; "": the null sender */
	const char *login;	/* "": none */
	const char *client;	/* network address; "": a local user */
	int64_t bytes;		/* 0: not known */
	const char **recipient; /* those that the client named and that went on by SMTP */
	size_t recipients;
};

struct mails;

struct mails *mails_new(void);
void mails_free(struct mails **mails);

/* Takes a line in, of any program. Returns false when there are MAILS_MAX already. */
bool mails_add(struct mails *mails, const struct logline *line);

/* In the order of their arrival; *count_r says how many. No line may be added after this. */
const struct mail *mails_all(struct mails *mails, size_t *count_r);

#endif
