#include "load.h"

#include "base/err.h"
#include "base/xalloc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_S = 60 };

static atomic_bool over;

int64_t load_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void load_time(struct load_times *times, int64_t since_ns)
{
	if (times->count == times->cap) {
		times->cap = times->cap == 0 ? 4096 : 2 * times->cap;
		times->us = xreallocarray(times->us, times->cap, sizeof(*times->us));
	}
	times->us[times->count++] = (uint32_t)((load_now_ns() - since_ns) / 1000);
}

/* xorshift64* */
uint32_t load_random(struct load_worker *worker, uint32_t below)
{
	uint64_t x = worker->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	worker->random = x;
	return (uint32_t)((x * UINT64_C(2685821657736338717)) >> 32) % below;
}

bool load_fail(struct load_worker *worker, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (worker->error[0] == '\0')
		(void)vsnprintf(worker->error, sizeof(worker->error), fmt, ap);
	va_end(ap);
	atomic_store(&over, true);
	return false;
}

bool load_is_over(void)
{
	return atomic_load_explicit(&over, memory_order_relaxed);
}

void load_pause(const struct load_worker *worker)
{
	if (worker->options->pause_us > 0)
		(void)usleep((useconds_t)worker->options->pause_us);
}

static socklen_t address_of(const char *text, struct sockaddr_storage *out)
{
	struct sockaddr_in *in = (void *)out;
	struct sockaddr_un *un = (void *)out;
	const char *at = strchr(text, '@');

	memset(out, 0, sizeof(*out));
	if (text[0] == '/') {
		un->sun_family = AF_UNIX;
		(void)snprintf(un->sun_path, sizeof(un->sun_path), "%s", text);
		return sizeof(*un);
	}
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)strtol(text, NULL, 10));
	(void)inet_pton(AF_INET, at == NULL ? "127.0.0.1" : at + 1, &in->sin_addr);
	return sizeof(*in);
}

int load_connect(struct load_worker *worker)
{
	struct timeval patience = {.tv_sec = ANSWER_S};
	struct sockaddr_storage address;
	socklen_t len = address_of(worker->options->socket, &address);
	int one = 1;

	for (int try = 0; try < 10000; try++) {
		int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			break;
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (connect(fd, (struct sockaddr *)&address, len) == 0)
			return fd;
		(void)close(fd);
		if (errno != EAGAIN && errno != ECONNREFUSED)
			break;
		(void)usleep(1000); /* its queue is full */
	}
	(void)load_fail(worker, "cannot connect to %s: %s", worker->options->socket,
			err_no(errno));
	return -1;
}

static void usage(const char *program)
{
	(void)fprintf(stderr,
		      "usage: %s [-c CONNECTIONS] [-r RECIPIENTS] [-s SENDERS] [-t SECONDS]\n"
		      "  [-i IDLE-SESSIONS] [-w PAUSE-US] [-p PID]... [-m MAILER] SOCKET\n",
		      program);
	exit(2);
}

void load_options(int argc, char **argv, struct load_options *options_r)
{
	int c;

	*options_r = (struct load_options){.connections = 8,
					   .recipients = 1,
					   .senders = 1000,
					   .seconds = 1,
					   .mailer = "relay365-relay"};
	while ((c = getopt(argc, argv, "c:r:s:t:i:w:p:m:")) != -1) {
		int n = optarg == NULL ? 0 : (int)strtol(optarg, NULL, 10);

		if (c == 'c')
			options_r->connections = n;
		else if (c == 'r')
			options_r->recipients = n;
		else if (c == 's')
			options_r->senders = n;
		else if (c == 't')
			options_r->seconds = strtod(optarg, NULL);
		else if (c == 'i')
			options_r->idle = n;
		else if (c == 'w')
			options_r->pause_us = n;
		else if (c == 'm')
			options_r->mailer = optarg;
		else if (c == 'p' && options_r->pid_count < (int)ARRAY_LEN(options_r->pids))
			options_r->pids[options_r->pid_count++] = n;
		else
			usage(argv[0]);
	}
	if (optind != argc - 1 || options_r->connections < 1 || options_r->senders < 1)
		usage(argv[0]);
	options_r->socket = argv[optind];
}

