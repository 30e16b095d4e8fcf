#include "ctl/doctor.h"

#include "base/clock.h"
#include "base/xalloc.h"
#include "ctl/dialogue.h"
#include "explain/explain.h"

#include <errno.h>
#include <netdb.h>
#include <strings.h>
#include <sys/socket.h>

enum { CONNECT_MS = 10000, CLOCK_WARN_S = 60, CLOCK_FAULT_S = 240 };

/* ---- the clock ---- */

/* "https://host:port/path": host and port. */
static int split_url(const char *url, char *host, size_t cap, long *port_r)
{
	const char *at = strstr(url, "://");
	size_t len;

	if (at == NULL)
		return -1;
	at += 3;
	len = strcspn(at, ":/");
	if (len == 0 || len >= cap)
		return -1;
	memcpy(host, at, len);
	host[len] = '\0';
	*port_r = at[len] == ':' ? strtol(at + len + 1, NULL, 10) : 443;
	return 0;
}

/* The Date header of the token endpoint in seconds since 1970; 0 when it can't be had. */
static int64_t their_time(struct doctor *doctor, const struct conf_tenant *tenant,
			  struct err *err)
{
	char host[256], line[DIALOGUE_REPLY_MAX];
	struct dialogue talk = {.fd = -1};
	struct tm tm = {0};
	int64_t time_s = 0;
	long port;

	if (split_url(tenant->token_endpoint, host, sizeof(host), &port) < 0 ||
	    dialogue_open(&talk, host, port, CONNECT_MS, &doctor->transcript, NULL, err) < 0) {
		dialogue_close(&talk);
		return 0;
	}
	(void)snprintf(line, sizeof(line), "HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n",
		       host);
	if (dialogue_start_tls(&talk, host, tenant->ca_file, err) == 0 &&
	    dialogue_say(&talk, line, "HEAD / HTTP/1.1", err) == 0)
		while (time_s == 0 && dialogue_line(&talk, line, err) == 0 && line[0] != '\0')
			if (strncasecmp(line, "Date: ", 6) == 0 &&
			    strptime(line + 6, "%a, %d %b %Y %H:%M:%S GMT", &tm) != NULL)
				time_s = (int64_t)timegm(&tm);
	dialogue_close(&talk);
	return time_s;
}

void doctor_clock(struct doctor *doctor)
{
	const struct conf_tenant *tenant = &doctor->conf->tenant[0];
	struct err err = ERR_INIT;
	int64_t theirs_s, off_s;

	if (doctor->conf->tenants == 0 || tenant->proxy[0] != '\0') {
		doctor_add(doctor, DOCTOR_UNPROVEN, NULL, "Entra is reached by a proxy");
		return;
	}
	theirs_s = their_time(doctor, tenant, &err);
	if (theirs_s == 0) {
		doctor_add(doctor, DOCTOR_UNPROVEN, NULL, "Entra's time is not known%s%s",
			   err.text[0] != '\0' ? ": " : "", err.text);
		return;
	}
	off_s = clock_wall_ms() / 1000 - theirs_s;
	doctor_add(doctor,
		   llabs(off_s) >= CLOCK_FAULT_S  ? DOCTOR_FAULT
		   : llabs(off_s) >= CLOCK_WARN_S ? DOCTOR_WARNING
						  : DOCTOR_OK,
		   llabs(off_s) >= CLOCK_WARN_S ? "set this machine's clock: timedatectl "
						  "set-ntp true"
						: NULL,
		   "this machine's clock is %lld s %s Entra's", (long long)llabs(off_s),
		   off_s < 0 ? "behind" : "ahead of");
}

/* ---- the server ---- */

static const char *connect_host(const struct conf_tenant *tenant)
{
	return tenant->smtp_address[0] != '\0' ? tenant->smtp_address : tenant->smtp_host;
}

