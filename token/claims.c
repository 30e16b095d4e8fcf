#include "token/claims.h"

#include "base/clock.h"
#include "base/xalloc.h"

#include <strings.h>

/* ---- decoding ---- */

static int digit_of(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789-_";
	const char *at = c == '\0' ? NULL : strchr(digits, c);

	return at == NULL ? -1 : (int)(at - digits);
}

/* base64url without padding (RFC 7515, section 2). Returns the length, or -1. */
static long decode(const char *text, size_t len, char *to)
{
	unsigned int bits = 0, held = 0;
	long n = 0;

	for (size_t i = 0; i < len; i++) {
		int digit = digit_of(text[i]);

		if (digit < 0)
			return -1;
		bits = (bits << 6 | (unsigned int)digit) & 0xffffff;
		held += 6;
		if (held < 8)
			continue;
		held -= 8;
		to[n++] = (char)(bits >> held & 0xff);
	}
	return n;
}

/* The payload: what stands between the first two dots. */
static cJSON *payload_of(const struct secret *token)
{
	const char *from = memchr(token->data, '.', token->len), *to;
	cJSON *json = NULL;
	char *text;
	long n;

	if (from == NULL)
		return NULL;
	from++;
	to = memchr(from, '.', token->len - (size_t)(from - token->data));
	if (to == NULL)
		return NULL;
	text = xmalloc((size_t)(to - from) + 1);
	n = decode(from, (size_t)(to - from), text);
	if (n > 0) {
		json = cJSON_ParseWithLength(text, (size_t)n);
		explicit_bzero(text, (size_t)n);
	}
	free(text);
	return json;
}

/* Printable ASCII only: it comes from the network and goes to a terminal. */
static void copy(const cJSON *object, const char *name, char *to, size_t cap)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	size_t n = 0;

	for (; text != NULL && text[n] != '\0' && n + 1 < cap; n++)
		to[n] = text[n] > ' ' && text[n] <= '~' ? text[n] : text[n] == ' ' ? ' ' : '?';
	to[n] = '\0';
}

/* As permissions are named. */
static bool is_name(const char *text)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";

	return text[0] != '\0' && text[strspn(text, allowed)] == '\0';
}

static void copy_roles(const cJSON *object, char *to, size_t cap)
{
	const cJSON *role;
	size_t n = 0;

	to[0] = '\0';
	cJSON_ArrayForEach (role, cJSON_GetObjectItemCaseSensitive(object, "roles")) {
		const char *text = cJSON_GetStringValue(role);

		if (text == NULL || !is_name(text) || n + strlen(text) + 2 > cap)
			continue;
		n += (size_t)snprintf(to + n, cap - n, "%s%s", n > 0 ? " " : "", text);
	}
}

static void copy_user(const cJSON *object, char *to, size_t cap)
{
	static const char *const names[] = {"upn", "unique_name", "preferred_username", "email"};

	to[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(names) && to[0] == '\0'; i++)
		copy(object, names[i], to, cap);
}

/* ---- judging ---- */

static bool has_word(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = words; (at = strstr(at, word)) != NULL; at += len)
		if ((at == words || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
			return true;
	return false;
}

static bool is_one_of(const char *text, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(text, list[i]) == 0)
			return true;
	return false;
}

/* Whether the scope asks for this audience: "https://host/.default", "https://host/SMTP.Send". */
static bool is_of_scope(const char *aud, const char *scope)
{
	size_t len = strlen(aud);

	while (len > 0 && aud[len - 1] == '/')
		len--;
	return len > 0 && strncasecmp(scope, aud, len) == 0 && scope[len] == '/';
}

static void judge_audience(struct claims *claims, const struct conf_tenant *tenant)
{
	static const char *const exchange[] = {
		"https://outlook.office365.com", "https://outlook.office365.com/",
		"https://outlook.office.com", "https://outlook.office.com/",
		"00000002-0000-0ff1-ce00-000000000000"};
	static const char *const graph[] = {"https://graph.microsoft.com",
					    "https://graph.microsoft.com/",
					    "00000003-0000-0000-c000-000000000000"};

	if (is_one_of(claims->aud, graph, ARRAY_LEN(graph)))
		(void)snprintf(claims->wrong, sizeof(claims->wrong),
			       "aud is Microsoft Graph: the scope must be %s",
			       tenant->delegated ? "https://outlook.office.com/SMTP.Send"
						 : "https://outlook.office365.com/.default");
	else if (claims->aud[0] != '\0' &&
		 !is_one_of(claims->aud, exchange, ARRAY_LEN(exchange)) &&
		 !is_of_scope(claims->aud, tenant->scope))
		(void)snprintf(claims->wrong, sizeof(claims->wrong),
			       "aud is %s, which is not Exchange Online; check scope and cloud",
			       claims->aud);
}

