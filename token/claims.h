/*
 * What an access token says of itself. Entra's are JWTs (RFC 7519); they are
 * for the server only, so this is for diagnosis and decides nothing.
 */
#ifndef RELAY365_TOKEN_CLAIMS_H
#define RELAY365_TOKEN_CLAIMS_H

#include "conf/conf.h"

#include "base/secret.h"

#include <cjson/cJSON.h>

struct claims {
	bool known; /* it is a JWT */
	char aud[128];
	char appid[64];
	char tid[64];
	char rights[256]; /* roles or scp, separated by spaces */
	char user[128];	  /* who signed in; "" for an application */
	int64_t exp_s;	  /* 0: not said */
	char wrong[400];  /* why Exchange will refuse it, and what to do; "" */
	char note[400];	  /* what to look at when Exchange refuses it; "" */
};

/* Reads and judges; mailbox NULL: the token is an application's. */
void claims_read(const struct secret *token, const struct conf_tenant *tenant,
		 const struct conf_mailbox *mailbox, struct claims *claims_r);

/* For status; NULL when it is no JWT. */
cJSON *claims_json(const struct claims *claims);

#endif
