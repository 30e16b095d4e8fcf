/*
 * The sender policy: whom a mailbox may send as, and how another sender is
 * made the mailbox's own. Exchange Online judges SendAs on the From field, so
 * this is looked at beside the envelope, where a mailbox has other_senders set
 * to something else than accept. Pure; see relay365.conf(5), SENDERS.
 */
#ifndef RELAY365_MILTER_SENDER_H
#define RELAY365_MILTER_SENDER_H

#include "base/buf.h"
#include "conf/conf.h"
#include "milter/from.h"

#define SENDER_FIELD_MAX (2 * FROM_MAX + 400) /* bytes of a field that the policy writes */

/* Whether a message's header must be read under this configuration. */
bool sender_reads_header(const struct conf *conf);

/* Whether it may have to be changed. */
bool sender_rewrites(const struct conf *conf);

/* What the policy keeps of a header. Begins as all zeros. */
struct sender_header {
	char *from;				 /* the first From; NULL: none yet */
	char *sender;				 /* the first Sender */
	unsigned int froms, senders, signatures; /* From, Sender, DKIM-Signature */
	bool reply_to;
};

/* One field, in the order of the header. */
void sender_add_field(struct sender_header *header, const char *name, const char *value);
void sender_header_clear(struct sender_header *header);

enum sender_verdict {
	SENDER_OWN,
	SENDER_OTHER_FROM,  /* From names somebody else, can't be read, or stands there twice */
	SENDER_OTHER_SENDER /* From is well, and Sender is not */
};

/*
 * Whether the mailbox may send what says this about its sender. If not,
 * other_r is the address that it may not send as, "" when that can't be told.
 * A field that is not there says nothing that is forbidden.
 */
enum sender_verdict sender_judge(const struct conf_mailbox *mailbox,
				 const struct sender_header *header,
				 char other_r[FROM_ADDRESS_MAX + 1]);

/*
 * What to change in a message. Fields are counted from 1. In a header that is
 * changed those beyond the first From, all Sender and DKIM-Signature fields go:
 * the sender is one now, and a signature covers From (RFC 6376 section 5.4).
 */
struct sender_change {
	char envelope[FROM_ADDRESS_MAX + 1];	 /* the new envelope sender, bare; "": it stays */
	bool header;				 /* the header is changed: */
	struct buf from;			 /* From's new value; empty: it stays */
	struct buf reply_to;			 /* a field to add; empty: none */
	unsigned int froms, senders, signatures; /* that are there */
};

void sender_change_init(struct sender_change *change);

/* Whether the header must be changed so that Microsoft takes the mailbox for the sender. */
bool sender_needs_change(const struct conf_mailbox *mailbox, const struct sender_header *header);

/* Makes From the mailbox's, unless it is already; the name stays, and Reply-To is what From was.
 */
void sender_change_header(const struct conf_mailbox *mailbox, const struct sender_header *header,
			  struct sender_change *change);
void sender_change_clear(struct sender_change *change);

#endif
