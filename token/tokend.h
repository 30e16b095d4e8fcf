/* The daemon's parts, and what its sockets and its control verbs need of each other. */
#ifndef RELAY365_TOKEN_TOKEND_H
#define RELAY365_TOKEN_TOKEND_H

#include "token/calendar.h"
#include "token/delivered.h"
#include "http/http.h"
#include "token/identity.h"
#include "token/mailbox.h"
#include "token/probes.h"
#include "token/sign_in.h"

#include "base/stream.h"
#include "conf/conf.h"
#include "proto/control.h"

/* A name, and the mailbox that had it last. */
struct tokend_name {
	char name[CONF_NAME_MAX + 1];
	struct mailbox *mailbox;
};

struct tokend {
	struct loop *loop;
	struct http *http;
	struct conf *conf;
	struct memo *memo;
	struct delivered *delivered;
	struct lease_book *book;
	struct calendar *calendar;
	int64_t calendar_at_boot_ms; /* when to look at it again */
	struct probes *probes;
	struct tokend_sign_in *sign_ins; /* tokend_sign_in.c */
	struct locks *locks;
	struct gate *gate;
	struct vault *vault;
	struct identity **identity; /* one for each tenant, or for each mailbox of it */
	size_t identities;
	struct mailbox **mailbox; /* one for each mailbox that ever was in the configuration */
	size_t mailboxes;
	struct tokend_name *name; /* every one that ever was in the configuration */
	size_t names;
	struct mailbox **of_conf;     /* those of conf's mailboxes, in their order */
	struct tokend_socket *socket; /* tokend_sockets.c: token and map sockets */
	size_t sockets;
	struct control_server *control;
	struct loop_timer tick;
	int64_t started_wall_ms;
	uid_t *token_uid; /* conf's token_users, looked up when the configuration is read */
	size_t token_uids;
};

/*
 * tokend_sockets.c: control, token and map sockets, in the run folder and in each queue
 * directory. Of several queue directories some may be missing, and others go on: they are
 * tried again. -1: it can't serve, err says why.
 */
int tokend_open_sockets(struct tokend *tokend, struct err *err);
void tokend_open_missing_sockets(struct tokend *tokend);
void tokend_close_sockets(struct tokend *tokend);

/* The group that may use the command, or (gid_t)-1. */
gid_t tokend_control_group(const struct conf *conf);

/* tokend.c: makes identities and mailboxes as conf says; called again after a reload. */
void tokend_configure(struct tokend *tokend, struct conf *conf);

/* Reads the configuration again; who asked goes into the log. -1: the old one stays in force. */
int tokend_reload(struct tokend *tokend, const char *who, struct err *err);

/* The identity that a mailbox of the configuration in force uses. */
struct identity *tokend_identity_of(const struct tokend *tokend,
				    const struct conf_mailbox *mailbox);

/* By name, NULL when the configuration has no such mailbox (any more). */
struct mailbox *tokend_mailbox_by_name(struct tokend *tokend, const char *name, size_t len);
struct mailbox *tokend_mailbox_by_address(struct tokend *tokend, const char *address);

/* The one that had this name when it last stood in the configuration, or NULL. */
struct mailbox *tokend_mailbox_by_old_name(const struct tokend *tokend, const char *name,
					   size_t len);

/* token_socket.c, map_socket.c: serve at path. */
struct stream_server *token_socket_serve(struct tokend *tokend, const char *path, gid_t group,
					 struct err *err);
struct stream_server *token_socket_serve_priority(struct tokend *tokend, const char *path,
						  gid_t group, struct err *err);
struct stream_server *map_socket_serve(struct tokend *tokend, const char *path, gid_t group,
				       struct err *err);

/* tokend_probe.c: verbs. */
int tokend_verb_probe(void *context, const struct kv_message *request, cJSON **json_r,
		      struct err *err);
int tokend_verb_probe_status(void *context, const struct kv_message *request, cJSON **json_r,
			     struct err *err);

/* The mailbox that a request names under "mailbox", by name or address; NULL with err. */
const struct conf_mailbox *tokend_named_mailbox(const struct tokend *tokend,
						const struct kv_message *request,
						struct err *err);

/* tokend_sign_in.c: verbs, and what ends with a reload. */
int tokend_verb_authorize(void *context, const struct kv_message *request, cJSON **json_r,
			  struct err *err);
int tokend_verb_authorize_answer(void *context, const struct kv_message *request, cJSON **json_r,
				 struct err *err);
int tokend_verb_authorize_import(void *context, const struct kv_message *request, cJSON **json_r,
				 struct err *err);
int tokend_verb_authorize_status(void *context, const struct kv_message *request, cJSON **json_r,
				 struct err *err);
void tokend_stop_sign_ins(struct tokend *tokend);
void tokend_free_sign_ins(struct tokend *tokend);

/* tokend_control.c */
extern const struct control_verb tokend_verbs[];

#endif
