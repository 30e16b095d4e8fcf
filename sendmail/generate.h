/*
 * What Sendmail needs to deliver through relay365: one line of sendmail.mc,
 * between two lines of ours above its mailers. Pure text: nothing is read or
 * changed.
 */
#ifndef RELAY365_SENDMAIL_GENERATE_H
#define RELAY365_SENDMAIL_GENERATE_H

#include "base/buf.h"
#include "conf/conf.h"

#define GENERATE_MC_MAX (1u << 20) /* bytes of sendmail.mc */

/* FEATURE(`relay365', ...), with its line end. -1: the milter's socket can't be told. */
int generate_feature(const struct conf *conf, struct buf *line, struct err *err) WARN_UNUSED;

/* sendmail.mc without our lines, as it was before; to must be empty. */
int generate_mc_undo(const char *text, struct buf *to, struct err *err) WARN_UNUSED;

/* sendmail.mc, with our lines or without, with these. */
int generate_mc(const char *text, const char *feature, struct buf *to,
		struct err *err) WARN_UNUSED;

/* The folder of cf/m4/cf.m4 that sendmail.mc includes, less m4/; the caller's. NULL: none. */
char *generate_cf_folder(const char *text);

/* Whether two sendmail.cf say the same: comments tell who made it, and when. */
bool generate_same_cf(const char *a, const char *b);

#endif