static void judge_user(struct claims *claims, const struct conf_mailbox *mailbox)
{
	if (claims->wrong[0] == '\0' && claims->rights[0] != '\0' &&
	    !has_word(claims->rights, "SMTP.Send"))
		(void)snprintf(claims->wrong, sizeof(claims->wrong),
			       "scp has no SMTP.Send: add this delegated permission to the app "
			       "registration and run: relay365 authorize %s",
			       mailbox->name);
	if (claims->user[0] != '\0' && strcasecmp(claims->user, mailbox->address) != 0)
		(void)snprintf(claims->note, sizeof(claims->note),
			       "%s signed in, not %s: this user needs the mailbox permissions "
			       "FullAccess and SendAs there",
			       claims->user, mailbox->address);
}

static void judge_application(struct claims *claims)
{
	if (!has_word(claims->rights, "SMTP.SendAsApp"))
		(void)snprintf(claims->note, sizeof(claims->note),
			       "roles has no SMTP.SendAsApp: that is well if the application has "
			       "the Exchange role Application SMTP.SendAsApp, else grant the "
			       "permission with admin consent");
}

void claims_read(const struct secret *token, const struct conf_tenant *tenant,
		 const struct conf_mailbox *mailbox, struct claims *claims_r)
{
	cJSON *json = payload_of(token);
	const cJSON *exp;

	memset(claims_r, 0, sizeof(*claims_r));
	if (!cJSON_IsObject(json)) {
		cJSON_Delete(json);
		return;
	}
	claims_r->known = true;
	copy(json, "aud", claims_r->aud, sizeof(claims_r->aud));
	copy(json, "appid", claims_r->appid, sizeof(claims_r->appid));
	if (claims_r->appid[0] == '\0')
		copy(json, "azp", claims_r->appid, sizeof(claims_r->appid));
	copy(json, "tid", claims_r->tid, sizeof(claims_r->tid));
	copy(json, "scp", claims_r->rights, sizeof(claims_r->rights));
	if (claims_r->rights[0] == '\0')
		copy_roles(json, claims_r->rights, sizeof(claims_r->rights));
	copy_user(json, claims_r->user, sizeof(claims_r->user));
	exp = cJSON_GetObjectItemCaseSensitive(json, "exp");
	if (cJSON_IsNumber(exp) && exp->valuedouble > 0 && exp->valuedouble < 1e12)
		claims_r->exp_s = (int64_t)exp->valuedouble;
	cJSON_Delete(json);
	judge_audience(claims_r, tenant);
	if (claims_r->wrong[0] == '\0' && claims_r->appid[0] != '\0' &&
	    tenant->client_id[0] != '\0' && strcasecmp(claims_r->appid, tenant->client_id) != 0)
		(void)snprintf(claims_r->wrong, sizeof(claims_r->wrong),
			       "appid is %s, not client_id %s", claims_r->appid,
			       tenant->client_id);
	if (mailbox != NULL)
		judge_user(claims_r, mailbox);
	else
		judge_application(claims_r);
}

static void add(cJSON *json, const char *name, const char *text)
{
	if (text[0] != '\0')
		(void)cJSON_AddStringToObject(json, name, text);
}

cJSON *claims_json(const struct claims *claims)
{
	char text[CLOCK_TEXT_MAX];
	cJSON *json;

	if (!claims->known)
		return NULL;
	json = cJSON_CreateObject();
	add(json, "aud", claims->aud);
	add(json, "appid", claims->appid);
	add(json, "tid", claims->tid);
	add(json, "rights", claims->rights);
	add(json, "user", claims->user);
	if (claims->exp_s > 0)
		add(json, "exp", clock_rfc3339(claims->exp_s * 1000, text));
	add(json, "wrong", claims->wrong);
	add(json, "note", claims->note);
	return json;
}
