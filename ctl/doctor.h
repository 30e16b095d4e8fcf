/*
 * relay365 doctor: a table of checks, in the order of the way that mail goes.
 * Each is one function, which adds findings; the first fault is the first
 * cause, since what comes after it may fail because of it.
 */
#ifndef RELAY365_CTL_DOCTOR_H
#define RELAY365_CTL_DOCTOR_H

#include "ctl/ctl.h"
#include "ctl/setup.h"

enum verdict {
	DOCTOR_OK,
	DOCTOR_UNPROVEN, /* can't be seen from here, or not now */
	DOCTOR_WARNING,
	DOCTOR_FAULT
};

struct finding {
	const char *check; /* its id */
	enum verdict verdict;
	char *evidence;
	char *action; /* "" when there is nothing to do */
};

/* A Postfix that delivers through relay365: postmulti(1) makes several on one machine. */
struct doctor_instance {
	char *config_dir;
	struct setup_facts facts;
};

struct doctor {
	const struct conf *conf; /* NULL: it could not be read */
	const char *conf_path;
	const char *config_dir;	  /* the only Postfix to look at; NULL: those of conf */
	const char *sendmail_dir; /* of Sendmail; NULL: /etc/mail */
	const char *send_to;	  /* NULL: no message is sent */
	bool verbose;		  /* transcripts are kept */

	/* What the checks learn, for those that follow. */
	struct doctor_instance *instance;
	size_t instances;
	const char *looks_at; /* with several, the folder of the one that is looked at; or NULL */
	struct postfix_facts postfix; /* of it, else of the first; unset when there is none */
	cJSON *tokend;		      /* NULL: it does not answer */
	cJSON *milter;
	struct buf transcript;

	const char *current; /* id of the check that runs */
	struct finding *finding;
	size_t findings;
};

/* Adds a finding. action may be NULL. */
void doctor_add(struct doctor *doctor, enum verdict verdict, const char *action, const char *fmt,
		...) PRINTF_LIKE(4, 5);

/* Whether some finding of this check is a fault. */
bool doctor_failed(const struct doctor *doctor, const char *check);

/* doctor_files.c */
void doctor_configuration(struct doctor *doctor);
void doctor_files(struct doctor *doctor);
/* doctor_sendmail.c */
void doctor_sendmail(struct doctor *doctor);
/* doctor_daemons.c */
void doctor_daemons(struct doctor *doctor);
void doctor_sockets(struct doctor *doctor);
void doctor_tokens(struct doctor *doctor);
void doctor_mailboxes(struct doctor *doctor);
void doctor_limits(struct doctor *doctor);
/* doctor_postfix.c */
/* What is looked at from now on: this instance, or NULL: the machine, with the first of them. */
void doctor_look_at(struct doctor *doctor, const struct doctor_instance *instance);
void doctor_clear_instances(struct doctor *doctor);
void doctor_postfix(struct doctor *doctor);
void doctor_wiring(struct doctor *doctor);
void doctor_plugin(struct doctor *doctor);
void doctor_settings(struct doctor *doctor);
/* doctor_network.c */
void doctor_clock(struct doctor *doctor);
void doctor_server(struct doctor *doctor);
void doctor_sign_in(struct doctor *doctor);
/* doctor_domains.c */
void doctor_domains(struct doctor *doctor);
/* doctor_send.c */
void doctor_send(struct doctor *doctor);

#endif
