#include "ctl/doctor.h"

#include "base/xalloc.h"

#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>

enum { ANSWER_MAX = 8192, TEXT_MAX = 2048, DOMAINS_MAX = 32, TIMEOUT_S = 3 };

enum lookup { FOUND, NOT_THERE, NO_ANSWER };

/* The character strings of a TXT record, put together. RFC 7208, section 3.3. */
static void join_strings(const ns_rr *record, char *to, size_t cap)
{
	const unsigned char *at = ns_rr_rdata(*record);
	const unsigned char *end = at + ns_rr_rdlen(*record);
	size_t n = 0;

	while (at < end) {
		size_t len = *at++;

		for (; len > 0 && at < end; len--, at++)
			if (n + 1 < cap)
				to[n++] = (char)*at;
	}
	to[n] = '\0';
}

/* The first record of this type whose text begins with prefix. */
static enum lookup look_up(const char *name, int type, const char *prefix, char *text)
{
	unsigned char answer[ANSWER_MAX];
	int len = res_query(name, ns_c_in, type, answer, sizeof(answer));
	ns_msg message;

	if (len < 0)
		return h_errno == HOST_NOT_FOUND || h_errno == NO_DATA ? NOT_THERE : NO_ANSWER;
	if (len > (int)sizeof(answer) || ns_initparse(answer, len, &message) < 0)
		return NO_ANSWER;
	for (int i = 0; i < ns_msg_count(message, ns_s_an); i++) {
		ns_rr record;

		if (ns_parserr(&message, ns_s_an, i, &record) < 0)
			return NO_ANSWER;
		if ((int)ns_rr_type(record) != type)
			continue;
		if (type == ns_t_txt)
			join_strings(&record, text, TEXT_MAX);
		else if (dn_expand(ns_msg_base(message), ns_msg_end(message), ns_rr_rdata(record),
				   text, TEXT_MAX) < 0)
			return NO_ANSWER;
		if (strncmp(text, prefix, strlen(prefix)) == 0)
			return FOUND;
	}
	return NOT_THERE;
}

static bool check_spf(struct doctor *doctor, const char *domain)
{
	char text[TEXT_MAX] = "";
	enum lookup found = look_up(domain, ns_t_txt, "v=spf1", text);

	if (found == NO_ANSWER)
		return false;
	if (found == NOT_THERE)
		doctor_add(doctor, DOCTOR_WARNING,
			   "add a TXT record: v=spf1 include:spf.protection.outlook.com -all",
			   "%s has no SPF record", domain);
	else if (strstr(text, "spf.protection.outlook.com") == NULL)
		doctor_add(doctor, DOCTOR_WARNING, "add include:spf.protection.outlook.com to it",
			   "the SPF record of %s does not name Office 365: %s", domain, text);
	else
		doctor_add(doctor, DOCTOR_OK, NULL, "%s: SPF names Office 365", domain);
	return true;
}

static bool check_dkim(struct doctor *doctor, const char *domain)
{
	char *name = xasprintf("selector1._domainkey.%s", domain);
	char text[TEXT_MAX] = "";
	enum lookup found = look_up(name, ns_t_cname, "", text);

	free(name);
	if (found == NOT_THERE)
		doctor_add(doctor, DOCTOR_WARNING,
			   "turn DKIM on in the Defender portal under Email authentication "
			   "settings, and add its two CNAME records",
			   "%s has no DKIM selector of Office 365 (selector1._domainkey)",
			   domain);
	else if (found == FOUND)
		doctor_add(doctor, DOCTOR_OK, NULL, "%s: DKIM selector1 is %s", domain, text);
	return found != NO_ANSWER;
}

static bool check_dmarc(struct doctor *doctor, const char *domain)
{
	char *name = xasprintf("_dmarc.%s", domain);
	char text[TEXT_MAX] = "";
	enum lookup found = look_up(name, ns_t_txt, "v=DMARC1", text);

	free(name);
	if (found == NOT_THERE)
		doctor_add(doctor, DOCTOR_WARNING, "add a TXT record at _dmarc: v=DMARC1; p=none",
			   "%s has no DMARC record", domain);
	else if (found == FOUND)
		doctor_add(doctor, DOCTOR_OK, NULL, "%s: %s", domain, text);
	return found != NO_ANSWER;
}

static bool check_domain(struct doctor *doctor, const char *domain)
{
	static const char shared[] = ".onmicrosoft.com";
	size_t len = strlen(domain), suffix = strlen(shared);

	if (len > suffix && strcmp(domain + len - suffix, shared) == 0) {
		doctor_add(doctor, DOCTOR_WARNING, "send from a domain of your own",
			   "senders in %s may reach 100 external recipients a day", domain);
		return true;
	}
	return check_spf(doctor, domain) && check_dkim(doctor, domain) &&
	       check_dmarc(doctor, domain);
}

struct domains {
	const char *item[DOMAINS_MAX];
	size_t count;
};

static void add_domain(struct domains *domains, const char *address)
{
	const char *at = strrchr(address, '@');

	for (size_t i = 0; at != NULL && i < domains->count; i++)
		if (strcmp(domains->item[i], at + 1) == 0)
			return;
	if (at != NULL && domains->count < DOMAINS_MAX)
		domains->item[domains->count++] = at + 1;
}

void doctor_domains(struct doctor *doctor)
{
	struct domains domains = {.count = 0};
	const struct conf *conf = doctor->conf;

	for (size_t i = 0; i < conf->mailboxes; i++) {
		add_domain(&domains, conf->mailbox[i].address);
		for (size_t j = 0; j < conf->mailbox[i].senders.count; j++)
			add_domain(&domains, conf->mailbox[i].senders.item[j]);
	}
	if (res_init() < 0)
		return;
	_res.retrans = TIMEOUT_S;
	_res.retry = 1;
	for (size_t i = 0; i < domains.count; i++)
		if (!check_domain(doctor, domains.item[i])) {
			/* The others would make the admin wait as long each. */
			doctor_add(doctor, DOCTOR_UNPROVEN, NULL, "DNS has no answer about %s",
				   domains.item[i]);
			return;
		}
}
