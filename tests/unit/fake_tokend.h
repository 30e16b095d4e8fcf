/*
 * A stand-in for relay365-tokend's token socket that does as told: a thread
 * that takes one connection after the other. Tests set the fields of the first
 * part before fake_start() and read the second part at any time.
 */
#ifndef RELAY365_TESTS_FAKE_TOKEND_H
#define RELAY365_TESTS_FAKE_TOKEND_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define FAKE_SOCKET "token" /* in the working directory */

struct fake {
	const char *answer;
	size_t answer_len;
	size_t chunk;	  /* bytes a write; 0: all at once */
	int pause_ms;	  /* before each write */
	int late_ms;	  /* before the socket is there */
	bool deaf;	  /* answers without reading the request */
	bool hang_up;	  /* closes when the answer is written */
	atomic_int asked; /* connections taken */
	atomic_int ended; /* connections whose end was seen */
	char request[1024];

	int listener;
	int stop[2]; /* a pipe; its end is the word to stop */
	pthread_t thread;
};

/* Goes to a fresh directory, where the sockets will be; back out again and removes it. */
void fake_enter(void);
void fake_leave(void);

void fake_start(struct fake *fake);

/* Whether count connections have ended, or do so within two seconds. */
bool fake_wait_ended(struct fake *fake, int count);

void fake_stop(struct fake *fake);

#endif
