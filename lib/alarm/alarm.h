/*
 * Alarms: telling an admin, by alarm_command and alarm_url, of what needs him.
 *
 * An incident has an id that its finder chooses ("token/contoso",
 * "calendar/contoso/certificate") and is raised and cleared as often as the
 * finder likes: one alarm goes out when it begins, one more each time its level
 * rises, be it again, and one recovery notice when it ends. What was told is
 * remembered in a folder, so that a restart neither repeats nor forgets it.
 *
 * Nothing here waits: each notice is carried out by a process of its own
 * (`relay365 alarm`, which gets it as JSON on standard input), few at a time.
 * One that failed is tried again later. All functions may be called from any
 * thread.
 */
#ifndef RELAY365_ALARM_ALARM_H
#define RELAY365_ALARM_ALARM_H

#include "conf/conf.h"

#include <cjson/cJSON.h>

#define ALARM_CHILDREN_MAX 4	 /* notices under way */
#define ALARM_INCIDENTS_MAX 2000 /* what is found beyond that is only logged by its finder */
#define ALARM_ID_MAX 200	 /* bytes */
#define ALARM_TEXT_MAX 600	 /* bytes of each text; longer ones are cut */

/*
 * Once, before the first alarm: daemon is the program's name (kept, not
 * copied); folder (made when missing) keeps what was told. What stands there
 * counts as raised until it is cleared. Until this is called, and in programs
 * that never call it, alarms go nowhere.
 */
void alarms_open(const char *daemon, const char *folder, const struct conf *conf);

/* After a reload: conf need not outlive the call. */
void alarms_configure(const struct conf *conf);

/* At the program's end. Notices under way are carried out all the same. */
void alarms_close(void);

/*
 * level: 1 and up. what is a sentence that says what is wrong, action one that
 * says what to do; both without their full stop. what is made plain
 * (base/plain.h); an id must be.
 */
void alarm_raise(const char *id, int level, const char *what, const char *action);

/* Nothing happens when the incident is not there. */
void alarm_clear(const char *id);

/* Every few seconds: looks after the processes and tries again what failed. */
void alarms_tick(void);

/* For status: [{"id", "since", "what", "action"}, ...], what is raised now. */
cJSON *alarms_status(void);

#endif
