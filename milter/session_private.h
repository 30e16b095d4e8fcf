/* What session.c (what happens to a message) and session_log.c (what is said of it) share. */
#ifndef RELAY365_MILTER_SESSION_PRIVATE_H
#define RELAY365_MILTER_SESSION_PRIVATE_H

#include "base/log.h"
#include "milter/route.h"
#include "milter/session.h"

#define SESSION_HOST_MAX 255

/* What a message sends through one mailbox. */
struct tally {
	const struct conf_mailbox *mailbox;
	struct quota_facts facts; /* all but the recipient */
	int64_t recipients;
	int64_t external;
};

struct session {
	struct live *live;
	struct quota *quota;
	struct usage *usage;

	/* The message; conf is NULL between messages. */
	struct live_conf *conf;
	struct quota_message *reserved;
	struct sender_header header;
	const struct conf_source *from; /* conf's; NULL: no source says who this is */
	size_t tallies;
	struct tally tally[SESSION_MAILBOXES_MAX];
	char sender[ROUTE_ADDRESS_MAX + 1];
	/* The source's name in the configuration, else login, else client's address, else
	 * "local". */
	char source[ROUTE_ADDRESS_MAX + 1];
	char client[SESSION_CLIENT_MAX + 1];
	char queue_id[SESSION_ID_MAX + 1];
	bool locked; /* the source is, for the reason in lock */
	struct lock lock;
	bool simulated;
	int64_t bytes;		    /* as announced, */
	int64_t seen;		    /* as they came, where they are looked at */
	struct quota_verdict noted; /* the worst that did not refuse; exceeded is false if none */
	char noted_mailbox[CONF_NAME_MAX + 1];
	struct reply refused;	/* simulated: what end of message will answer; "" if nothing */
	struct usage_hour hour; /* of the source, with this message */
};

/* One line of the log each. A verdict of a limit; mailbox is the mailbox's name. */
void session_log_verdict(const struct session *session, enum log_event event,
			 const struct quota_verdict *verdict, const char *mailbox);

/* What a policy does to a message, beside the limits; header_from may be NULL. */
void session_log_policy(const struct session *session, enum log_event event, const char *policy,
			const struct conf_mailbox *mailbox, const char *header_from);

/* The source is locked. */
void session_log_locked(const struct session *session, const struct conf_mailbox *mailbox);

/* One for each mailbox that the message goes through. */
void session_log_accepted(const struct session *session, const struct quota_use *fullest);

void session_log_too_many(const struct session *session, const struct tally *tally);

/* Why a message is deferred that is not to blame. */
void session_log_trouble(const struct session *session, const char *limit, const char *text);

/* About the source, which runs away. */
void session_log_runaway(const struct session *session, enum log_event event);

#endif
