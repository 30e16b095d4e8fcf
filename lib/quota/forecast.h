/*
 * When a limit will be full, if its use goes on at the pace of late. Pure; a
 * guess for a warning, not for a decision.
 */
#ifndef RELAY365_QUOTA_FORECAST_H
#define RELAY365_QUOTA_FORECAST_H

#include "quota/window.h"

/*
 * The pace is that of the last 24th of the window (an hour of a day); what is
 * used falls out of the window meanwhile. now_ms if it is full; -1 if it will
 * not be within one window's length.
 */
int64_t forecast_full_at(struct window *window, int64_t now_ms, int64_t max);

#endif
