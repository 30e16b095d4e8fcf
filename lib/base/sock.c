#include "base/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int fill_address(const char *path, struct sockaddr_un *sun, struct err *err)
{
	if (strlen(path) > SOCK_PATH_MAX)
		return err_set(
			err, ERR_CONFIG,
			"the socket path %s is longer than %d bytes; choose a shorter folder",
			path, SOCK_PATH_MAX);
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, path, strlen(path));
	return 0;
}

int sock_make_folder(const char *path, gid_t group, struct err *err)
{
	char folder[SOCK_PATH_MAX + 1];
	const char *slash = strrchr(path, '/');
	size_t n = slash == NULL ? 0 : (size_t)(slash - path);

	if (n == 0 || n >= sizeof(folder))
		return 0;
	memcpy(folder, path, n);
	folder[n] = '\0';
	if (mkdir(folder, 0750) < 0) {
		if (errno == EEXIST)
			return 0;
		return err_set(err, ERR_CONFIG, "cannot make the folder %s for a socket: %s",
			       folder, err_no(errno));
	}
	if (group != (gid_t)-1)
		(void)!chown(folder, (uid_t)-1, group);
	if (chmod(folder, 02750) < 0)
		return err_set(err, ERR_CONFIG, "cannot set the mode of %s: %s", folder,
			       err_no(errno));
	return 0;
}

/* Takes path.lock. Returns the descriptor that holds it as long as it is open, or -1. */
static int take_lock(const char *path, struct err *err)
{
	char lock[4096];
	int fd;

	(void)snprintf(lock, sizeof(lock), "%s.lock", path);
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(err, ERR_CONFIG, "cannot open %s: %s", lock, err_no(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		(void)close(fd);
		return err_set(err, ERR_PERM, "another daemon already serves %s; stop it first",
			       path);
	}
	return fd;
}

int sock_lock(const char *path, struct err *err)
{
	/* Open for the life of the process, on purpose. */
	return take_lock(path, err) < 0 ? -1 : 0;
}

/* A set-gid folder may have given the group already, and then it need not be ours to give. */
static int set_group(const char *path, gid_t group)
{
	struct stat st;

	if (stat(path, &st) == 0 && st.st_gid == group)
		return 0;
	return chown(path, (uid_t)-1, group);
}

/* The descriptor of a socket at path among those that the supervisor handed over, or -1. */
static int handed_over(const char *path)
{
	enum { FIRST = 3, MOST = 256 };
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	long n = count == NULL ? 0 : strtol(count, NULL, 10);

	if (pid == NULL || strtol(pid, NULL, 10) != (long)getpid() || n > MOST)
		return -1;
	for (int fd = FIRST; fd < FIRST + (int)n; fd++) {
		struct sockaddr_un sun = {0};
		socklen_t len = sizeof(sun);

		if (getsockname(fd, (struct sockaddr *)&sun, &len) == 0 &&
		    sun.sun_family == AF_UNIX && len < sizeof(sun) &&
		    strcmp(sun.sun_path, path) == 0)
			return fd;
	}
	return -1;
}

bool sock_is_kept(const char *path)
{
	return handed_over(path) >= 0;
}

int sock_listen(const char *path, mode_t mode, gid_t group, struct err *err)
{
	struct sockaddr_un sun;
	int fd, lock;

	if (fill_address(path, &sun, err) < 0)
		return -1;
	lock = take_lock(path, err);
	if (lock < 0)
		return -1;
	fd = handed_over(path);
	if (fd >= 0) {
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
		(void)fcntl(fd, F_SETFL, O_NONBLOCK);
		return fd;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		err_set(err, ERR_TEMP, "cannot make a socket: %s", err_no(errno));
		goto fail;
	}
	/* With the lock in hand, whatever stands there belongs to nobody alive. */
	(void)unlink(path);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		err_set(err, ERR_CONFIG, "cannot listen at %s: %s", path, err_no(errno));
		goto fail;
	}
	if (chmod(path, mode) < 0 || (group != (gid_t)-1 && set_group(path, group) < 0) ||
	    listen(fd, 1024) < 0) {
		err_set(err, ERR_CONFIG, "cannot set up %s: %s", path, err_no(errno));
		goto fail;
	}
	return fd; /* and the lock stays open */
fail:
	if (fd >= 0)
		(void)close(fd);
	(void)close(lock); /* so that it can be tried again */
	return -1;
}

int sock_connect(const char *path, struct err *err)
{
	struct sockaddr_un sun;
	int fd, error;

	if (fill_address(path, &sun, err) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, ERR_TEMP, "cannot make a socket: %s", err_no(errno));
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		error = errno;
		err_set(err, ERR_TEMP, "cannot connect to %s: %s", path, err_no(error));
		(void)close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

int sock_peer(int fd, struct sock_peer *peer_r)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -1;
	peer_r->uid = cred.uid;
	peer_r->gid = cred.gid;
	peer_r->pid = cred.pid;
	return 0;
}

gid_t sock_group(const char *name)
{
	struct group *gr = getgrnam(name);

	return gr == NULL ? (gid_t)-1 : gr->gr_gid;
}

gid_t sock_group_to_give(const char *name)
{
	gid_t group = sock_group(name);

	return group == (gid_t)-1 || geteuid() == 0 || group_member(group) != 0 ? group
										: (gid_t)-1;
}
