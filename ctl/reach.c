#include "ctl/reach.h"

#include "base/sock.h"
#include "base/xalloc.h"

#include <errno.h>
#include <unistd.h>

enum reach reach_of(const char *socket)
{
	int fd = sock_connect(socket, NULL);

	if (fd >= 0)
		(void)close(fd);
	if (fd >= 0 || errno == EAGAIN) /* its queue of connections is full */
		return REACH_SILENT;
	return errno == EACCES || errno == EPERM ? REACH_DENIED : REACH_DOWN;
}

const char *reach_name(enum reach reach)
{
	static const char *const names[] = {"down", "silent", "denied"};

	return names[reach];
}

char *reach_text(enum reach reach, const char *daemon)
{
	return xasprintf("%s %s", daemon,
			 reach == REACH_DENIED ? "can't be asked" : "does not answer");
}

char *reach_advice(enum reach reach, const char *daemon, const struct conf *conf)
{
	bool group = conf->control_group[0] != '\0';

	if (reach == REACH_DENIED)
		return xasprintf("run this as root%s%s", group ? ", or join the group " : "",
				 conf->control_group);
	if (reach == REACH_SILENT)
		return xasprintf("its log says what it does: journalctl -u %s; then run: "
				 "systemctl restart %s",
				 daemon, daemon);
	return xasprintf("run: systemctl start %s; then systemctl status %s", daemon, daemon);
}
