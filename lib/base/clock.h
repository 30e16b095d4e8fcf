/*
 * Time. Two clocks: the wall clock (what people and certificates mean; may
 * step) and the boot clock (CLOCK_BOOTTIME: never steps, counts while the
 * machine sleeps). All times are int64_t milliseconds; wall times since
 * 1970-01-01 UTC, boot times since the machine started. Any thread may call.
 */
#ifndef RELAY365_BASE_CLOCK_H
#define RELAY365_BASE_CLOCK_H

#include "base/compat.h"

#include <stdint.h>

#define CLOCK_TEXT_MAX 32 /* bytes that the texts below need, with the NUL */

int64_t clock_wall_ms(void);
int64_t clock_boot_ms(void);

/* "2026-11-23T14:07:05Z" (RFC 3339) of a wall time, into out, which is returned. */
const char *clock_rfc3339(int64_t wall_ms, char out[CLOCK_TEXT_MAX]);

/* "14:07 UTC", or "2026-11-24 14:07 UTC" when it is over 18 h from now; rounded up to the minute.
 */
const char *clock_for_people(int64_t wall_ms, int64_t now_wall_ms, char out[CLOCK_TEXT_MAX]);

/*
 * A clock for limits: it goes on from the last time that was stored by the boot
 * clock's progress alone, so that no step of the wall clock gives credit or
 * takes it, and a window is as long as it says. The wall clock has a word only
 * at the first start, and for the time that the machine was down. Goes back
 * never: a steady time is never less than one that was read before.
 */
struct steady {
	int64_t at_ms;	 /* steady time, on the wall clock's scale */
	int64_t boot_ms; /* boot clock when at_ms was computed */
};

/* What a ledger keeps to start its steady clock again. */
struct steady_mark {
	int64_t at_ms;
	int64_t boot_ms;
	int64_t wall_ms;  /* 0: not known; then at_ms is taken for it */
	char boot_id[40]; /* the kernel's, "" if unknown: tells whether boot_ms still counts */
};

/* The most that a start believes the wall clock beyond what the boot clock can tell. */
#define STEADY_START_JUMP_MS (10 * 60 * 1000)

/*
 * Starts the clock from a mark (NULL: no history, the wall clock is taken).
 * Within a boot just its clock counts. Across boots the wall clock tells how
 * long the machine was down, and is believed within the bound above. Returns
 * how many ms more (negative: less) the wall clock says have passed than are
 * believed: more than STEADY_START_JUMP_MS either way deserves an alarm.
 */
int64_t steady_start(struct steady *steady, const struct steady_mark *mark, int64_t wall_ms,
		     int64_t boot_ms, const char *boot_id);

/* The time now. */
int64_t steady_now(const struct steady *steady, int64_t boot_ms);

/* The kernel's boot id; "" when it can't be read. */
void clock_boot_id(char out[40]);

#endif
