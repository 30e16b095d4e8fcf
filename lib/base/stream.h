/*
 * Buffered, non-blocking connections on a loop, and the listening sockets they
 * come from. One server for each socket path; every connection is a stream
 * with bounded input and output.
 *
 * Life: the server's opened() may refuse a connection; received() is called
 * with all unread input and consumes what it can; closed() comes exactly once,
 * after which the stream is gone. stream_close() inside a callback is fine:
 * closed() then comes when the callback has returned.
 */
#ifndef RELAY365_BASE_STREAM_H
#define RELAY365_BASE_STREAM_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/sock.h"

struct stream_server;

struct stream {
	struct stream_server *server;
	struct sock_peer peer;
	struct buf in;
	void *state; /* the protocol's own; NULL at first */

	/* private */
	struct loop_fd watch;
	struct loop_timer reap;
	struct buf out;
	bool busy;   /* inside a callback */
	bool ending; /* close when the output is written */
	bool heard;  /* the peer has ended what it sends, and waits for the output */
	bool dead;
	struct stream *next, *prev;
};

struct stream_ops {
	/* Whether this peer may stay. NULL: everybody. */
	bool (*opened)(struct stream *stream);
	void (*received)(struct stream *stream);
	void (*closed)(struct stream *stream);
	/* All output was handed to the kernel. NULL: not wanted. */
	void (*flushed)(struct stream *stream);
	size_t in_max;
	size_t out_max;
	unsigned int connections_max;
};

/* Listens at path as sock_listen() says. ops and context must outlive the server. */
struct stream_server *stream_serve(struct loop *loop, const char *path, mode_t mode, gid_t group,
				   const struct stream_ops *ops, void *context, struct err *err);

/* Closes the socket and all its connections, and removes the path unless it is kept. */
void stream_server_free(struct stream_server **server);

void *stream_context(const struct stream *stream);

/*
 * Sends, or queues what the peer does not take now. Returns -1 when the peer
 * is gone or has let more than out_max pile up; the stream then closes, but
 * not before the caller has returned to the loop.
 */
int stream_send(struct stream *stream, const void *data, size_t len);

/* Whether everything sent was handed to the kernel. */
bool stream_is_flushed(const struct stream *stream);

/* Closes once the output is written. */
void stream_end(struct stream *stream);

/* Closes now. */
void stream_close(struct stream *stream);

#endif
