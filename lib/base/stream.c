#include "base/stream.h"

#include "base/xalloc.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

struct stream_server {
	struct loop *loop;
	struct loop_fd watch;
	struct loop_timer again; /* after running out of descriptors */
	const struct stream_ops *ops;
	void *context;
	char path[SOCK_PATH_MAX + 1];
	struct stream *streams;
	unsigned int count;
};

static void destroy(struct stream *stream)
{
	struct stream_server *server = stream->server;

	stream->dead = true; /* whatever closed() does with it */
	loop_del(&stream->watch);
	loop_timer_stop(server->loop, &stream->reap);
	(void)close(stream->watch.fd);
	if (server->ops->closed != NULL)
		server->ops->closed(stream);
	if (stream->prev != NULL)
		stream->prev->next = stream->next;
	else
		server->streams = stream->next;
	if (stream->next != NULL)
		stream->next->prev = stream->prev;
	server->count--;
	buf_clear(&stream->in);
	buf_clear(&stream->out);
	free(stream);
}

void stream_close(struct stream *stream)
{
	if (stream->dead)
		return;
	stream->dead = true;
	if (!stream->busy)
		destroy(stream);
	else
		loop_del(&stream->watch);
}

static void on_reap(struct loop_timer *timer)
{
	destroy(timer->owner);
}

/* As stream_close(), but who is sending may touch the stream until the loop turns. */
static void close_soon(struct stream *stream)
{
	stream->dead = true;
	loop_del(&stream->watch);
	if (!stream->busy)
		loop_timer_in(stream->server->loop, &stream->reap, 0);
}

static unsigned int wanted(const struct stream *stream)
{
	return (stream->heard ? 0u : LOOP_READ) | (stream->out.len > 0 ? LOOP_WRITE : 0u);
}

/* Returns -1 when the peer is gone. */
static int write_out(struct stream *stream)
{
	while (stream->out.len > 0) {
		ssize_t n =
			send(stream->watch.fd, stream->out.data, stream->out.len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0)
			return -1;
		buf_consume(&stream->out, (size_t)n);
	}
	loop_want(&stream->watch, wanted(stream));
	return 0;
}

int stream_send(struct stream *stream, const void *data, size_t len)
{
	if (stream->dead)
		return -1;
	if (buf_add(&stream->out, data, len) < 0 || write_out(stream) < 0) {
		close_soon(stream);
		return -1;
	}
	return 0;
}

bool stream_is_flushed(const struct stream *stream)
{
	return stream->out.len == 0;
}

void stream_end(struct stream *stream)
{
	if (stream->dead)
		return;
	if (stream->out.len == 0)
		stream_close(stream);
	else
		stream->ending = true;
}

void *stream_context(const struct stream *stream)
{
	return stream->server->context;
}

/* Reads what there is. Returns 1 at the end of input, -1 on error. */
static int read_in(struct stream *stream)
{
	size_t room;
	char *to = buf_reserve(&stream->in, 1, &room);
	ssize_t n;

	if (to == NULL)
		return -1; /* the protocol let in_max bytes lie unread: it is not speaking it */
	n = recv(stream->watch.fd, to, room, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
	if (n == 0)
		return 1;
	stream->in.len += (size_t)n;
	stream->in.data[stream->in.len] = '\0';
	return 0;
}

static void on_ready(struct loop_fd *watch, unsigned int events)
{
	struct stream *stream = watch->owner;
	const struct stream_ops *ops = stream->server->ops;
	size_t before = stream->in.len;
	int end = 0;

	stream->busy = true;
	if (events & LOOP_WRITE) {
		if (write_out(stream) < 0)
			stream->dead = true;
		else if (stream->out.len == 0 && stream->ending)
			stream->dead = true;
		else if (stream->out.len == 0 && ops->flushed != NULL)
			ops->flushed(stream);
	}
	if (!stream->dead && (events & (LOOP_READ | LOOP_HANGUP))) {
		end = read_in(stream);
		if (stream->in.len > before && !stream->ending)
			ops->received(stream);
	}
	stream->busy = false;
	if (end > 0 && stream->ending && !(events & LOOP_HANGUP)) { /* it still listens */
		stream->heard = true;
		loop_want(&stream->watch, wanted(stream));
	} else if (end != 0) {
		stream->dead = true;
	}
	if (stream->dead)
		destroy(stream);
}

static void adopt(struct stream_server *server, int fd)
{
	const struct stream_ops *ops = server->ops;
	struct stream *stream;
	bool stays;

	if (server->count >= ops->connections_max) {
		(void)close(fd);
		return;
	}
	stream = xcalloc(1, sizeof(*stream));
	stream->server = server;
	stream->in.max = ops->in_max;
	stream->out.max = ops->out_max;
	stream->watch.fd = fd;
	stream->watch.want = LOOP_READ;
	stream->watch.ready = on_ready;
	stream->watch.owner = stream;
	stream->reap.due = on_reap;
	stream->reap.owner = stream;
	stream->busy = true;
	stays = sock_peer(fd, &stream->peer) == 0 && (ops->opened == NULL || ops->opened(stream));
	stream->busy = false;
	if (!stays) {
		buf_clear(&stream->out);
		(void)close(fd);
		free(stream);
		return;
	}
	stream->next = server->streams;
	if (server->streams != NULL)
		server->streams->prev = stream;
	server->streams = stream;
	server->count++;
	if (stream->out.len > 0)
		stream->watch.want |= LOOP_WRITE; /* what opened() sent */
	if (stream->dead || loop_add(server->loop, &stream->watch) < 0)
		destroy(stream);
}

static void on_connection(struct loop_fd *watch, unsigned int events)
{
	struct stream_server *server = watch->owner;

	(void)events;
	for (;;) {
		int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			adopt(server, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			/* The connection stays in the backlog: look again soon, not in a busy
			 * loop. */
			loop_want(watch, 0);
			loop_timer_in(server->loop, &server->again, 100);
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

static void on_again(struct loop_timer *timer)
{
	struct stream_server *server = timer->owner;

	loop_want(&server->watch, LOOP_READ);
}

struct stream_server *stream_serve(struct loop *loop, const char *path, mode_t mode, gid_t group,
				   const struct stream_ops *ops, void *context, struct err *err)
{
	struct stream_server *server;
	int fd;

	if (sock_make_folder(path, group, err) < 0)
		return NULL;
	fd = sock_listen(path, mode, group, err);
	if (fd < 0)
		return NULL;
	server = xcalloc(1, sizeof(*server));
	server->loop = loop;
	server->ops = ops;
	server->context = context;
	(void)snprintf(server->path, sizeof(server->path), "%s", path);
	server->watch.fd = fd;
	server->watch.want = LOOP_READ;
	server->watch.ready = on_connection;
	server->watch.owner = server;
	server->again.due = on_again;
	server->again.owner = server;
	if (loop_add(loop, &server->watch) < 0) {
		err_set(err, ERR_TEMP, "cannot watch %s: %s", path, err_no(errno));
		(void)close(fd);
		free(server);
		return NULL;
	}
	return server;
}

void stream_server_free(struct stream_server **server)
{
	struct stream_server *s = *server;

	if (s == NULL)
		return;
	loop_del(&s->watch);
	loop_timer_stop(s->loop, &s->again);
	if (!sock_is_kept(s->path))
		(void)unlink(s->path);
	(void)close(s->watch.fd);
	while (s->streams != NULL)
		destroy(s->streams);
	free(s);
	*server = NULL;
}
