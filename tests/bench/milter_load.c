/*
 * Plays an MTA before a milter: one session and one message a connection, with
 * the packets, macros and buffering of Postfix. What the filter has negotiated
 * away is not sent, and what needs no reply leaves together with the next that
 * does. load.h has the options.
 */
#include "load.h"

#include "base/err.h"
#include "base/xalloc.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	HEADERS = 8,
	BODY = 1024,
	MACROS_MAX = 256,
	/* protocol, of libmilter/mfdef.h */
	PROTOCOL = 6,
	ACTIONS = 0x1ff,
	STEPS = 0x1fffff,
	NO_CONNECT = 0x1,
	NO_HELO = 0x2,
	NO_MAIL = 0x4,
	NO_RCPT = 0x8,
	NO_BODY = 0x10,
	NO_HEADERS = 0x20,
	NO_EOH = 0x40,
	NR_HEADER = 0x80,
	NO_DATA = 0x200,
	NR_CONNECT = 0x1000,
	NR_HELO = 0x2000,
	NR_MAIL = 0x4000,
	NR_RCPT = 0x8000,
	NR_DATA = 0x10000,
	NR_EOH = 0x40000,
	NR_BODY = 0x80000
};

enum stage { CONNECT, HELO, MAIL, RCPT, DATA, END, EOH, STAGES };

/* What Postfix tells at each stage if the filter asks for nothing else. */
static const char *const usual_macros[STAGES] = {
	[CONNECT] = "j {daemon_name} {daemon_addr} v _",
	[HELO] = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
	[MAIL] =
		"i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
	[RCPT] = "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
	[DATA] = "i",
	[END] = "i",
	[EOH] = "i",
};

struct session {
	struct load_worker *worker;
	int fd;
	uint32_t steps; /* what the filter leaves out */
	char macros[STAGES][MACROS_MAX];
	char sender[64], recipient[64], queue_id[24];
	unsigned char out[16384], in[4096];
	size_t out_len, in_at, in_len;
	unsigned char packet[4096];
	size_t packet_len;
};

static void put(struct session *s, const void *data, size_t len)
{
	if (len > sizeof(s->out) - s->out_len)
		abort(); /* a message of this program is not so large */
	if (len > 0)
		memcpy(s->out + s->out_len, data, len);
	s->out_len += len;
}

static void put_text(struct session *s, const char *text)
{
	put(s, text, strlen(text) + 1);
}

static void put_number(struct session *s, uint32_t n)
{
	const unsigned char be[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16),
				     (unsigned char)(n >> 8), (unsigned char)n};

	put(s, be, sizeof(be));
}

static uint32_t number_at(const unsigned char *be)
{
	return (uint32_t)be[0] << 24 | (uint32_t)be[1] << 16 | (uint32_t)be[2] << 8 | be[3];
}

/* Returns where the packet begins, for close_packet(). */
static size_t open_packet(struct session *s, char command)
{
	size_t at = s->out_len;

	put_number(s, 0);
	put(s, &command, 1);
	return at;
}

static void close_packet(struct session *s, size_t at)
{
	size_t end = s->out_len;

	s->out_len = at;
	put_number(s, (uint32_t)(end - at - 4));
	s->out_len = end;
}

static bool flush(struct session *s)
{
	for (size_t done = 0; done < s->out_len;) {
		ssize_t n = send(s->fd, s->out + done, s->out_len - done, MSG_NOSIGNAL);

		if (n <= 0)
			return load_fail(s->worker, "cannot send: %s", err_no(errno));
		done += (size_t)n;
	}
	s->out_len = 0;
	return true;
}

static bool take(struct session *s, void *out, size_t len)
{
	for (size_t done = 0; done < len; done++) {
		if (s->in_at == s->in_len) {
			ssize_t n = recv(s->fd, s->in, sizeof(s->in), 0);

			if (n <= 0)
				return load_fail(s->worker, "the filter went away: %s",
						 n == 0 ? "closed" : err_no(errno));
			s->in_at = 0;
			s->in_len = (size_t)n;
		}
		((unsigned char *)out)[done] = s->in[s->in_at++];
	}
	return true;
}

/* Reads a packet: its command, or 0. */
static char read_packet(struct session *s)
{
	unsigned char head[5];
	uint32_t len;

	if (!take(s, head, sizeof(head)))
		return 0;
	len = number_at(head);
	if (len < 1 || len - 1 > sizeof(s->packet)) {
		(void)load_fail(s->worker, "a packet of %u bytes", len);
		return 0;
	}
	s->packet_len = len - 1;
	return take(s, s->packet, s->packet_len) ? (char)head[4] : 0;
}

