/*
 * A lease on a sending slot of a mailbox, asked of relay365-tokend over its
 * token socket (relay365-token(7)). The connection is the lease: whoever holds
 * lease.fd holds the slot, and closing it gives the slot back.
 *
 * For use inside a stranger's process: libc only, no allocation, no logging,
 * no static data, no signals (SIGPIPE included), and one deadline for the
 * whole of it, on the monotonic clock. Any thread may call it.
 */
#ifndef RELAY365_PROTO_LEASE_H
#define RELAY365_PROTO_LEASE_H

#include <stddef.h>

#define LEASE_ANSWER_SIZE 32768 /* bytes: the longest message of the token protocol */
#define LEASE_REASON_SIZE 256	/* bytes, the NUL included */
#define LEASE_NAME_MAX 64	/* bytes of a lease's name, the NUL included */
#define LEASE_DEADLINE_MS 30000 /* the daemon paces by letting us wait for seconds */

enum lease_result {
	LEASE_OK,
	LEASE_LATER,	   /* the daemon: not now, see reason and retry_after_s */
	LEASE_DENIED,	   /* the daemon: not before an admin acts, see reason */
	LEASE_BAD_PATH,	   /* empty, or too long for a socket address */
	LEASE_BAD_MAILBOX, /* can't stand in a request */
	LEASE_UNREACHABLE, /* no connection, see error */
	LEASE_TIMEOUT,	   /* connected or not, the deadline passed */
	LEASE_CLOSED,	   /* the connection ended before the answer did, see error */
	LEASE_BAD_ANSWER   /* not the token protocol, too long, or status=ok without a token */
};

struct lease {
	int fd;		   /* with LEASE_OK the caller's to close, else -1 */
	int error;	   /* an errno, or 0 */
	const char *token; /* with LEASE_OK, inside the caller's answer, no NUL at its end */
	size_t token_len;
	char name[LEASE_NAME_MAX];	/* for verb=status and verb=end, else "" */
	char reason[LEASE_REASON_SIZE]; /* the daemon's words, printable, else "" */
	int retry_after_s;		/* 0 when the daemon did not say */
};

/*
 * The path in "unix:PATH", which points into address, or NULL when address is
 * no such text. A path without a leading slash is relative to the working
 * directory of the process, for Postfix its queue directory, chrooted or not.
 */
const char *lease_path(const char *address);

/*
 * Asks the daemon at path for a lease on mailbox and waits until it answers,
 * deadline_ms at most; a daemon that isn't there gets three seconds of it to come
 * back from a restart. recipients: how many the message may have; 0 leaves that
 * to the daemon, and makes it take this process for one that holds no other lease.
 * answer, of cap bytes (LEASE_ANSWER_SIZE for all that may come), receives the raw
 * answer: it is as secret as the token, and the caller erases it whatever the
 * result is. lease_r is always filled.
 */
enum lease_result lease_ask(const char *path, const char *mailbox, int recipients,
			    int deadline_ms, char *answer, size_t cap, struct lease *lease_r);

/* Closes the connection, if there is one, and with it the lease. */
void lease_end(struct lease *lease);

/*
 * What a result other than LEASE_OK means and what the admin can do about it,
 * as one sentence without the mailbox's name. NUL-terminated, cut at cap bytes.
 */
void lease_explain(enum lease_result result, const struct lease *lease, const char *path,
		   int deadline_ms, char *to, size_t cap);

#endif
