/*
 * A conversation in lines with a server, as an admin would hold it by hand:
 * connect, read replies, start TLS. Blocks, each step for a bounded time.
 * What is said is kept as a transcript, secrets left out.
 */
#ifndef RELAY365_CTL_DIALOGUE_H
#define RELAY365_CTL_DIALOGUE_H

#include "base/buf.h"
#include "base/err.h"

enum { DIALOGUE_REPLY_MAX = 8192, DIALOGUE_STEP_MS = 20000 };

struct dialogue {
	int fd;
	struct tls *tls; /* NULL: in clear */
	struct tls_trust *trust;
	struct buf in;
	struct buf *transcript; /* NULL: none is kept */
};

/* error_r: as dial() gives it. Returns -1 with err. */
int dialogue_open(struct dialogue *talk, const char *host, int64_t port, int timeout_ms,
		  struct buf *transcript, int *error_r, struct err *err);

/* From here on the words are encrypted; the chain and the name are verified. */
int dialogue_start_tls(struct dialogue *talk, const char *host, const char *ca_file,
		       struct err *err);

/* Sends line and CR LF. shown (NULL: line) goes into the transcript. */
int dialogue_say(struct dialogue *talk, const char *line, const char *shown, struct err *err);

/* The next line without its end; reply has room for DIALOGUE_REPLY_MAX. */
int dialogue_line(struct dialogue *talk, char *line, struct err *err);

/*
 * A whole SMTP reply, lines joined by a line feed. Returns its code, or -1.
 * RFC 5321, section 4.2.
 */
int dialogue_reply(struct dialogue *talk, char *reply, struct err *err);

void dialogue_close(struct dialogue *talk);

#endif
