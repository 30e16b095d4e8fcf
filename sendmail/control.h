/* relay365-submit's side of the relay365 command: relay365-control(7). */
#ifndef RELAY365_SENDMAIL_CONTROL_H
#define RELAY365_SENDMAIL_CONTROL_H

#include "base/loop.h"
#include "sendmail/live.h"

#include <stdatomic.h>

struct submit_control;

/* Serves "control" in submit_run_dir on loop; live, socket and sessions must outlive it. */
struct submit_control *submit_control_serve(struct loop *loop, const struct conf *conf,
					    struct live *live, const char *socket,
					    const atomic_int *sessions, struct err *err);
void submit_control_free(struct submit_control **control);

/* Reads the configuration again for who asks, and logs how it went. */
int submit_control_reload(struct live *live, const char *who, struct err *err);

#endif
