/*
 * Load on relay365-tokend's sockets, from one thread: N clients that each ask,
 * wait for the answer, close (or, on the map socket, go on) and ask again.
 *
 * usage: token_load PATH (lease|token|map|crowd) CLIENTS SECONDS NAME...
 *
 * CLIENTS may be N@RATE: together they ask so often a second, instead of
 * again at once. NAME...: addresses, taken in turn; for map, names. crowd: each client asks
 * once, all at the same time, and waits as long as it takes. Prints one line of
 * JSON: {"count", "bad", "seconds", "rate", "p50_us", "p99_us", "max_us"}.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MOST = 4000, SAMPLES_MOST = 4000000, ANSWER_MAX = 40000 };

struct client {
	int fd;
	int64_t began_us;
	int64_t next_us; /* with a rate: when to ask again; 0: not now */
	size_t len;
	char answer[ANSWER_MAX];
};

static struct client *client;
static int32_t *sample;
static size_t count, bad, asked;
static const char *path, *verb;
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
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
		die(path);
	(void)fcntl(c->fd, F_SETFL, O_NONBLOCK);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
		die("epoll_ctl");
}

static int is_map(void)
{
	return strcmp(verb, "map") == 0;
}

static void ask(struct client *c)
{
	const char *name = names[asked++ % (size_t)names_count];
	char text[600], key[500];
	int n;

	c->len = 0;
	c->began_us = now_us();
	if (!is_map() || c->fd < 0)
		open_client(c);
	if (is_map()) {
		n = snprintf(key, sizeof(key), "status/%s 4.4.1 connect to host: timed out",
			     name);
		n = snprintf(text, sizeof(text), "%d:%s,", n, key);
	} else {
		n = snprintf(text, sizeof(text), "relay365=1\nverb=%s\nmailbox=%s\n\n",
			     strcmp(verb, "token") == 0 ? "token" : "lease", name);
	}
	if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		die("send");
}

/* 1: the answer is whole, -1: the connection ended without one. */
static int receive(struct client *c)
{
	ssize_t n = recv(c->fd, c->answer + c->len, sizeof(c->answer) - 1 - c->len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	c->len += (size_t)n;
	c->answer[c->len] = '\0';
	if (is_map())
		return c->answer[c->len - 1] == ',';
	return c->len >= 2 && memcmp(c->answer + c->len - 2, "\n\n", 2) == 0;
}

static void finish(struct client *c, int result)
{
	if (result < 0 || (!is_map() && strncmp(c->answer, "status=ok\n", 10) != 0))
		bad++;
	if (count < SAMPLES_MOST)
		sample[count++] = (int32_t)(now_us() - c->began_us);
	if (!is_map()) {
		(void)close(c->fd);
		c->fd = -1;
	}
}

static int by_size(const void *a, const void *b)
{
	return *(const int32_t *)a < *(const int32_t *)b
		       ? -1
		       : *(const int32_t *)a > *(const int32_t *)b;
}

static void report(double seconds)
{
	qsort(sample, count, sizeof(*sample), by_size);
	(void)printf("{\"count\": %zu, \"bad\": %zu, \"seconds\": %.3f, \"rate\": %.0f, "
		     "\"p50_us\": %d, \"p99_us\": %d, \"max_us\": %d}\n",
		     count, bad, seconds, (double)count / seconds, sample[count / 2],
		     sample[count * 99 / 100], sample[count - 1]);
}

int main(int argc, char **argv)
{
	struct rlimit files;
	struct epoll_event events[256];
	int clients, crowd, left, waiting = 0;
	char *at;
	long rate;
	int64_t began, until;

	if (argc < 6) {
		(void)fputs("usage: token_load PATH (lease|token|map|crowd) CLIENTS SECONDS "
			    "NAME...\n",
			    stderr);
		return 2;
	}
	path = argv[1];
	verb = argv[2];
	clients = (int)strtol(argv[3], &at, 10);
	rate = *at == '@' ? strtol(at + 1, NULL, 10) : 0;
	names = argv + 5;
	names_count = argc - 5;
	crowd = strcmp(verb, "crowd") == 0;
	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	if (clients < 1 || clients > CLIENTS_MOST)
		return 2;
	client = calloc((size_t)clients, sizeof(*client));
	sample = calloc(SAMPLES_MOST, sizeof(*sample));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (client == NULL || sample == NULL || epoll < 0)
		die("start");
	began = now_us();
	until = began + (int64_t)(strtod(argv[4], NULL) * 1e6);
	for (int i = 0; i < clients; i++) {
		client[i].fd = -1;
		ask(&client[i]);
	}
	for (left = clients; left > 0;) {
		int n = epoll_wait(epoll, events, 256, waiting > 0 ? 0 : 1000);

		for (int i = 0; waiting > 0 && i < clients; i++)
			if (client[i].next_us != 0 && now_us() >= client[i].next_us) {
				client[i].next_us = 0;
				waiting--;
				ask(&client[i]);
			}
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;
			int result = receive(c);

			if (result == 0)
				continue;
			finish(c, result);
			if (crowd || now_us() >= until || result < 0) {
				left--;
			} else if (rate > 0) {
				c->next_us = c->began_us + clients * 1000000LL / rate;
				waiting++;
			} else {
				ask(c);
			}
		}
		if (now_us() > until + 60000000)
			die("no answers");
	}
	report((double)(now_us() - began) / 1e6);
	return 0;
}
