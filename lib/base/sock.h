/*
 * UNIX sockets by path. A path's parent folder decides who may replace a
 * socket, so it is made (when missing and permitted) and never widened.
 */
#ifndef RELAY365_BASE_SOCK_H
#define RELAY365_BASE_SOCK_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

#define SOCK_PATH_MAX 107 /* bytes of a path: sun_path less its NUL */

struct sock_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
};

/*
 * Listens at path (non-blocking, close-on-exec) with this mode and, unless
 * group is (gid_t)-1, this group. The bind is done under path.lock, which
 * stays locked as long as the program lives: a second daemon is told so
 * instead of stealing the socket, and a socket left by a dead one is replaced.
 * A socket that the supervisor bound there and handed over (sd_listen_fds(3))
 * is taken as it is. Returns the descriptor, or -1, and then it may be tried again.
 */
int sock_listen(const char *path, mode_t mode, gid_t group, struct err *err);

/* Whether the supervisor keeps the socket at path, so that it outlives the program. */
bool sock_is_kept(const char *path);

/*
 * Makes the folder of a socket when it is missing: mode 2750, group as given
 * ((gid_t)-1: the process's own). An existing folder is left as it is.
 */
int sock_make_folder(const char *path, gid_t group, struct err *err);

/*
 * Takes path.lock for the life of the program, as sock_listen() does, for who
 * makes the socket in another way. Returns -1 when another daemon has it.
 */
int sock_lock(const char *path, struct err *err);

/* Connects, non-blocking afterwards. Returns the descriptor, or -1 with errno as connect(2) left
 * it. */
int sock_connect(const char *path, struct err *err);

/* Who is at the other end of a connection, as the kernel says (SO_PEERCRED). */
int sock_peer(int fd, struct sock_peer *peer_r);

/* The group with this name, or (gid_t)-1 when the machine has none. */
gid_t sock_group(const char *name);

/* The same, but also (gid_t)-1 when this process could not give its files to it. */
gid_t sock_group_to_give(const char *name);

#endif