/* The answer to a step: 'c' and 'a' go on, anything else refuses; 0: broken. */
static char answer(struct session *s)
{
	char command;

	if (!flush(s))
		return 0;
	do
		command = read_packet(s);
	while (command == 'p' || command == 'q' || command == 'h' || command == '+');
	return command;
}

static const char *macro_value(const struct session *s, const char *name)
{
	static const char *const fixed[][2] = {
		{"j", "mx.example.com"},
		{"v", "Postfix 3.7.11"},
		{"_", "client.example [192.0.2.7]"},
		{"{daemon_name}", "mx.example.com"},
		{"{daemon_addr}", "192.0.2.1"},
		{"{client_addr}", "192.0.2.7"},
		{"{mail_host}", "example.com"},
		{"{rcpt_host}", "[smtp.office365.com]:587"},
	};

	for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
		if (strcmp(name, fixed[i][0]) == 0)
			return fixed[i][1];
	if (strcmp(name, "i") == 0)
		return s->queue_id[0] == '\0' ? NULL : s->queue_id;
	if (strcmp(name, "{auth_authen}") == 0 || strcmp(name, "{mail_addr}") == 0)
		return s->sender;
	if (strcmp(name, "{rcpt_addr}") == 0)
		return s->recipient;
	if (strcmp(name, "{mail_mailer}") == 0 || strcmp(name, "{rcpt_mailer}") == 0)
		return s->worker->options->mailer;
	return NULL;
}

static void send_macros(struct session *s, enum stage stage, char command)
{
	size_t at = open_packet(s, 'D');

	put(s, &command, 1);
	for (const char *p = s->macros[stage]; *p != '\0';) {
		size_t len = strcspn(p, " ,");
		const char *value;
		char name[64];

		if (len > 0 && len < sizeof(name)) {
			memcpy(name, p, len);
			name[len] = '\0';
			value = macro_value(s, name);
			if (value != NULL) {
				put_text(s, name);
				put_text(s, value);
			}
		}
		p += len;
		p += strspn(p, " ,");
	}
	close_packet(s, at);
}

/* Whether the filter wants this step; the macros are sent in any case, as Postfix does. */
static bool wants(struct session *s, enum stage stage, char command, uint32_t left_out)
{
	if (s->out_len == 0)
		load_pause(s->worker);
	send_macros(s, stage, command);
	return (s->steps & left_out) == 0;
}

/* Ends a step: its answer, or 'c' at once where none is to be awaited. */
static char finish(struct session *s, size_t at, uint32_t no_reply)
{
	close_packet(s, at);
	return (s->steps & no_reply) != 0 ? 'c' : answer(s);
}

static bool negotiate(struct session *s)
{
	size_t at = open_packet(s, 'O');

	put_number(s, PROTOCOL);
	put_number(s, ACTIONS);
	put_number(s, STEPS);
	close_packet(s, at);
	for (int i = 0; i < STAGES; i++)
		(void)snprintf(s->macros[i], MACROS_MAX, "%s", usual_macros[i]);
	if (answer(s) != 'O' || s->packet_len < 12)
		return load_fail(s->worker, "no milter answers");
	s->steps = number_at(s->packet + 8);
	for (size_t p = 12; p + 5 <= s->packet_len;) {
		uint32_t stage = number_at(s->packet + p);
		const char *list = (const char *)s->packet + p + 4;
		size_t len = strnlen(list, s->packet_len - p - 4);

		if (stage < STAGES)
			(void)snprintf(s->macros[stage], MACROS_MAX, "%.*s", (int)len, list);
		p += 4 + len + 1;
	}
	return true;
}

static bool greet(struct session *s)
{
	size_t at;

	if (wants(s, CONNECT, 'C', NO_CONNECT)) {
		at = open_packet(s, 'C');
		put_text(s, "client.example");
		put(s, "4\x1f\x90", 3); /* IPv4, a port */
		put_text(s, "192.0.2.7");
		if (finish(s, at, NR_CONNECT) != 'c')
			return load_fail(s->worker, "CONNECT was refused");
	}
	if (wants(s, HELO, 'H', NO_HELO)) {
		at = open_packet(s, 'H');
		put_text(s, "client.example");
		if (finish(s, at, NR_HELO) != 'c')
			return load_fail(s->worker, "HELO was refused");
	}
	return true;
}

