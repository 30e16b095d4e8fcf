/*
 * The milter protocol, through libmilter: the only file that knows mfapi.h.
 * One milter a process, so the functions keep their state inside.
 *
 * Asked of the MTA: MAIL, RCPT and end of message with just the macros that
 * count; no HELO, DATA or body, content only for a sender policy or a limit of bytes, and CONNECT
 * only from an MTA that can't send the client's address with MAIL. MAIL is taken without a reply
 * where the MTA offers that. What is refused is refused at RCPT, except in
 * the sessions that Postfix simulates for local mail: there at end of message.
 */
#ifndef RELAY365_MILTER_MILTER_H
#define RELAY365_MILTER_MILTER_H

#include "milter/live.h"
#include "milter/usage.h"
#include "quota/quota.h"

/*
 * Listens where the configuration says: milter_socket (unix:PATH, local:PATH,
 * a path, inet:PORT@HOST, inet6:PORT@HOST), or relay365m/milter in the queue
 * directory. A UNIX socket is for the group postfix. *where_r is static.
 */
int milter_listen(const struct conf *conf, const char **where_r, struct err *err);

/* Serves until a SIGTERM reaches libmilter's own thread. -1: libmilter gave up. */
int milter_run(struct live *live, struct quota *quota, struct usage *usage);

/*
 * Makes libmilter see that it has been told to end: it looks every five seconds
 * and after each connection, so this connects. From any other thread.
 */
void milter_wake(void);

/* Removes the socket. */
void milter_cleanup(void);

/* Sessions that are open now. */
int milter_sessions(void);

#endif
