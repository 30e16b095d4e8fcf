/*
 * What in a Postfix's configuration keeps relay365 from working, or hurts.
 * Pure judgement of what postconf(1) printed.
 */
#ifndef RELAY365_POSTFIX_CHECK_H
#define RELAY365_POSTFIX_CHECK_H

#include "conf/conf.h"
#include "postfix/facts.h"

enum check_grade {
	CHECK_WARNING, /* mail goes, not as it should */
	CHECK_FAULT    /* mail does not go, or a limit does not hold */
};

/* evidence: what stands there; action: what to do. Sentences without their full stop. */
typedef void check_finding(void *arg, enum check_grade grade, const char *evidence,
			   const char *action);

/* That relay365's services, maps and milter are in it: what setup postfix --apply sees to. */
void check_wiring(const struct conf *conf, const struct postfix_facts *facts,
		  check_finding *finding, void *arg);

/* What is known to hurt: open relay, wide mynetworks, smtp -v, filters, lifetimes. */
void check_settings(const struct conf *conf, const struct postfix_facts *facts,
		    check_finding *finding, void *arg);

/* "4h" in seconds; -1 when it is no time. postconf(5), time values. */
int64_t check_time_s(const char *value);

#endif
