/*
 * Tells relay365-tokend what it must know though it restarts or hangs: at once
 * if it answers at once, else in a thread that goes on for a minute, one after
 * the other. Who tells does not wait for that. Any thread may tell.
 */
#ifndef RELAY365_SENDMAIL_REPORTER_H
#define RELAY365_SENDMAIL_REPORTER_H

#include "base/err.h"

#include <stdint.h>

struct reporter;

enum report_kind {
	REPORT_DELIVERY, /* must not be lost: it is told as long as this process may last */
	REPORT_END,	 /* of a lease: tokend sees for itself when this process ends */
	REPORT_REFUSAL	 /* kept only while there is little to tell */
};

/* A request of relay365-token(7) that is answered status=ok when it was understood. */
struct report {
	enum report_kind kind;
	const char *path; /* of the token socket */
	const char *request;
	size_t len;
	const char *loss; /* what it means, if it can't be told: a sentence for the log */
	int lease_fd;	  /* closed when it is told, or given up; -1: none */
};

/* Starts the thread. NULL: it can't. */
struct reporter *reporter_start(struct err *err);

/* Copies what it needs of report, and takes its lease_fd over. */
void reporter_tell(struct reporter *reporter, const struct report *report);

/* Tells what is left, until then (boot clock), and ends the thread. */
void reporter_stop(struct reporter *reporter, int64_t until_boot_ms);

/* After reporter_stop(), when nobody tells any more. */
void reporter_free(struct reporter **reporter);

#endif