static void say_unreachable(struct doctor *doctor, const struct conf_tenant *tenant, int error,
			    const struct err *err)
{
	long long port = (long long)tenant->smtp_port;
	const char *host = connect_host(tenant);

	if (error == 0)
		doctor_add(doctor, DOCTOR_FAULT,
			   "check /etc/resolv.conf, and in a chroot its copy there", "%s",
			   err->text);
	else if (error == ECONNREFUSED)
		doctor_add(doctor, DOCTOR_FAULT,
			   "check smtp_host, smtp_address and smtp_port; a firewall may refuse",
			   "%s refuses connections to port %lld", host, port);
	else
		doctor_add(doctor, DOCTOR_FAULT,
			   "let this machine reach it: a firewall drops packets to that port",
			   "%s does not answer on port %lld: %s", host, port, err_no(error));
}

/* Port 25 is no way out, but tells whether one port or the whole server is out of reach. */
static void try_port_25(struct doctor *doctor, const struct conf_tenant *tenant)
{
	struct dialogue talk = {.fd = -1};
	struct err err = ERR_INIT;

	if (tenant->smtp_port == 25)
		return;
	if (dialogue_open(&talk, connect_host(tenant), 25, CONNECT_MS / 3, &doctor->transcript,
			  NULL, &err) == 0)
		doctor_add(doctor, DOCTOR_UNPROVEN, NULL,
			   "port 25 of the same server can be reached");
	dialogue_close(&talk);
}

static const char *capability(const char *reply, const char *name)
{
	for (const char *line = reply; line != NULL; line = strchr(line, '\n')) {
		line += line[0] == '\n';
		if (strlen(line) > 4 && strncasecmp(line + 4, name, strlen(name)) == 0)
			return line + 4;
	}
	return NULL;
}

/*
 * Up to EHLO under TLS. On failure a finding says why, and -1 is returned.
 */
static int greet(struct doctor *doctor, struct dialogue *talk, const struct conf_tenant *tenant,
		 char *reply)
{
	struct err err = ERR_INIT;
	struct err tls = ERR_INIT;
	int error = 0;

	if (dialogue_open(talk, connect_host(tenant), tenant->smtp_port, CONNECT_MS,
			  &doctor->transcript, &error, &err) < 0) {
		say_unreachable(doctor, tenant, error, &err);
		return -1;
	}
	if (dialogue_reply(talk, reply, &err) != 220 ||
	    dialogue_say(talk, "EHLO relay365.invalid", NULL, &err) < 0 ||
	    dialogue_reply(talk, reply, &err) != 250) {
		doctor_add(doctor, DOCTOR_FAULT, "look for a proxy or firewall in between",
			   "%s does not greet: %s", tenant->smtp_host,
			   err.text[0] != '\0' ? err.text : reply);
		return -1;
	}
	if (capability(reply, "STARTTLS") == NULL ||
	    dialogue_say(talk, "STARTTLS", NULL, &err) < 0 ||
	    dialogue_reply(talk, reply, &err) != 220) {
		doctor_add(doctor, DOCTOR_FAULT,
			   "look for a firewall that changes SMTP (Cisco \"inspect esmtp\")",
			   "%s offers no STARTTLS", tenant->smtp_host);
		return -1;
	}
	if (dialogue_start_tls(talk, tenant->smtp_host, tenant->ca_file, &tls) < 0) {
		doctor_add(doctor, DOCTOR_FAULT,
			   "check ca_file and smtp_host; a proxy that opens TLS shows its "
			   "own certificate",
			   "TLS to %s fails: %s", tenant->smtp_host, tls.text);
		return -1;
	}
	if (dialogue_say(talk, "EHLO relay365.invalid", NULL, &err) < 0 ||
	    dialogue_reply(talk, reply, &err) != 250) {
		doctor_add(doctor, DOCTOR_FAULT, "look for a proxy or firewall in between",
			   "%s says nothing to EHLO under TLS: %s", tenant->smtp_host, err.text);
		return -1;
	}
	return 0;
}