/* MAIL and the recipients. 'c', or what refused it; 0: broken. */
static char send_envelope(struct session *s)
{
	struct load_worker *worker = s->worker;
	char text[80], verdict;
	size_t at;

	(void)snprintf(s->sender, sizeof(s->sender), "user%06u@contoso.com",
		       load_random(worker, (uint32_t)worker->options->senders));
	if (wants(s, MAIL, 'M', NO_MAIL)) {
		at = open_packet(s, 'M');
		(void)snprintf(text, sizeof(text), "<%s>", s->sender);
		put_text(s, text);
		verdict = finish(s, at, NR_MAIL);
		if (verdict != 'c')
			return verdict;
	}
	for (int i = 0; i < worker->options->recipients; i++) {
		int64_t start;

		(void)snprintf(s->recipient, sizeof(s->recipient), "r%d@example.net", i);
		if (!wants(s, RCPT, 'R', NO_RCPT))
			continue;
		at = open_packet(s, 'R');
		(void)snprintf(text, sizeof(text), "<%s>", s->recipient);
		put_text(s, text);
		start = load_now_ns();
		verdict = finish(s, at, NR_RCPT);
		load_time(&worker->rcpt, start);
		if (verdict != 'c')
			return verdict;
		/* Postfix knows it from now on */
		(void)snprintf(s->queue_id, sizeof(s->queue_id), "4Q%llx",
			       (unsigned long long)worker->random & 0xffffffffffff);
	}
	return 'c';
}

static char send_content(struct session *s)
{
	static const char body[BODY] = "text";
	char verdict = 'c';
	int64_t start;
	size_t at;

	if (wants(s, DATA, 'T', NO_DATA))
		verdict = finish(s, open_packet(s, 'T'), NR_DATA);
	for (int i = 0; i < HEADERS && verdict == 'c' && (s->steps & NO_HEADERS) == 0; i++) {
		at = open_packet(s, 'L');
		put_text(s, i == 0 ? "From" : "X-Header");
		put_text(s, i == 0 ? s->sender : "some text of usual length in this header");
		verdict = finish(s, at, NR_HEADER);
	}
	if (verdict == 'c' && wants(s, EOH, 'N', NO_EOH))
		verdict = finish(s, open_packet(s, 'N'), NR_EOH);
	if (verdict == 'c' && (s->steps & NO_BODY) == 0) {
		at = open_packet(s, 'B');
		put(s, body, sizeof(body));
		verdict = finish(s, at, NR_BODY);
	}
	if (verdict != 'c')
		return verdict;
	(void)wants(s, END, 'E', 0);
	at = open_packet(s, 'E');
	start = load_now_ns();
	verdict = finish(s, at, 0);
	load_time(&s->worker->end, start);
	return verdict;
}

static bool begin_session(struct session *s, struct load_worker *worker)
{
	s->worker = worker;
	s->out_len = s->in_at = s->in_len = 0;
	s->queue_id[0] = s->sender[0] = s->recipient[0] = '\0';
	s->fd = load_connect(worker);
	return s->fd >= 0 && negotiate(s) && greet(s);
}

static void end_session(struct session *s)
{
	if (s->fd < 0)
		return;
	close_packet(s, open_packet(s, 'Q'));
	(void)flush(s);
	(void)close(s->fd);
}

static bool one_message(struct load_worker *worker)
{
	struct session *s = worker->own;
	char verdict = 0;

	if (s == NULL)
		s = worker->own = xcalloc(1, sizeof(*s));
	if (begin_session(s, worker)) {
		verdict = send_envelope(s);
		if (verdict == 'c')
			verdict = send_content(s);
		if (verdict == 'c' || verdict == 'a')
			worker->messages++;
		else if (verdict != 0)
			worker->refused++;
	}
	end_session(s);
	return verdict != 0;
}

/* Sessions that say HELO and no more; they live as long as the program. */
static bool open_idle(const struct load_options *options)
{
	struct load_worker worker = {.options = options, .random = 1};
	struct session *s = xcalloc(1, sizeof(*s));
	bool well = true;

	for (int i = 0; i < options->idle && well; i++)
		well = begin_session(s, &worker) && flush(s);
	free(s);
	if (!well)
		(void)fprintf(stderr, "%s\n", worker.error);
	return well;
}

int main(int argc, char **argv)
{
	struct load_options options;

	load_options(argc, argv, &options);
	if (!open_idle(&options))
		return 1;
	return load_run(&options, one_message);
}
