/*
 * relay365.conf(5) in memory: read by libconfig, checked against conf.def, the
 * one table of keys. A struct conf never changes once loaded; a reload makes a
 * new one. Every string is NUL-terminated, never NULL where a default exists,
 * and belongs to the conf. Only conf_load.c includes libconfig.h.
 */
#ifndef RELAY365_CONF_CONF_H
#define RELAY365_CONF_CONF_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONF_PATH_DEFAULT RELAY365_CONFDIR "/relay365.conf"
#define CONF_NAME_MAX \
	32 /* bytes of a mailbox's or tenant's name: a Postfix transport carries it */

struct conf_list {
	char **item;
	size_t count;
};

/* In place of a file's path: a credential that systemd hands to the service. */
#define CONF_CREDENTIAL_PREFIX "credential:"

/* Where an Azure machine hands out tokens of its own identity. */
#define CONF_IMDS_ENDPOINT "http://169.254.169.254/metadata/identity/oauth2/token"

enum conf_cloud { CLOUD_GLOBAL, CLOUD_USGOV, CLOUD_CHINA, CLOUD_CUSTOM };

struct conf_tenant {
	char name[CONF_NAME_MAX + 1];
	unsigned int line; /* where it stands in the file */
	char *id;
	char *client_id;
	char *secret_file; /* "" when not used, like the others */
	char *certificate;
	char *private_key;
	char *passphrase_file;	/* of both keys; "": they are not encrypted */
	char *next_certificate; /* staged for rotation, "" when not */
	char *next_private_key;
	bool signature_rs256;
	char *secret_expires;
	int64_t secret_expires_s; /* since 1970; 0: not known */
	char *federated_token_file;
	bool managed_identity;
	bool delegated; /* a user signs in for each mailbox */
	struct conf_list accepted_domains;
	char *licences;			     /* a number of them, "trial", or "": not known */
	int64_t external_recipients_per_day; /* worked out from licences; 0: no limit of ours */
	int64_t cloud; /* enum conf_cloud; the endpoints below are filled in from it */
	char *token_endpoint;
	char *device_endpoint;
	char *authorize_endpoint;
	char *scope;
	char *smtp_host;
	int64_t smtp_port;
	char *smtp_address;	 /* where to connect instead; "": smtp_host */
	char *ca_file;		 /* "": the system's */
	char *proxy;		 /* "": none */
	char *proxy_secret_file; /* NAME:PASSWORD; "": it wants none */
};

/* What becomes of a sender that is neither in senders nor the address. */
enum conf_other_senders { OTHERS_ACCEPT, OTHERS_REJECT, OTHERS_REWRITE };

enum conf_when_full { FULL_REJECT, FULL_DEFER, FULL_HOLD, FULL_WAIT, FULL_WARN };

/* Who hands us mail: a login, else a client's address, else a local user. */
struct conf_network {
	int family; /* AF_INET or AF_INET6 */
	unsigned char address[16];
	unsigned int bits; /* of it that count */
};

struct conf_source {
	char name[CONF_NAME_MAX + 1];
	unsigned int line;	      /* where it stands in the file */
	struct conf_list logins;      /* lower case */
	struct conf_list clients;     /* addresses and networks, as written */
	struct conf_list users;	      /* local users, for mail from sendmail(1) */
	struct conf_network *network; /* of clients, one each */
	struct conf_list mailboxes;   /* that it may use; empty: all */
	bool priority;
	bool runaway_watch;
};

/*
 * A client's address as it is written here, in sources, locks and keys: MTAs
 * have "IPv6:" before it, zeros that can be left out, or IPv4 within IPv6. What
 * is no address is copied, and cut to cap, which is at least 1.
 */
void conf_client_text(const char *client, char *out, size_t cap);

enum conf_per {
	PER_MAILBOX,
	PER_TENANT,
	PER_SOURCE,
	PER_SENDER,
	PER_SENDER_DOMAIN,
	PER_EVERYONE
};

enum conf_count { COUNT_MESSAGES, COUNT_RECIPIENTS, COUNT_EXTERNAL_RECIPIENTS, COUNT_BYTES };

/* Not "wait": only a mailbox's day is known where mail is submitted, and could make it wait. */
enum conf_action { ACTION_REJECT, ACTION_DEFER, ACTION_HOLD, ACTION_WARN };

/* A limit's maximum for one key. */
struct conf_override {
	char *key; /* lower case */
	int64_t max;
};

struct conf_limit {
	char name[CONF_NAME_MAX + 1];
	unsigned int line; /* where it stands in the file */
	int64_t per;	   /* enum conf_per */
	int64_t count;	   /* enum conf_count */
	int64_t max;
	int64_t window_ms;
	int64_t action; /* enum conf_action */
	bool shadow;
	struct conf_list overrides; /* "KEY=MAX", as written */
	struct conf_override *override;
	struct conf_list except; /* keys that this limit does not look at, lower case */
	struct conf_list exempt_recipients; /* not counted: user@domain or *@domain, lower case */
};

