/*
 * A non-blocking connection with a bounded buffer each way, plain or TLS.
 * Belongs to one thread.
 */
#ifndef RELAY365_SENDMAIL_WIRE_H
#define RELAY365_SENDMAIL_WIRE_H

#include "tls/tls.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_BUFFER 65536 /* bytes each way: all that is ever kept of a message */

struct fifo {
	char data[WIRE_BUFFER];
	size_t from, to;
};

struct wire {
	int fd; /* -1: not connected */
	struct tls *tls;
	bool ended;  /* nothing more will be read */
	bool broken; /* nothing more can be written; out stays empty */
	bool gone;   /* the other side has closed, though in is too full to read that */
	struct fifo in, out;
};

static inline size_t fifo_len(const struct fifo *fifo)
{
	return fifo->to - fifo->from;
}

static inline const char *fifo_text(const struct fifo *fifo)
{
	return fifo->data + fifo->from;
}

/* What can still be added. */
size_t fifo_room(const struct fifo *fifo);

/* len is at most fifo_room(). */
void fifo_add(struct fifo *fifo, const void *data, size_t len);

/* Forgets and overwrites the first n bytes. */
void fifo_drop(struct fifo *fifo, size_t n);

/* Takes over fd, which must be non-blocking; -1: none yet. */
void wire_init(struct wire *wire, int fd);
void wire_close(struct wire *wire);

/* Reads and writes what can be now; whether there was anything. */
bool wire_fill(struct wire *wire);
bool wire_flush(struct wire *wire);

/* Adds to what is to be written; on a broken wire it is thrown away. -1: no room. */
int wire_send(struct wire *wire, const void *data, size_t len);

/*
 * Waits until one of them can go on, also_fd is readable, or timeout_ms have
 * passed. b may be NULL, also_fd -1.
 */
void wire_wait(struct wire *a, struct wire *b, int also_fd, int64_t timeout_ms);

#endif
