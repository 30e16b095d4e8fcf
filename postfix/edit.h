/*
 * main.cf and master.cf as text, edited so that it can be undone to the byte,
 * whatever the admin has changed elsewhere in the file meanwhile: what counts
 * no more becomes a comment with a prefix of its own, what is new stands in
 * one block between two lines at the end. Pure text: nothing is read or
 * written. Errors say what is wrong with the file's text.
 * Syntax: postconf(5) and master(5), "general format".
 */
#ifndef RELAY365_POSTFIX_EDIT_H
#define RELAY365_POSTFIX_EDIT_H

#include "base/buf.h"
#include "base/err.h"

#define EDIT_MAX (4u << 20) /* bytes of one file */

struct edit_parameter {
	char *name;
	char *value;
};

/* The text without our marks; as it was when it has none. to must be empty. */
int edit_undo(const char *text, struct buf *to, struct err *err) WARN_UNUSED;

/* Both take a text with or without our marks, and give the new one. */
int edit_main(const char *text, const struct edit_parameter *parameter, size_t count,
	      struct buf *to, struct err *err) WARN_UNUSED;
/* services: what generate_master() made. */
int edit_master(const char *text, const char *services, struct buf *to,
		struct err *err) WARN_UNUSED;

#endif
