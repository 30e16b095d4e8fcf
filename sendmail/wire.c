#include "base/compat.h"

#include "sendmail/wire.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

size_t fifo_room(const struct fifo *fifo)
{
	return sizeof(fifo->data) - fifo_len(fifo);
}

/* Moves what is there to the front, so that all the room is behind it. */
static void compact(struct fifo *fifo)
{
	if (fifo->from == 0)
		return;
	memmove(fifo->data, fifo->data + fifo->from, fifo_len(fifo));
	fifo->to -= fifo->from;
	fifo->from = 0;
}

void fifo_add(struct fifo *fifo, const void *data, size_t len)
{
	if (sizeof(fifo->data) - fifo->to < len)
		compact(fifo);
	memcpy(fifo->data + fifo->to, data, len);
	fifo->to += len;
}

void fifo_drop(struct fifo *fifo, size_t n)
{
	explicit_bzero(fifo->data + fifo->from, n);
	fifo->from += n;
	if (fifo->from == fifo->to)
		fifo->from = fifo->to = 0;
}

void wire_init(struct wire *wire, int fd)
{
	wire->fd = fd;
	wire->tls = NULL;
	wire->ended = wire->broken = fd < 0;
	wire->gone = false;
	wire->in.from = wire->in.to = 0;
	wire->out.from = wire->out.to = 0;
}

void wire_close(struct wire *wire)
{
	tls_free(&wire->tls);
	if (wire->fd >= 0)
		(void)close(wire->fd);
	fifo_drop(&wire->in, fifo_len(&wire->in));
	fifo_drop(&wire->out, fifo_len(&wire->out));
	wire_init(wire, -1);
}

/* As tls_read(): 0 is "not now", -1 the end. */
static ssize_t read_some(const struct wire *wire, char *to, size_t cap)
{
	ssize_t n;

	if (wire->tls != NULL)
		return tls_read(wire->tls, to, cap);
	do
		n = recv(wire->fd, to, cap, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
}

static ssize_t write_some(const struct wire *wire, const char *data, size_t len)
{
	ssize_t n;

	if (wire->tls != NULL)
		return tls_write(wire->tls, data, len);
	do
		n = send(wire->fd, data, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
}

bool wire_fill(struct wire *wire)
{
	struct fifo *in = &wire->in;
	bool moved = false;

	if (!wire->ended && fifo_room(in) > 0)
		compact(in);
	while (!wire->ended && in->to < sizeof(in->data)) {
		ssize_t n = read_some(wire, in->data + in->to, sizeof(in->data) - in->to);

		if (n == 0)
			break;
		if (n < 0)
			wire->ended = true;
		else
			in->to += (size_t)n;
		moved = true;
	}
	return moved;
}

bool wire_flush(struct wire *wire)
{
	struct fifo *out = &wire->out;
	bool moved = false;

	while (!wire->broken && fifo_len(out) > 0) {
		ssize_t n = write_some(wire, fifo_text(out), fifo_len(out));

		if (n == 0)
			break;
		if (n < 0)
			wire->broken = true;
		else
			fifo_drop(out, (size_t)n);
		moved = true;
	}
	if (wire->broken)
		fifo_drop(out, fifo_len(out));
	return moved;
}

int wire_send(struct wire *wire, const void *data, size_t len)
{
	if (wire->broken)
		return 0;
	if (len > fifo_room(&wire->out))
		return -1;
	fifo_add(&wire->out, data, len);
	return 0;
}

/* A descriptor whose hang-up is known is left out: poll would report it for ever. */
static struct pollfd wishes(const struct wire *wire)
{
	struct pollfd wish = {.fd = -1};

	if (wire == NULL)
		return wish;
	if (!wire->ended && fifo_room(&wire->in) > 0)
		wish.events |= wire->tls == NULL ? POLLIN : tls_read_wants(wire->tls);
	if (!wire->broken && fifo_len(&wire->out) > 0)
		wish.events |= wire->tls == NULL ? POLLOUT : tls_write_wants(wire->tls);
	if (wish.events != 0 || (!wire->ended && !wire->gone))
		wish.fd = wire->fd;
	return wish;
}

static void note_hangup(struct wire *wire, const struct pollfd *wish)
{
	if (wire != NULL && (wish->revents & (POLLHUP | POLLERR)) != 0)
		wire->gone = true;
}

void wire_wait(struct wire *a, struct wire *b, int also_fd, int64_t timeout_ms)
{
	struct pollfd fds[] = {wishes(a), wishes(b), {.fd = also_fd, .events = POLLIN}};

	if (timeout_ms < 0)
		timeout_ms = 0;
	/* Early returns are harmless: each caller looks again and comes back here. */
	if (poll(fds, ARRAY_LEN(fds), timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms) <= 0)
		return;
	note_hangup(a, &fds[0]);
	note_hangup(b, &fds[1]);
}
