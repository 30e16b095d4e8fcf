#include "milter/milter.h"

#include "base/log.h"
#include "base/sock.h"
#include "base/xalloc.h"
#include "milter/session.h"
#include "quota/limits.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmilter/mfapi.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WHERE_MAX = 256, BACKLOG = 1024, LOCAL_TEXT = 600 };

/* What was agreed with the MTA, in a word that also outlives a session. */
enum {
	NR_CONNECT = 1, /* CONNECT and MAIL are not to be answered */
	NR_MAIL = 2,
	CAN_HOLD = 4,
	BY_MACROS = 8,	     /* the client's address comes with MAIL */
	READS_HEADER = 0x10, /* the header comes, */
	NR_HEADER = 0x20,    /* and is not to be answered */
	READS_BODY = 0x40,   /* the body too */
	NR_BODY = 0x80,
	CAN_CHANGE = 0x100, /* sender and header */
	HOSTLESS = 0x200    /* no recipient's host comes */
};

#define CHANGES (SMFIF_CHGFROM | SMFIF_CHGHDRS | SMFIF_ADDHDRS)

struct connection {
	struct session *session;
	unsigned int agreed;
	bool knows_id;	/* the session has the queue id, which a message keeps */
	bool simulated; /* the message comes from sendmail(1) */
	char client[SESSION_CLIENT_MAX + 1];
};

static struct {
	struct live *live;
	struct quota *quota;
	struct usage *usage;
	char where[WHERE_MAX]; /* for libmilter */
	const char *path;      /* of a UNIX socket, in where; NULL if it is none */
	int listening;	       /* libmilter's descriptor; -1: not known */
	atomic_uint agreed;    /* the last agreement */
	atomic_int sessions;
} self;

static char *macro(SMFICTX *ctx, const char *name)
{
	union {
		const char *in;
		char *out;
	} cast = {name}; /* libmilter's prototype lacks a const */

	return smfi_getsymval(ctx, cast.out);
}

static void want_macros(SMFICTX *ctx, int stage, const char *names)
{
	union {
		const char *in;
		char *out;
	} cast = {names};

	(void)smfi_setsymlist(ctx, stage, cast.out);
}

static struct connection *new_connection(SMFICTX *ctx, unsigned int agreed)
{
	struct connection *c = xcalloc(1, sizeof(*c));

	c->agreed = agreed;
	c->session = session_new(self.live, self.quota, self.usage);
	(void)smfi_setpriv(ctx, c);
	(void)atomic_fetch_add(&self.sessions, 1);
	return c;
}

/* An MTA may go on with a new session on the old connection, without a new agreement. */
static struct connection *connection_of(SMFICTX *ctx)
{
	struct connection *c = smfi_getpriv(ctx);

	return c != NULL ? c : new_connection(ctx, atomic_load(&self.agreed));
}

/* What the configuration's sender policy and limits need, beside the envelope. */
static void ask_for_content(const struct conf *conf, unsigned long actions, unsigned long steps,
			    unsigned long *actions_r, unsigned long *steps_r,
			    unsigned int *agreed)
{
	if (sender_reads_header(conf) || limits_count_bytes(conf)) {
		*steps_r = (*steps_r & ~(unsigned long)SMFIP_NOHDRS) | (steps & SMFIP_NR_HDR);
		*agreed |= READS_HEADER | ((steps & SMFIP_NR_HDR) != 0 ? NR_HEADER : 0);
	}
	if (limits_count_bytes(conf)) {
		*steps_r = (*steps_r & ~(unsigned long)SMFIP_NOBODY) | (steps & SMFIP_NR_BODY);
		*agreed |= READS_BODY | ((steps & SMFIP_NR_BODY) != 0 ? NR_BODY : 0);
	}
	if (sender_rewrites(conf) && (actions & CHANGES) == CHANGES) {
		*actions_r |= CHANGES;
		*agreed |= CAN_CHANGE;
	}
}

