#include "base/compat.h"

#include "token/probe.h"

#include "base/clock.h"
#include "base/xalloc.h"

#include <curl/curl.h>

enum {
	LINE_MAX_SHOWN = 400,
	RUN_MAX = 60, /* characters of base64 in a row that a harmless line may have */
};

struct probe {
	struct http_transfer transfer;
	struct http *http;
	struct curl_slist *connect_to;
	struct buf transcript;
	bool signed_in; /* 235 was said: libcurl goes on without AUTH when none is offered */
	char reply[512];
	char error[CURL_ERROR_SIZE];
	int64_t began_ms;
	void (*done)(void *arg, const struct probe_result *result);
	void *arg;
};

static void probe_free(struct probe *probe)
{
	if (probe->transfer.easy != NULL) {
		http_stop(probe->http, &probe->transfer);
		curl_easy_cleanup(probe->transfer.easy);
	}
	curl_slist_free_all(probe->connect_to);
	buf_clear(&probe->transcript);
	free(probe);
}

/* ---- the transcript ---- */

/* Copies what may be shown: printable, not too long, and no run that could be a token. */
static void make_harmless(const char *from, size_t len, char *to, size_t cap)
{
	static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789+/=-_.~";
	size_t n = 0;

	for (size_t i = 0; i < len && n + 16 < cap;) {
		size_t run = 0;

		while (i + run < len && from[i + run] != '\0' &&
		       strchr(base64, from[i + run]) != NULL)
			run++;
		if (run > RUN_MAX) {
			n += (size_t)snprintf(to + n, cap - n, "(hidden)");
			i += run;
			continue;
		}
		do {
			to[n++] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
			i++;
		} while (run-- > 1 && n + 16 < cap);
	}
	to[n] = '\0';
}

/* What we send and may be seen; all else is the token. */
static bool is_open_command(const char *line, size_t len)
{
	static const char *const commands[] = {"EHLO ", "HELO ", "STARTTLS", "NOOP", "QUIT"};

	if (len == strlen("AUTH XOAUTH2") && memcmp(line, "AUTH XOAUTH2", len) == 0)
		return true;
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (len >= strlen(commands[i]) &&
		    memcmp(line, commands[i], strlen(commands[i])) == 0)
			return true;
	return false;
}

static void add_line(struct probe *probe, char direction, const char *line, size_t len)
{
	char text[LINE_MAX_SHOWN];

	if (direction == '>' && !is_open_command(line, len))
		(void)snprintf(text, sizeof(text), "(the token, %zu bytes)", len);
	else
		make_harmless(line, len, text, sizeof(text));
	(void)buf_addf(&probe->transcript, "%c %s\n", direction, text);
	if (direction == '<' && len > 3 && memcmp(line, "235 ", 4) == 0)
		probe->signed_in = true;
	/* "535 5.7.3 ..." and not "535-..." */
	if (direction == '<' && len > 3 && line[3] == ' ')
		(void)snprintf(probe->reply, sizeof(probe->reply), "%s", text);
}

static void add_lines(struct probe *probe, char direction, const char *data, size_t len)
{
	while (len > 0) {
		size_t n = 0, skip;

		while (n < len && data[n] != '\r' && data[n] != '\n')
			n++;
		if (n > 0)
			add_line(probe, direction, data, n);
		skip = n < len ? n + 1 : n;
		data += skip;
		len -= skip;
	}
}

static int on_debug(CURL *easy, curl_infotype type, char *data, size_t len, void *userp)
{
	static const char *const worth[] = {"Connected to", "SSL connection using",
					    " subject:", " issuer:", " expire date:"};
	struct probe *probe = userp;

	(void)easy;
	if (type == CURLINFO_HEADER_OUT)
		add_lines(probe, '>', data, len);
	else if (type == CURLINFO_HEADER_IN)
		add_lines(probe, '<', data, len);
	for (size_t i = 0; type == CURLINFO_TEXT && i < ARRAY_LEN(worth); i++)
		if (len > strlen(worth[i]) && memcmp(data, worth[i], strlen(worth[i])) == 0)
			add_lines(probe, '*', data, len);
	return 0;
}

static size_t on_body(char *data, size_t size, size_t count, void *userp)
{
	(void)data;
	(void)userp;
	return size * count;
}

/* ---- the session ---- */

