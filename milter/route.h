/*
 * Whom an envelope names, and which mailbox a recipient's mail goes through.
 * Pure. Addresses come as in SMTP ("<a@b>") or bare.
 */
#ifndef RELAY365_MILTER_ROUTE_H
#define RELAY365_MILTER_ROUTE_H

#include "conf/conf.h"

#define ROUTE_ADDRESS_MAX                                                    \
	320 /* bytes that are looked at; an address has at most 64 + 1 + 255 \
	     */

/*
 * Whom it means, "" for the null sender. Milters see what a client wrote, while
 * the MTA sends, and Microsoft counts, an address without routes, comments,
 * needless quotes and the root's dot, and a%b or b!a as a@b: all spellings of an
 * address come out as one here. What can't be read stays, cut at ROUTE_ADDRESS_MAX.
 */
void route_address(const char *smtp, char out[ROUTE_ADDRESS_MAX + 1]);

/*
 * The same for a recipient. local is the domains that stay on the MTA's machine,
 * as Postfix lists them, or NULL: not known. Behind one of these a local part
 * may lead on: a%b@local is a@b.
 */
void route_recipient(const char *smtp, const char *local, char out[ROUTE_ADDRESS_MAX + 1]);

/* The domain in an address, "" when it has none. Points into it. */
const char *route_domain(const char *address);

/*
 * The mailbox that the MTA has chosen: by Postfix's transport, relay365-NAME;
 * for Sendmail's mailer relay365, and for a next hop in relay_hosts, by the
 * sender, as relay365-submit does. NULL: the mail goes elsewhere and does not
 * count. mailer and host may be NULL; sender is bare.
 */
const struct conf_mailbox *route_mailbox(const struct conf *conf, const char *mailer,
					 const char *host, const char *sender);

/*
 * The mailbox of mail for which the MTA does not tell the transport: the
 * sender's, unless the recipient, from route_recipient(), is in a local domain.
 * May count too much (local as above; a table in it can't be read), never too
 * little.
 */
const struct conf_mailbox *route_unknown(const struct conf *conf, const char *local,
					 const char *recipient, const char *sender);

#endif