/* The host only where it matters: each macro costs with each recipient. */
static void want_rcpt_macros(SMFICTX *ctx, const struct conf *conf, unsigned int *agreed)
{
	if (conf->relay_hosts.count > 0) {
		want_macros(ctx, SMFIM_ENVRCPT, "i {rcpt_mailer} {rcpt_host}");
	} else {
		want_macros(ctx, SMFIM_ENVRCPT, "i {rcpt_mailer}");
		*agreed |= HOSTLESS;
	}
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps,
			     unsigned long unused2, unsigned long unused3,
			     unsigned long *actions_r, unsigned long *steps_r,
			     unsigned long *unused2_r, unsigned long *unused3_r)
{
	unsigned long away = SMFIP_NOHELO | SMFIP_NOHDRS | SMFIP_NOEOH | SMFIP_NOBODY |
			     SMFIP_NOUNKNOWN | SMFIP_NODATA | SMFIP_NR_CONN | SMFIP_NR_MAIL;
	struct live_conf *live = live_get(self.live);
	unsigned int agreed = 0;

	(void)unused2;
	(void)unused3;
	if ((actions & SMFIF_SETSYMLIST) != 0) {
		away |= SMFIP_NOCONNECT;
		agreed |= BY_MACROS;
		want_macros(ctx, SMFIM_ENVFROM,
			    "i j v {auth_authen} {client_addr} " CONF_LOCAL_MACRO);
		want_rcpt_macros(ctx, live_conf(live), &agreed);
		want_macros(ctx, SMFIM_EOM, "i");
	}
	if ((away & steps & SMFIP_NOCONNECT) == 0)
		agreed &= ~(unsigned int)BY_MACROS;
	if ((steps & SMFIP_NR_CONN) != 0)
		agreed |= NR_CONNECT;
	if ((steps & SMFIP_NR_MAIL) != 0)
		agreed |= NR_MAIL;
	if ((actions & SMFIF_QUARANTINE) != 0)
		agreed |= CAN_HOLD;
	*actions_r = actions & SMFIF_QUARANTINE;
	*steps_r = away & steps;
	ask_for_content(live_conf(live), actions, steps, actions_r, steps_r, &agreed);
	live_put(&live);
	*unused2_r = *unused3_r = 0;
	atomic_store(&self.agreed, agreed);
	(void)new_connection(ctx, agreed);
	return SMFIS_CONTINUE;
}

static void client_text(const struct sockaddr *address, char out[SESSION_CLIENT_MAX + 1])
{
	const struct sockaddr_in *in = (const void *)address;
	const struct sockaddr_in6 *in6 = (const void *)address;

	out[0] = '\0';
	if (address == NULL)
		return;
	if (address->sa_family == AF_INET)
		(void)inet_ntop(AF_INET, &in->sin_addr, out, SESSION_CLIENT_MAX);
	else if (address->sa_family == AF_INET6)
		(void)inet_ntop(AF_INET6, &in6->sin6_addr, out, SESSION_CLIENT_MAX);
}