static void check_server(struct doctor *doctor, const struct conf_tenant *tenant)
{
	struct dialogue talk = {.fd = -1};
	char reply[DIALOGUE_REPLY_MAX] = "";
	const char *auth;
	struct err err = ERR_INIT;

	if (greet(doctor, &talk, tenant, reply) < 0) {
		try_port_25(doctor, tenant);
	} else {
		auth = capability(reply, "AUTH");
		if (auth == NULL || strstr(auth, "XOAUTH2") == NULL)
			doctor_add(doctor, DOCTOR_FAULT,
				   "check that the next hop is smtp.office365.com:587",
				   "%s does not offer AUTH XOAUTH2", tenant->smtp_host);
		else
			doctor_add(doctor, DOCTOR_OK, NULL,
				   "%s port %lld: TLS with a verified name, and AUTH XOAUTH2",
				   tenant->smtp_host, (long long)tenant->smtp_port);
		(void)dialogue_say(&talk, "QUIT", NULL, &err);
	}
	dialogue_close(&talk);
}

/* Each server once, however many tenants share it. */
static bool seen_before(const struct conf *conf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(connect_host(&conf->tenant[i]), connect_host(&conf->tenant[n])) == 0 &&
		    conf->tenant[i].smtp_port == conf->tenant[n].smtp_port)
			return true;
	return false;
}

void doctor_server(struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->conf->tenants; i++)
		if (!seen_before(doctor->conf, i))
			check_server(doctor, &doctor->conf->tenant[i]);
}

/* ---- signing in ---- */

static void add_transcript(struct doctor *doctor, const cJSON *verdict)
{
	const cJSON *line;

	(void)buf_addf(&doctor->transcript, "== relay365-tokend signs in for mailbox %s\n",
		       ctl_text(verdict, "mailbox"));
	cJSON_ArrayForEach (line, cJSON_GetObjectItemCaseSensitive(verdict, "transcript"))
		if (cJSON_IsString(line))
			(void)buf_addf(&doctor->transcript, "%s\n", line->valuestring);
}

static void judge_sign_in(struct doctor *doctor, const cJSON *verdict)
{
	const cJSON *claims = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(verdict, "token"), "claims");
	const char *result = ctl_text(verdict, "result"), *text = ctl_text(verdict, "text");
	const char *name = ctl_text(verdict, "mailbox"), *wrong = ctl_text(claims, "wrong");
	const struct explanation *what = explain_line(text);

	if (strcmp(result, "ok") == 0)
		doctor_add(doctor, DOCTOR_OK, NULL, "mailbox %s: Exchange takes its token", name);
	else if (wrong[0] != '\0')
		doctor_add(doctor, DOCTOR_FAULT, wrong, "mailbox %s: the token is wrong", name);
	else
		doctor_add(doctor, strcmp(result, "refused") == 0 ? DOCTOR_FAULT : DOCTOR_WARNING,
			   what != NULL ? what->action : NULL, "mailbox %s: %s%s%s", name,
			   what != NULL ? what->meaning : "", what != NULL ? ": " : "", text);
}

void doctor_sign_in(struct doctor *doctor)
{
	char *socket = ctl_tokend_socket(doctor->conf);

	if (doctor->tokend == NULL || doctor_failed(doctor, "tokens") ||
	    doctor_failed(doctor, "server"))
		doctor_add(doctor, DOCTOR_UNPROVEN, NULL,
			   "mend the faults before this one first");
	for (size_t i = 0; !doctor_failed(doctor, "tokens") && !doctor_failed(doctor, "server") &&
			   doctor->tokend != NULL && i < doctor->conf->mailboxes;
	     i++) {
		struct err err = ERR_INIT;
		cJSON *verdict = probe_ask(socket, doctor->conf->mailbox[i].name, &err);

		if (verdict == NULL) {
			doctor_add(doctor, DOCTOR_WARNING, NULL, "mailbox %s: %s",
				   doctor->conf->mailbox[i].name, err.text);
		} else {
			judge_sign_in(doctor, verdict);
			add_transcript(doctor, verdict);
		}
		cJSON_Delete(verdict);
	}
	free(socket);
}
