/* relay365 limits --what-if: a mail log, replayed under a configuration. */
#ifndef RELAY365_CTL_WHAT_IF_H
#define RELAY365_CTL_WHAT_IF_H

#include "ctl/ctl.h"

#include "maillog/mails.h"

/*
 * Lets the messages pass the limits of conf in the order of their arrival, by
 * the same engine that the milter uses, and returns what it would have done:
 * see relay365(8).
 */
cJSON *what_if_replay(const struct conf *conf, const struct mail *mails, size_t count);

/* The result of what_if_replay() for reading. */
void what_if_print(const cJSON *result);

#endif