static sfsistat on_connect(SMFICTX *ctx, char *name, struct sockaddr *address)
{
	struct connection *c = connection_of(ctx);

	(void)name;
	client_text(address, c->client);
	return (c->agreed & NR_CONNECT) != 0 ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

/* SIZE=n among the arguments of MAIL; 0 when it is not there. */
static int64_t announced_bytes(char **argv)
{
	for (; *argv != NULL; argv++)
		if (strncasecmp(*argv, "SIZE=", 5) == 0)
			return strtoll(*argv + 5, NULL, 10);
	return 0;
}

/*
 * Postfix plays a session for mail from sendmail(1). Only there it knows the
 * queue id before the first recipient, while Sendmail knows it with each MAIL.
 * Sendmail never tells local domains, and its version is a number.
 */
static bool is_simulated(SMFICTX *ctx)
{
	const char *version;

	if (macro(ctx, "i") == NULL)
		return false;
	version = macro(ctx, "v");
	return macro(ctx, CONF_LOCAL_MACRO) != NULL ||
	       (version != NULL && (version[0] < '0' || version[0] > '9'));
}

static sfsistat on_mail(SMFICTX *ctx, char **argv)
{
	struct connection *c = connection_of(ctx);
	struct session_mail mail = {
		.sender = argv[0],
		.client = (c->agreed & BY_MACROS) != 0 ? macro(ctx, "{client_addr}") : c->client,
		.login = macro(ctx, "{auth_authen}"),
		.queue_id = macro(ctx, "i"),
		.simulated = is_simulated(ctx),
		.bytes = announced_bytes(argv + 1),
	};

	c->knows_id = mail.queue_id != NULL;
	c->simulated = mail.simulated;
	session_mail(c->session, &mail);
	return (c->agreed & NR_MAIL) != 0 ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat refuse(SMFICTX *ctx, struct reply *reply)
{
	char text[2 * REPLY_TEXT_MAX];
	size_t n = 0;

	/* libmilter wants each percent sign twice. */
	for (const char *p = reply->text; *p != '\0'; p++) {
		if (*p == '%')
			text[n++] = '%';
		text[n++] = *p;
	}
	text[n] = '\0';
	if (smfi_setreply(ctx, reply->code, reply->status, text) != MI_SUCCESS)
		log_say(EV_WARNING, "libmilter did not take the reply %s %s %s", reply->code,
			reply->status, reply->text);
	return reply->code[0] == '5' ? SMFIS_REJECT : SMFIS_TEMPFAIL;
}

/* Whether it matters what is local: each macro that is looked up costs. */
static bool needs_local(const struct connection *c, const char *recipient)
{
	const char *at = strchr(recipient, '@');

	return c->simulated || strpbrk(recipient, "%!") != NULL ||
	       (at != NULL && strchr(at + 1, '@') != NULL);
}

/*
 * The domains that stay on the MTA's machine. A Postfix that is not told to tell them is
 * taken to keep Debian's default: its own name, localhost, and that in its domain.
 */
static const char *local_domains(SMFICTX *ctx, char text[LOCAL_TEXT])
{
	const char *local = macro(ctx, CONF_LOCAL_MACRO), *host;

	if (local != NULL)
		return local;
	host = macro(ctx, "j");
	if (host == NULL)
		return NULL;
	(void)snprintf(text, LOCAL_TEXT, "%.255s localhost localhost%.255s", host,
		       host + strcspn(host, "."));
	return text;
}

static sfsistat on_rcpt(SMFICTX *ctx, char **argv)
{
	struct connection *c = connection_of(ctx);
	bool hostless = (c->agreed & HOSTLESS) != 0;
	char local[LOCAL_TEXT];
	struct session_rcpt rcpt = {
		.recipient = argv[0],
		.mailer = macro(ctx, "{rcpt_mailer}"),
		.host = hostless ? NULL : macro(ctx, "{rcpt_host}"),
		.hostless = hostless,
		.local = needs_local(c, argv[0]) ? local_domains(ctx, local) : NULL,
		.queue_id = c->knows_id ? NULL : macro(ctx, "i"),
	};
	struct reply reply;

	c->knows_id = c->knows_id || rcpt.queue_id != NULL;
	if (session_rcpt(c->session, &rcpt, &reply) == SESSION_REFUSE)
		return refuse(ctx, &reply);
	return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	struct connection *c = connection_of(ctx);

	session_field(c->session, name, value);
	return (c->agreed & NR_HEADER) != 0 ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *data, size_t len)
{
	struct connection *c = connection_of(ctx);

	(void)data;
	session_body(c->session, len);
	return (c->agreed & NR_BODY) != 0 ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

/* libmilter's prototypes lack a const. */
static int change_field(SMFICTX *ctx, const char *name, unsigned int place, const char *value)
{
	union {
		const char *in;
		char *out;
	} n = {name}, v = {value};

	return smfi_chgheader(ctx, n.out, (int)place, v.out);
}

static int add_field(SMFICTX *ctx, const char *name, const char *value)
{
	union {
		const char *in;
		char *out;
	} n = {name}, v = {value};

	return smfi_addheader(ctx, n.out, v.out);
}

/* Takes away the fields of a name, but for the first ones that are kept. */
static int remove_fields(SMFICTX *ctx, const char *name, unsigned int count, unsigned int kept)
{
	/* From the last on: it is the MTA's choice whether the others move up. */
	for (; count > kept; count--)
		if (change_field(ctx, name, count, NULL) != MI_SUCCESS)
			return MI_FAILURE;
	return MI_SUCCESS;
}

static int change_header(SMFICTX *ctx, const struct sender_change *change)
{
	const char *from = buf_text(&change->from);

	if ((from[0] != '\0' &&
	     (change->froms == 0 ? add_field(ctx, "From", from)
				 : change_field(ctx, "From", 1, from)) != MI_SUCCESS) ||
	    remove_fields(ctx, "From", change->froms, 1) != MI_SUCCESS ||
	    remove_fields(ctx, "Sender", change->senders, 0) != MI_SUCCESS ||
	    remove_fields(ctx, "DKIM-Signature", change->signatures, 0) != MI_SUCCESS)
		return MI_FAILURE;
	if (change->reply_to.len == 0)
		return MI_SUCCESS;
	return add_field(ctx, "Reply-To", buf_text(&change->reply_to));
}

static int change_envelope(SMFICTX *ctx, const struct sender_change *change)
{
	char envelope[FROM_ADDRESS_MAX + 3];

	(void)snprintf(envelope, sizeof(envelope), "<%s>", change->envelope);
	return smfi_chgfrom(ctx, envelope, NULL);
}

static sfsistat change_sender(SMFICTX *ctx, const struct sender_change *change)
{
	if ((change->envelope[0] == '\0' || change_envelope(ctx, change) == MI_SUCCESS) &&
	    (!change->header || change_header(ctx, change) == MI_SUCCESS))
		return SMFIS_CONTINUE;
	log_say(EV_WARNING, "the MTA did not take another sender: it must let milters change "
			    "the sender and the header");
	return SMFIS_TEMPFAIL;
}

static sfsistat on_end(SMFICTX *ctx)
{
	struct connection *c = connection_of(ctx);
	struct session_ending ending = {
		.queue_id = macro(ctx, "i"),
		.saw_header = (c->agreed & READS_HEADER) != 0,
		.saw_body = (c->agreed & READS_BODY) != 0,
		.can_change = (c->agreed & CAN_CHANGE) != 0,
		.can_hold = (c->agreed & CAN_HOLD) != 0,
	};
	struct session_outcome outcome;
	sfsistat answer = SMFIS_CONTINUE; /* not ACCEPT: other milters may come after this */

	switch (session_end(c->session, &ending, &outcome)) {
	case SESSION_REFUSE:
		answer = refuse(ctx, &outcome.reply);
		break;
	case SESSION_HOLD:
		if (smfi_quarantine(ctx, outcome.reason) != MI_SUCCESS) {
			log_say(EV_WARNING, "the MTA did not take a message into quarantine: %s",
				outcome.reason);
			answer = SMFIS_TEMPFAIL;
			break;
		}
		answer = change_sender(ctx, &outcome.change);
		break;
	case SESSION_CONTINUE:
		answer = change_sender(ctx, &outcome.change);
		break;
	}
	sender_change_clear(&outcome.change);
	return answer;
}

static sfsistat on_abort(SMFICTX *ctx)
{
	struct connection *c = smfi_getpriv(ctx);

	if (c != NULL)
		session_abort(c->session);
	return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
	struct connection *c = smfi_getpriv(ctx);

	if (c == NULL)
		return SMFIS_CONTINUE;
	(void)smfi_setpriv(ctx, NULL);
	session_free(&c->session);
	free(c);
	(void)atomic_fetch_sub(&self.sessions, 1);
	return SMFIS_CONTINUE;
}

/* Fills in self.where and self.path from the configuration. */
static int choose_socket(const struct conf *conf, struct err *err)
{
	const char *given = conf->milter_socket;
	int n;

	if (given[0] == '\0' && conf->queue_directories.count > 1)
		return err_set(err, ERR_CONFIG,
			       "a milter listens at one socket, and there are %zu "
			       "queue_directories: set milter_socket, for example to "
			       "\"inet:8365@127.0.0.1\", and name it in smtpd_milters of each "
			       "Postfix instance",
			       conf->queue_directories.count);
	if (given[0] == '\0' && conf->queue_directories.count == 0)
		n = snprintf(self.where, sizeof(self.where), "unix:%s/milter",
			     conf->milter_run_dir);
	else if (given[0] == '\0')
		n = snprintf(self.where, sizeof(self.where), "unix:%s/relay365m/milter",
			     conf->queue_directories.item[0]);
	else
		n = snprintf(self.where, sizeof(self.where), "%s%s",
			     given[0] == '/' ? "unix:" : "", given);
	if (n < 0 || (size_t)n >= sizeof(self.where))
		return err_set(err, ERR_CONFIG, "milter_socket is too long");
	if (strncmp(self.where, "unix:", 5) == 0)
		self.path = self.where + 5;
	else if (strncmp(self.where, "local:", 6) == 0)
		self.path = self.where + 6;
	else
		self.path = NULL;
	if (self.path != NULL && strlen(self.path) > SOCK_PATH_MAX)
		return err_set(err, ERR_CONFIG,
			       "the socket path %s is longer than %d bytes; choose a shorter one",
			       self.path, SOCK_PATH_MAX);
	return 0;
}

static int describe(struct err *err)
{
	struct smfiDesc desc = {
		.xxfi_name = self.where, /* libmilter copies it */
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_QUARANTINE | CHANGES,
		.xxfi_connect = on_connect,
		.xxfi_envfrom = on_mail,
		.xxfi_envrcpt = on_rcpt,
		.xxfi_header = on_header,
		.xxfi_body = on_body,
		.xxfi_eom = on_end,
		.xxfi_abort = on_abort,
		.xxfi_close = on_close,
		.xxfi_negotiate = on_negotiate,
	};
	char name[] = "relay365-milter";

	desc.xxfi_name = name;
	if (smfi_register(desc) != MI_SUCCESS || smfi_setconn(self.where) != MI_SUCCESS)
		return err_set(err, ERR_CONFIG,
			       "libmilter does not take the socket %s; write unix:PATH or "
			       "inet:PORT@HOST",
			       self.where);
	(void)smfi_settimeout(SESSION_TIMEOUT_S);
	(void)smfi_setbacklog(BACKLOG);
	return 0;
}

/* libmilter does not tell its descriptor, but it is the lowest that is free. */
static int open_socket(struct err *err)
{
	int yes = 0, fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	socklen_t len = sizeof(yes);

	if (fd >= 0)
		(void)close(fd);
	/* With the lock in hand, a socket that stands there belongs to nobody alive. */
	if (smfi_opensocket(self.path != NULL) != MI_SUCCESS)
		return err_set(err, ERR_CONFIG,
			       "cannot listen at %s; libmilter logs why, as facility daemon",
			       self.where);
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) < 0 || yes == 0)
		fd = -1;
	self.listening = fd;
	return 0;
}

int milter_listen(const struct conf *conf, const char **where_r, struct err *err)
{
	gid_t group = sock_group("postfix");

	if (choose_socket(conf, err) < 0)
		return -1;
	*where_r = self.where;
	if (self.path != NULL &&
	    (sock_make_folder(self.path, group, err) < 0 || sock_lock(self.path, err) < 0))
		return -1;
	if (describe(err) < 0)
		return -1;
	if (open_socket(err) < 0)
		return -1;
	if (self.path == NULL)
		return 0;
	if ((group != (gid_t)-1 && chown(self.path, (uid_t)-1, group) < 0 && errno != EPERM) ||
	    chmod(self.path, 0660) < 0)
		return err_set(err, ERR_CONFIG, "cannot set up %s: %s", self.path, err_no(errno));
	return 0;
}

int milter_run(struct live *live, struct quota *quota, struct usage *usage)
{
	self.live = live;
	self.quota = quota;
	self.usage = usage;
	return smfi_main() == MI_SUCCESS ? 0 : -1;
}

void milter_wake(void)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	int fd;

	if (self.listening < 0 ||
	    getsockname(self.listening, (struct sockaddr *)&address, &len) < 0)
		return;
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	(void)!connect(fd, (struct sockaddr *)&address, len);
	(void)close(fd);
}

void milter_cleanup(void)
{
	if (self.path != NULL)
		(void)unlink(self.path);
}

int milter_sessions(void)
{
	return atomic_load(&self.sessions);
}
