/* Why a daemon that was asked at its control socket gave no answer, and what to do. */
#ifndef RELAY365_CTL_REACH_H
#define RELAY365_CTL_REACH_H

#include "conf/conf.h"

enum reach {
	REACH_DOWN,   /* nobody listens */
	REACH_SILENT, /* somebody does, and does not answer */
	REACH_DENIED  /* we may not ask, so it is not known */
};

/* Looks at the socket once more. */
enum reach reach_of(const char *socket);

/* "down", "silent" or "denied", as status --json has it. */
const char *reach_name(enum reach reach);

/* How it is told: "relay365-tokend does not answer". The caller frees. */
char *reach_text(enum reach reach, const char *daemon);

/* The caller frees. */
char *reach_advice(enum reach reach, const char *daemon, const struct conf *conf);

#endif
