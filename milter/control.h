/*
 * The milter's control verbs (relay365-control(7)):
 *
 * status:
 *	{"pid":1, "version":"0.1", "started":"2026-11-23T14:07:05Z",
 *	 "socket":"unix:/...", "sessions":3, "shadow":false,
 *	 "mailboxes":[{"name":"relay", "address":"relay@contoso.com",
 *	               "limit":"recipients_per_day", "used":8012, "reserved":3, "max":9500,
 *	               "window_s":86400, "room_at":null}, ...],
 *	 "limits":[{"limit":"per-user", "per":"source", "count":"messages", "key":"erp",
 *	            "used":12, "reserved":0, "max":500, "window_s":86400, "action":"reject",
 *	            "room_at":"2026-11-23T14:07:05Z"}, ...],
 *	 "incidents":[{"incident":"a1f3", "limit":"recipients_per_day",
 *	               "key":"relay@contoso.com", "percent":80, "used":8012, "max":10000,
 *	               "text":"relay@contoso.com: 8012 of 10000 recipients used in 24 h",
 *	               "since":"2026-11-23T14:07:05Z", "full_at":null,
 *	               "top":[{"source":"erp", "recipients":5000}, ...]}, ...],
 *	 "runaways":[{"incident":"b2e4", "source":"erp", "hour":1200, "usual":50,
 *	              "since":"2026-11-23T14:07:05Z"}, ...],
 *	 "alarms":[{"id":"limit/...", "since":..., "what":..., "action":...}, ...]}
 *
 *	Times are RFC 3339; room_at is when one more has room, null if that is
 *	now. mailboxes has each configured mailbox, also when nothing is counted;
 *	limits has every counter of the other limits, in no order. used includes
 *	mail that was accepted to wait, so it may be over max. incidents are limits
 *	that are nearly full; full_at is a forecast.
 *
 * reload:
 *	{"reloaded":true, "restart_for":"log, milter_socket"}
 *
 *	restart_for names settings that changed and count at the next start; "" if none.
 */
#ifndef RELAY365_MILTER_CONTROL_H
#define RELAY365_MILTER_CONTROL_H

#include "base/loop.h"
#include "milter/incidents.h"
#include "milter/live.h"
#include "quota/quota.h"

struct milter_control;

/* Serves run_dir/control on the loop. All that is given must outlive it. */
struct milter_control *milter_control_serve(struct loop *loop, struct live *live,
					    struct quota *quota,
					    const struct incidents *incidents, const char *socket,
					    struct err *err);
void milter_control_free(struct milter_control **control);

/* Reads the configuration again and logs what came of it; who is the one who asked. */
int milter_control_reload(struct live *live, const char *who, struct err *err);

#endif