struct thread {
	pthread_t id;
	struct load_worker worker;
	bool (*message)(struct load_worker *worker);
};

static void *run_worker(void *arg)
{
	struct thread *thread = arg;

	while (!load_is_over() && thread->message(&thread->worker))
		continue;
	return NULL;
}

static double cpu_us(const struct load_options *options)
{
	double sum = 0;

	for (int i = 0; i < options->pid_count; i++) {
		struct timespec ts = {0, 0};
		clockid_t id;

		if (clock_getcpuclockid(options->pids[i], &id) == 0 &&
		    clock_gettime(id, &ts) == 0)
			sum += (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
	}
	return sum;
}

static long rss_kb(const struct load_options *options)
{
	long sum = 0;

	for (int i = 0; i < options->pid_count; i++) {
		char path[64], line[256];
		FILE *f;

		(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)options->pids[i]);
		f = fopen(path, "re");
		while (f != NULL && fgets(line, sizeof(line), f) != NULL)
			if (strncmp(line, "VmRSS:", 6) == 0)
				sum += strtol(line + 6, NULL, 10);
		if (f != NULL)
			(void)fclose(f);
	}
	return sum;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The time that 99 of 100 answers of all workers stayed below. */
static uint32_t p99(struct thread *thread, int count, bool end)
{
	struct load_times all = {NULL, 0, 0};
	uint32_t us = 0;

	for (int i = 0; i < count; i++) {
		struct load_times *t = end ? &thread[i].worker.end : &thread[i].worker.rcpt;

		all.us = xreallocarray(all.us, all.count + t->count + 1, sizeof(*all.us));
		if (t->count > 0)
			memcpy(all.us + all.count, t->us, t->count * sizeof(*t->us));
		all.count += t->count;
		free(t->us);
	}
	if (all.count > 0) {
		qsort(all.us, all.count, sizeof(*all.us), ascending);
		us = all.us[all.count * 99 / 100];
	}
	free(all.us);
	return us;
}

int load_run(const struct load_options *options, bool (*message)(struct load_worker *worker))
{
	struct thread *thread = xcalloc((size_t)options->connections, sizeof(*thread));
	uint64_t messages = 0, refused = 0;
	double cpu = cpu_us(options), seconds;
	int64_t start = load_now_ns();
	const char *error = "";

	for (int i = 0; i < options->connections; i++) {
		thread[i].message = message;
		thread[i].worker.options = options;
		thread[i].worker.random = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(i + 1);
		if (pthread_create(&thread[i].id, NULL, run_worker, &thread[i]) != 0)
			abort();
	}
	while (!load_is_over() && (double)(load_now_ns() - start) < options->seconds * 1e9)
		(void)usleep(1000);
	atomic_store(&over, true);
	for (int i = 0; i < options->connections; i++) {
		(void)pthread_join(thread[i].id, NULL);
		messages += thread[i].worker.messages;
		refused += thread[i].worker.refused;
		if (thread[i].worker.error[0] != '\0')
			error = thread[i].worker.error;
		free(thread[i].worker.own);
	}
	seconds = (double)(load_now_ns() - start) / 1e9;
	cpu = cpu_us(options) - cpu;
	if (error[0] != '\0')
		(void)fprintf(stderr, "%s\n", error);
	(void)printf("{\"messages\": %llu, \"refused\": %llu, \"messages_s\": %.1f, "
		     "\"cpu_us\": %.2f, ",
		     (unsigned long long)messages, (unsigned long long)refused,
		     (double)messages / seconds, cpu / (double)(messages > 0 ? messages : 1));
	(void)printf("\"rcpt_p99_us\": %u, \"end_p99_us\": %u, \"rss_kb\": %ld}\n",
		     p99(thread, options->connections, false),
		     p99(thread, options->connections, true), rss_kb(options));
	free(thread);
	return error[0] != '\0';
}
