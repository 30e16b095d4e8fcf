/*
 * What Postfix needs to deliver through relay365, generated from the
 * configuration: a service and a few parameters for each mailbox, the map of
 * senders and the filter of replies. Pure text: nothing is read or changed.
 */
#ifndef RELAY365_POSTFIX_GENERATE_H
#define RELAY365_POSTFIX_GENERATE_H

#include "base/buf.h"
#include "conf/conf.h"

#define GENERATE_MAX (8u << 20) /* bytes of one text */

/* Where the generated files go: the folder of relay365.conf, with "/postfix". */
char *generate_folder(const struct conf *conf);

/*
 * master.cf: one service for each mailbox. chroot: what stands in that column,
 * 'y', 'n' or '-', as for the smtp service that is there.
 */
void generate_master(const struct conf *conf, char chroot, struct buf *text);

/*
 * The milter as smtpd_milters of the Postfix with this queue directory names it; the caller
 * frees. A socket in there is named from there: smtpd(8) finds it with and without chroot.
 * NULL: the queue directory of conf, if there is just one.
 */
char *generate_milter(const struct conf *conf, const char *queue_directory);

/*
 * main.cf parameters, one call each, for generate_milter()'s queue_directory. add: an entry for a
 * list that the admin may have (smtpd_milters), to stand last in it, instead of the whole value.
 */
void generate_main(const struct conf *conf, const char *queue_directory,
		   void (*each)(void *arg, const char *name, const char *value, bool add),
		   void *arg);

/* texthash: sender pattern, transport and next hop. */
void generate_sender_transport(const struct conf *conf, struct buf *text);

/* regexp: Microsoft's 5xx replies that an admin or time can mend, as 4xx. */
void generate_reply_filter(struct buf *text);

#endif