/* Why there is no verdict; "" when the server's own words are one. */
static const char *problem_of(const struct probe *probe, CURLcode code)
{
	/* A refusal may come as a challenge that holds JSON (RFC 7628, section 3.2.3). */
	bool refused = probe->reply[0] == '4' || probe->reply[0] == '5' ||
		       (code == CURLE_LOGIN_DENIED && probe->reply[0] == '3');

	if (refused)
		return "";
	if (code == CURLE_LOGIN_DENIED || code == CURLE_OK)
		return "the server does not offer AUTH XOAUTH2";
	return probe->error[0] != '\0' ? probe->error : curl_easy_strerror(code);
}

static void on_ended(struct http_transfer *transfer, int code)
{
	struct probe *probe = (struct probe *)transfer;
	struct probe_result result = {.ok = code == CURLE_OK && probe->signed_in,
				      .reply = probe->reply,
				      .problem = "",
				      .transcript = buf_text(&probe->transcript),
				      .took_ms = clock_boot_ms() - probe->began_ms};

	if (!result.ok)
		result.problem = problem_of(probe, (CURLcode)code);
	probe->done(probe->arg, &result);
	probe_free(probe);
}

#if LIBCURL_VERSION_NUM >= 0x075500
static CURLcode only_smtp(CURL *easy)
{
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "smtp");
}
#else
static CURLcode only_smtp(CURL *easy)
{
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)CURLPROTO_SMTP);
}
#endif

/* "smtp.office365.com:587:[2001:db8::1]:587", for CURLOPT_CONNECT_TO. */
static bool set_address(struct probe *probe, const struct probe_target *target)
{
	bool v6 = strchr(target->address, ':') != NULL;
	char text[700];

	(void)snprintf(text, sizeof(text), "%s:%d:%s%s%s:%d", target->host, target->port,
		       v6 ? "[" : "", target->address, v6 ? "]" : "", target->port);
	if (target->address[0] != '\0')
		probe->connect_to = curl_slist_append(NULL, text);
	return target->address[0] == '\0' || probe->connect_to != NULL;
}

static CURLcode set_options(struct probe *probe, const struct probe_target *target,
			    const char *token)
{
	CURL *easy = probe->transfer.easy;
	CURLcode code = only_smtp(easy);
	char url[400];

	(void)snprintf(url, sizeof(url), "smtp://%s:%d", target->host, target->port);
#define SET(option, value)    \
	if (code == CURLE_OK) \
	code = curl_easy_setopt(easy, option, value)
	SET(CURLOPT_URL, url);
	SET(CURLOPT_CONNECT_TO, probe->connect_to);
	SET(CURLOPT_PRIVATE, &probe->transfer);
	SET(CURLOPT_ERRORBUFFER, probe->error);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_FORBID_REUSE, 1L);
	SET(CURLOPT_USE_SSL, (long)CURLUSESSL_ALL);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_TIMEOUT_MS, (long)HTTP_TIMEOUT_MS);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_TIMEOUT_MS);
	SET(CURLOPT_USERNAME, target->user);
	SET(CURLOPT_XOAUTH2_BEARER, token);
	SET(CURLOPT_LOGIN_OPTIONS, "AUTH=XOAUTH2");
	SET(CURLOPT_CUSTOMREQUEST, "NOOP");
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_DEBUGFUNCTION, on_debug);
	SET(CURLOPT_DEBUGDATA, probe);
	SET(CURLOPT_VERBOSE, 1L);
	if (target->ca_file[0] != '\0')
		SET(CURLOPT_CAINFO, target->ca_file);
#undef SET
	return code;
}

struct probe *probe_start(struct http *http, const struct probe_target *target, const char *token,
			  void (*done)(void *arg, const struct probe_result *result), void *arg,
			  struct err *err)
{
	struct probe *probe = xcalloc(1, sizeof(*probe));
	CURLcode code = CURLE_OUT_OF_MEMORY;

	probe->http = http;
	probe->done = done;
	probe->arg = arg;
	probe->transcript.max = PROBE_TRANSCRIPT_MAX;
	probe->began_ms = clock_boot_ms();
	probe->transfer.ended = on_ended;
	probe->transfer.easy = curl_easy_init();
	if (probe->transfer.easy != NULL && set_address(probe, target))
		code = set_options(probe, target, token);
	if (code == CURLE_OK && http_start(http, &probe->transfer) == 0)
		return probe;
	err_set(err, ERR_TEMP, "cannot begin a session with %s: %s", target->host,
		curl_easy_strerror(code));
	probe_free(probe);
	return NULL;
}

void probe_abort(struct probe **probe)
{
	if (*probe == NULL)
		return;
	probe_free(*probe);
	*probe = NULL;
}
