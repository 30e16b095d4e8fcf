/*
 * What came from outside, made fit to be shown: a terminal obeys control
 * characters, and readers of JSON and the journal stumble over them and over
 * what is no UTF-8. Any thread.
 */
#ifndef RELAY365_BASE_PLAIN_H
#define RELAY365_BASE_PLAIN_H

#include "base/compat.h"

/* The length of the character at text; 0: a control character, or no UTF-8 (RFC 3629). */
size_t plain_length(const char *text, size_t len);

/*
 * Puts a blank for each tab and line break, and "?" for each other byte that is
 * part of no such character. Returns text.
 */
char *plain(char *text);

#endif
