/*
 * What the load generators share: workers that each do one message after the
 * other until the time is over, what they count and how long answers took, and
 * the line of JSON at the end. A worker's fields belong to its thread until
 * load_run() returns.
 */
#ifndef RELAY365_BENCH_LOAD_H
#define RELAY365_BENCH_LOAD_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct load_options {
	const char *socket; /* path, or PORT@127.0.0.1 */
	int connections;
	int recipients; /* of a message */
	int senders;
	double seconds;
	int idle;	/* further sessions that do nothing */
	int pause_us;	/* before each step, for what an MTA does meanwhile */
	pid_t pids[32]; /* processes whose CPU time is told */
	int pid_count;
	const char *mailer;
};

struct load_times {
	uint32_t *us; /* microseconds */
	size_t count, cap;
};

struct load_worker {
	const struct load_options *options;
	uint64_t random;
	uint64_t messages, refused;
	struct load_times rcpt, end;
	char error[200]; /* "" while all is well */
	void *own;	 /* of the generator; load_run() frees it */
};

/* Reads the command line. Ends the program when it is wrong. */
void load_options(int argc, char **argv, struct load_options *options_r);

/*
 * Runs one message after the other in each worker until the time is over, and
 * prints the result. Returns the exit status: 1 when a worker failed.
 */
int load_run(const struct load_options *options, bool (*message)(struct load_worker *worker));

/* A connection to the filter; -1 with the worker's error set. */
int load_connect(struct load_worker *worker);

int64_t load_now_ns(void);
void load_time(struct load_times *times, int64_t since_ns);
uint32_t load_random(struct load_worker *worker, uint32_t below);
bool load_fail(struct load_worker *worker, const char *fmt, ...) PRINTF_LIKE(2, 3); /* false */
bool load_is_over(void);
void load_pause(const struct load_worker *worker);

#endif
