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

static char *two_digits(char *out, int n, char behind)
{
	out[0] = (char)('0' + n / 10);
	out[1] = (char)('0' + n % 10);
	out[2] = behind;
	return out + 3;
}

const char *clock_rfc3339(int64_t wall_ms, char out[CLOCK_TEXT_MAX])
{
	time_t t = (time_t)(wall_ms / 1000);
	int year = 0;
	struct tm tm;
	char *at;

	if (gmtime_r(&t, &tm) != NULL)
		year = tm.tm_year + 1900;
	if (year < 1000 || year > 9999) {
		(void)snprintf(out, CLOCK_TEXT_MAX, "unknown");
		return out;
	}
	/* Not strftime(): this stands in each line of the log. */
	at = two_digits(out, year / 100, '\0') - 1;
	at = two_digits(at, year % 100, '-');
	at = two_digits(at, tm.tm_mon + 1, '-');
	at = two_digits(at, tm.tm_mday, 'T');
	at = two_digits(at, tm.tm_hour, ':');
	at = two_digits(at, tm.tm_min, ':');
	at = two_digits(at, tm.tm_sec, 'Z');
	*at = '\0';
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
	int64_t claimed, passed;

	steady->boot_ms = boot_ms;
	if (mark == NULL) {
		steady->at_ms = wall_ms;
		return 0;
	}
	claimed = wall_ms - (mark->wall_ms != 0 ? mark->wall_ms : mark->at_ms);
	if (boot_id[0] != '\0' && strcmp(boot_id, mark->boot_id) == 0 && boot_ms >= mark->boot_ms)
		passed = boot_ms - mark->boot_ms;
	else if (claimed > boot_ms + STEADY_START_JUMP_MS)
		passed = boot_ms + STEADY_START_JUMP_MS;
	else
		passed = claimed > boot_ms ? claimed
					   : boot_ms; /* up for so long it certainly is */
	steady->at_ms = mark->at_ms + passed;
	return claimed - passed;
}

int64_t steady_now(const struct steady *steady, int64_t boot_ms)
{
	return boot_ms <= steady->boot_ms ? steady->at_ms
					  : steady->at_ms + (boot_ms - steady->boot_ms);
}

void clock_boot_id(char out[40])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, 36);

	if (fd >= 0)
		(void)close(fd);
	out[n == 36 ? 36 : 0] = '\0';
}