struct conf_mailbox {
	char name[CONF_NAME_MAX + 1];
	unsigned int line; /* where it stands in the file */
	char *address;
	char *tenant_name;
	const struct conf_tenant *tenant;
	struct conf_list senders; /* "user@domain" or "*@domain", lower case */
	int64_t is_default;	  /* 1 or 0 once loaded */
	int64_t other_senders;	  /* enum conf_other_senders */
	int64_t message_size;
	int64_t recipients_per_day;
	int64_t recipients_per_message;
	int64_t messages_per_minute; /* 0: as many as connections allow */
	int64_t connections;
	int64_t when_full;		   /* enum conf_when_full */
	int64_t max_wait_ms;		   /* for FULL_WAIT */
	int64_t then;			   /* enum conf_when_full: FULL_DEFER or FULL_REJECT */
	struct conf_list priority_senders; /* as senders; each is one of its own */
	int64_t reserve_for_priority;	   /* percent of recipients_per_day */
};

enum conf_runaway { RUNAWAY_WARN, RUNAWAY_HOLD, RUNAWAY_LOCK };

struct conf {
	char *path; /* the file this came from */
	char *postmaster;
	char *alarm_command;
	char *alarm_url;
	bool probe; /* try each new token by signing in */
	struct conf_tenant *tenant;
	size_t tenants;
	struct conf_mailbox *mailbox;
	size_t mailboxes;
	const struct conf_mailbox **by_name, **by_address; /* all of them, sorted */
	struct conf_source *source;
	size_t sources;
	struct conf_limit *limit;
	size_t limits;
	struct conf_list queue_directories;
	struct conf_list relay_hosts;
	struct conf_list token_users;
	char *state_dir;
	char *milter_state_dir;
	char *run_dir;
	char *milter_run_dir;
	char *milter_socket; /* "": relay365m/milter in each queue directory */
	char *submit_run_dir;
	char *submit_listen; /* "": at the UNIX socket only */
	struct conf_list submit_clients;
	struct conf_network *submit_network; /* of submit_clients, one each */
	char *control_group;		     /* "": the daemon's own */
	bool log_to_stderr;
	bool log_json;
	bool log_debug;
	bool accept_on_ledger_error;
	bool shadow;
	int64_t runaway_factor; /* 0: nobody runs away */
	int64_t runaway_action; /* enum conf_runaway */
};

/*
 * Reads and checks path. Returns NULL with file, line and what to do in err.
 * Files with secrets are only looked at (existence, mode), not read.
 */
struct conf *conf_load(const char *path, struct err *err);
void conf_free(struct conf **conf);

/* By name ("relay"), NULL when there is none. Both take logarithmic time. */
const struct conf_mailbox *conf_mailbox_by_name(const struct conf *conf, const char *name,
						size_t len);
/* By address, case-folded. */
const struct conf_mailbox *conf_mailbox_by_address(const struct conf *conf, const char *address);

/*
 * submit_listen ("127.0.0.1:10587", "[::1]:10587"), which must be set, as an
 * address that can be bound. -1: it is no address and port.
 */
int conf_submit_address(const struct conf *conf, struct sockaddr_storage *address_r,
			socklen_t *len_r, struct err *err);

/* Whether a client with this address, as text, may use submit_listen. */
bool conf_is_submit_client(const struct conf *conf, const char *client);

/*
 * The mailbox whose senders claim this one (bare, "" for the null sender) most
 * closely, else the default one, else NULL.
 */
const struct conf_mailbox *conf_mailbox_by_sender(const struct conf *conf, const char *sender);

/*
 * Who this is: by login (NULL or "": none), else by client address, most
 * specific network first, else by local user. NULL: no source says so.
 */
const struct conf_source *conf_source_of(const struct conf *conf, const char *login,
					 const char *client, const char *user);

/* Whether the mailbox may send as this one, as far as we know: its address, or in senders. */
bool conf_is_sender(const struct conf_mailbox *mailbox, const char *sender);

/* Whether mail of this sender (or of all that a pattern matches) goes first in its mailbox. */
bool conf_is_priority_sender(const struct conf_mailbox *mailbox, const char *sender);

/* What of recipients_per_day mail without priority may use. */
int64_t conf_ordinary_recipients(const struct conf_mailbox *mailbox);

/* Whether Microsoft sees the recipient as one outside of the mailbox's tenant. */
bool conf_is_external(const struct conf_mailbox *mailbox, const char *recipient);

/* Milliseconds of a time with its unit: "90s", "30m", "4h", "2d"; -1: it is none. */
int64_t conf_time_ms(const char *text);

/* Whether a sender or recipient pattern ("user@domain", "*@domain") matches; both lower case. */
bool conf_pattern_matches(const char *pattern, const char *address);

/*
 * The recipients that one SMTP transaction to Microsoft may carry: what the
 * generated Postfix configuration sets as recipient limit, and what tokend
 * reserves for an open lease. A twentieth of the day, so that the room that
 * only a reservation keeps empty stays small; never over recipients_per_message.
 */
int64_t conf_transaction_recipients(const struct conf_mailbox *mailbox);

/* The prefix of a mailbox's Postfix transport: "relay365-" NAME. */
#define CONF_TRANSPORT_PREFIX "relay365-"
/* And what stands behind NAME in that of its priority_senders. */
#define CONF_TRANSPORT_PRIORITY "-priority"

/* The milter macro by which Postfix tells which domains stay on its machine. */
#define CONF_LOCAL_MACRO "{relay365_local}"

/* Sendmail's mailer for all mailboxes (sendmail/relay365.m4). */
#define CONF_SENDMAIL_MAILER "relay365"

#endif
