/* What the files of an identity share. */
#ifndef RELAY365_TOKEN_IDENTITY_PRIVATE_H
#define RELAY365_TOKEN_IDENTITY_PRIVATE_H

#include "token/answer.h"
#include "token/claims.h"
#include "token/gate.h"
#include "token/identity.h"

struct identity {
	struct identity_parts parts;
	const struct conf_tenant *conf;
	const struct conf_mailbox *mailbox; /* NULL: an application's, for all mailboxes */
	char name[VAULT_NAME_MAX + 1];	    /* for logs: "contoso", or "mailbox/relay" */
	char key[VAULT_NAME_MAX + 1];	    /* file in the vault */

	struct secret token;
	int64_t expires_boot_ms; /* by the boot clock: a wall clock's step changes nothing */
	int64_t expires_wall_ms; /* for people */
	bool kept;		 /* the token is an earlier process's */
	struct claims claims;

	struct secret refresh;
	int64_t refreshed_wall_ms; /* when it was last got or used */

	/* A token that waits for the refresh token that came with it to be on disk. */
	struct secret fresh;
	int64_t fresh_expires_boot_ms;
	int64_t fresh_expires_wall_ms;
	bool storing;
	struct loop_timer store_timer;

	int64_t doubted_boot_ms; /* when a refusal last made us fetch another; 0: never */
	struct gate_ticket ticket;
	struct http_request *request;
	struct loop_timer timer; /* next fetch: renewal or retry */
	uint64_t fingerprint;	 /* of the credential's files, when they were last read */
	bool next;		 /* the second certificate is in use */
	bool tried_both;
	unsigned int failures; /* in a row */
	bool permanent;
	bool alarmed; /* an admin was told of the trouble that lasts */
	char reason[512];
	long aadsts;
	int64_t failed_wall_ms;
	unsigned long requests;

	struct identity_waiter *first, *last;
	unsigned int waiters;
};

/* identity.c */
bool identity_has_token(const struct identity *identity);
int64_t identity_retry_in_ms(const struct identity *identity);
void identity_tell_all(struct identity *identity);

/* A new token is served now: somebody may want to try it. */
void identity_tell_renewed(struct identity *identity);

/* identity_fetch.c: asks for a token, unless that is under way. */
void identity_fetch(struct identity *identity);

/* Ends what is under way. */
void identity_stop_fetch(struct identity *identity);

/* A request has ended, well or not; clears answer. */
void identity_conclude(struct identity *identity, struct answer *answer, int64_t took_ms);

/* identity_keep.c: what an earlier process kept. */
void identity_load(struct identity *identity);

/*
 * A token that has just come, with identity->refresh as it is to be kept. It
 * is served at once, or, when wait, as soon as it is on disk (or the disk has
 * had its time).
 */
void identity_keep(struct identity *identity, struct secret *token, int64_t life_ms, bool wait);

/* Stops waiting for the disk; the fresh token counts. */
void identity_stop_keep(struct identity *identity);

#endif
