/*
 * Load on relay365-tokend's sockets, from one thread: N clients that each ask,
 * wait for the answer, close (or, on the map socket, go on) and ask again.
 *
 * usage: token_load PATH (lease|token|map|crowd) CLIENTS SECONDS NAME...
 *
 * CLIENTS may be N@RATE: then requests are due evenly spaced, so many a second,
 * and each is made by a client that is idle. What it took counts from when it
 * was due, so that an answer that keeps all clients waiting counts for all the
 * requests that were due meanwhile. NAME...: addresses, taken in turn; for map,
 * names. crowd: each client asks for a lease once, all at the same time, and waits
 * as long as it takes. Prints one line of JSON: {"count", "bad", "seconds",
 * "rate", "p50_us", "p99_us", "max_us", "last_at": the time of the last answer}.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MOST = 4000, SAMPLES_MOST = 4000000, ANSWER_MAX = 40000, ROUND = 256 };

struct client {
	int fd;
	int64_t due_us;
	size_t len;
	char answer[ANSWER_MAX];
	struct client *next_idle;
};

static struct client *client, *idle;
static int32_t *sample;
static size_t count, bad, asked;
static bool is_map;
static const char *verb;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static char **names;
static int names_count, epoll;

static int64_t now_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what)
{
	(void)fprintf(stderr, "token_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void open_client(struct client *c)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die(address.sun_path);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
		die("epoll_ctl");
}

static void ask(struct client *c, int64_t due_us)
{
	const char *name = names[asked++ % (size_t)names_count];
	char text[600], key[500];
	int n;

	c->len = 0;
	c->due_us = due_us;
	if (c->fd < 0)
		open_client(c);
	if (is_map) {
		n = snprintf(key, sizeof(key), "status/%s 4.4.1 connect to host: timed out",
			     name);
		n = snprintf(text, sizeof(text), "%d:%s,", n, key);
	} else {
		n = snprintf(text, sizeof(text), "relay365=1\nverb=%s\nmailbox=%s\n\n", verb,
			     name);
	}
	if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		die("send");
}

/* 1: the answer is whole, -1: the connection ended without one. */
static int receive(struct client *c)
{
	ssize_t n = recv(c->fd, c->answer + c->len, sizeof(c->answer) - 1 - c->len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	c->len += (size_t)n;
	c->answer[c->len] = '\0';
	if (is_map)
		return c->answer[c->len - 1] == ',';
	return c->len >= 2 && memcmp(c->answer + c->len - 2, "\n\n", 2) == 0;
}

static void finish(struct client *c, int result)
{
	if (result < 0 || (!is_map && strncmp(c->answer, "status=ok\n", 10) != 0))
		bad++;
	if (count < SAMPLES_MOST)
		sample[count++] = (int32_t)(now_us() - c->due_us);
	if (!is_map || result < 0) {
		(void)close(c->fd);
		c->fd = -1;
	}
	c->next_idle = idle;
	idle = c;
}

/* What there is, or comes within so many microseconds. */
static void take_answers(int64_t wait_us)
{
	const struct timespec wait = {wait_us / 1000000, wait_us % 1000000 * 1000};
	struct epoll_event events[ROUND];
	int n = epoll_pwait2(epoll, events, ROUND, &wait, NULL);

	for (int i = 0; i < n; i++) {
		struct client *c = events[i].data.ptr;
		int result = receive(c);

		if (result != 0)
			finish(c, result);
	}
}

/* All idle clients ask, those that are due. Returns when the next is, if one could. */
static int64_t ask_due(int64_t began_us, long rate)
{
	while (idle != NULL) {
		int64_t now = now_us();
		int64_t due = rate > 0 ? began_us + (int64_t)asked * 1000000 / rate : now;
		struct client *c = idle;

		if (due > now)
			return due;
		idle = c->next_idle;
		ask(c, due);
	}
	return now_us() + 1000000;
}

/* Until so much time is over, or, when that is 0, each has asked once. Returns seconds. */
static double run(int clients, long rate, double seconds)
{
	int64_t began = now_us(), until = began + (int64_t)(seconds * 1e6), next;
	size_t once = seconds > 0 ? 0 : (size_t)clients;

	for (;;) {
		bool over = once > 0 ? asked >= once : now_us() >= until;

		if (over && count == asked)
			break;
		next = over ? now_us() + 1000000 : ask_due(began, rate);
		take_answers(next > now_us() ? next - now_us() : 0);
		if (now_us() > until + 60000000)
			die("no answers");
	}
	return (double)(now_us() - began) / 1e6;
}

static int by_size(const void *a, const void *b)
{
	const int32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void report(double seconds)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	qsort(sample, count, sizeof(*sample), by_size);
	(void)printf("{\"count\": %zu, \"bad\": %zu, \"seconds\": %.3f, \"rate\": %.0f, "
		     "\"p50_us\": %d, \"p99_us\": %d, \"max_us\": %d, \"last_at\": %lld.%06ld}\n",
		     count, bad, seconds, (double)count / seconds, sample[count / 2],
		     sample[count * 99 / 100], sample[count - 1], (long long)t.tv_sec,
		     t.tv_nsec / 1000);
}

static void start(int clients)
{
	struct rlimit files;

	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0); /* ns */
	client = calloc((size_t)clients, sizeof(*client));
	sample = calloc(SAMPLES_MOST, sizeof(*sample));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (client == NULL || sample == NULL || epoll < 0)
		die("start");
	for (int i = 0; i < clients; i++) {
		client[i].fd = -1;
		client[i].next_idle = idle;
		idle = &client[i];
		if (is_map)
			open_client(&client[i]);
	}
}

int main(int argc, char **argv)
{
	int clients;
	char *at;
	long rate;

	if (argc < 6) {
		(void)fputs("usage: token_load PATH (lease|token|map|crowd) CLIENTS[@RATE] "
			    "SECONDS NAME...\n",
			    stderr);
		return 2;
	}
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[1]);
	verb = strcmp(argv[2], "crowd") == 0 ? "lease" : argv[2];
	is_map = strcmp(verb, "map") == 0;
	clients = (int)strtol(argv[3], &at, 10);
	rate = *at == '@' ? strtol(at + 1, NULL, 10) : 0;
	names = argv + 5;
	names_count = argc - 5;
	if (clients < 1 || clients > CLIENTS_MOST)
		return 2;
	start(clients);
	report(run(clients, rate, strcmp(argv[2], "crowd") == 0 ? 0 : strtod(argv[4], NULL)));
	return 0;
}
