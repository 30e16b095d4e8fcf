#include "base/clock.h"

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

static int64_t read_clock(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
	return read_clock(CLOCK_REALTIME);
}

int64_t clock_boot_ms(void)
{
	return read_clock(CLOCK_BOOTTIME);
}

const char *clock_rfc3339(int64_t wall_ms, char out[CLOCK_TEXT_MAX])
{
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL ||
	    strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		(void)snprintf(out, CLOCK_TEXT_MAX, "unknown");
	return out;
}

const char *clock_for_people(int64_t wall_ms, int64_t now_wall_ms, char out[CLOCK_TEXT_MAX])
{
	/* Rounded up, since "room at 14:07" must be true then; but a second is not worth a
	 * minute. */
	time_t t = (time_t)((wall_ms + 58999) / 60000 * 60);
	bool far = wall_ms - now_wall_ms > 18 * 3600000LL;
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL ||
	    strftime(out, CLOCK_TEXT_MAX, far ? "%Y-%m-%d %H:%M UTC" : "%H:%M UTC", &tm) == 0)
		(void)snprintf(out, CLOCK_TEXT_MAX, "unknown");
	return out;
}

int64_t steady_start(struct steady *steady, const struct steady_mark *mark, int64_t wall_ms,
		     int64_t boot_ms, const char *boot_id)
{
	int64_t least, ahead;

	steady->boot_ms = boot_ms;
	if (mark == NULL) {
		steady->at_ms = wall_ms;
		return 0;
	}
	if (boot_id[0] != '\0' && strcmp(boot_id, mark->boot_id) == 0 &&
	    boot_ms >= mark->boot_ms) {
		/* The same boot: the boot clock knows what has passed. */
		steady->at_ms = mark->at_ms + (boot_ms - mark->boot_ms);
		return wall_ms - steady->at_ms;
	}
	/* Another boot: this machine's uptime has certainly passed; the rest is the wall clock's
	 * word. */
	least = mark->at_ms + boot_ms;
	ahead = wall_ms - least;
	if (ahead > STEADY_START_JUMP_MS)
		steady->at_ms = least + STEADY_START_JUMP_MS;
	else
		steady->at_ms = ahead > 0 ? wall_ms : least;
	return wall_ms - steady->at_ms;
}

int64_t steady_now(struct steady *steady, int64_t wall_ms, int64_t boot_ms)
{
	int64_t passed = boot_ms - steady->boot_ms;
	int64_t ahead, slew;

	if (passed <= 0)
		return steady->at_ms;
	slew = passed / STEADY_SLEW;
	if (slew == 0 && passed < STEADY_SLEW)
		return steady->at_ms + passed; /* too short to slew: keep the base */
	steady->at_ms += passed;
	steady->boot_ms = boot_ms;
	ahead = wall_ms - steady->at_ms;
	if (ahead > slew)
		ahead = slew;
	else if (ahead < -slew)
		ahead = -slew;
	steady->at_ms += ahead;
	return steady->at_ms;
}

void clock_boot_id(char out[40])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, 36);

	if (fd >= 0)
		(void)close(fd);
	out[n == 36 ? 36 : 0] = '\0';
}
