#include "base/compat.h"

#include "http/http.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/wiped_heap.h"
#include "base/xalloc.h"

#include <curl/curl.h>
#include <fcntl.h>

struct http {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer timer;
};

struct http_request {
	struct http_transfer transfer;
	struct http *http;
	struct curl_slist *headers;
	struct secret form;
	bool is_get;
	struct buf body;
	char error[CURL_ERROR_SIZE];
	int64_t began_ms;
	void (*done)(void *arg, const struct http_answer *answer);
	void *arg;
};

/* A descriptor that libcurl wants watched. */
struct watch {
	struct loop_fd fd;
	struct http *http;
};

static void request_free(struct http_request *request)
{
	if (request->transfer.easy != NULL) {
		http_stop(request->http, &request->transfer);
		curl_easy_cleanup(request->transfer.easy);
	}
	curl_slist_free_all(request->headers);
	secret_clear(&request->form);
	buf_clear(&request->body);
	free(request);
}

static void fill_answer(struct http_request *request, CURLcode code, struct http_answer *answer)
{
	curl_off_t retry_after = 0;
	long status = 0;

	memset(answer, 0, sizeof(*answer));
	answer->retry_after_ms = -1;
	answer->took_ms = clock_boot_ms() - request->began_ms;
	answer->body = buf_text(&request->body);
	answer->body_len = request->body.len;
	if (request->body.overflowed)
		(void)snprintf(answer->problem, sizeof(answer->problem),
			       "the answer is larger than %d bytes", HTTP_ANSWER_MAX);
	else if (code != CURLE_OK)
		(void)snprintf(answer->problem, sizeof(answer->problem), "%s",
			       request->error[0] != '\0' ? request->error
							 : curl_easy_strerror(code));
	if (answer->problem[0] != '\0')
		return;
	(void)curl_easy_getinfo(request->transfer.easy, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(request->transfer.easy, CURLINFO_RETRY_AFTER, &retry_after);
	answer->status = (int)status;
	if (retry_after > HTTP_RETRY_AFTER_MAX_S)
		retry_after = HTTP_RETRY_AFTER_MAX_S;
	if (retry_after > 0)
		answer->retry_after_ms = (int64_t)retry_after * 1000;
}

static void on_ended(struct http_transfer *transfer, int code)
{
	struct http_request *request = (struct http_request *)transfer;
	struct http_answer answer;

	fill_answer(request, (CURLcode)code, &answer);
	request->done(request->arg, &answer);
	request_free(request);
}

static void finish_done(struct http *http)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(http->multi, &left)) != NULL) {
		struct http_transfer *transfer = NULL;
		int code;

		if (msg->msg != CURLMSG_DONE)
			continue;
		code = (int)msg->data.result;
		(void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
		transfer->ended(transfer, code);
	}
}

/*
 * A name is looked up in a thread, and libcurl waits for its end, up to a minute
 * in which the loop stands still, unless it is told not to (since 7.87).
 */
#if LIBCURL_VERSION_NUM >= 0x075700
static void never_wait_for_names(CURL *easy)
{
	(void)curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
}
#else
static void never_wait_for_names(CURL *easy)
{
	(void)easy;
}
#endif

int http_start(struct http *http, struct http_transfer *transfer)
{
	never_wait_for_names(transfer->easy);
	return curl_multi_add_handle(http->multi, transfer->easy) == CURLM_OK ? 0 : -1;
}

void http_stop(struct http *http, struct http_transfer *transfer)
{
	(void)curl_multi_remove_handle(http->multi, transfer->easy);
}

/* ---- libcurl's wishes, carried out on the loop ---- */

static void on_ready(struct loop_fd *fd, unsigned int events)
{
	struct watch *watch = fd->owner;
	struct http *http = watch->http;
	int what = 0, running;

	if (events & LOOP_READ)
		what |= CURL_CSELECT_IN;
	if (events & LOOP_WRITE)
		what |= CURL_CSELECT_OUT;
	if (events & LOOP_HANGUP)
		what |= CURL_CSELECT_ERR;
	(void)curl_multi_socket_action(http->multi, fd->fd, what, &running);
	finish_done(http);
}

static int on_socket(CURL *easy, curl_socket_t s, int what, void *userp, void *socketp)
{
	struct http *http = userp;
	struct watch *watch = socketp;
	unsigned int want = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (watch != NULL)
			loop_del(&watch->fd);
		free(watch);
		return 0;
	}
	if (what & CURL_POLL_IN)
		want |= LOOP_READ;
	if (what & CURL_POLL_OUT)
		want |= LOOP_WRITE;
	if (watch == NULL) {
		watch = xcalloc(1, sizeof(*watch));
		watch->http = http;
		watch->fd.fd = s;
		watch->fd.ready = on_ready;
		watch->fd.owner = watch;
		watch->fd.want = want;
		(void)loop_add(http->loop, &watch->fd);
		(void)curl_multi_assign(http->multi, s, watch);
	} else {
		loop_want(&watch->fd, want);
	}
	return 0;
}

static int on_timer_wish(CURLM *multi, long ms, void *userp)
{
	struct http *http = userp;

	(void)multi;
	if (ms < 0)
		loop_timer_stop(http->loop, &http->timer);
	else
		loop_timer_in(http->loop, &http->timer, ms);
	return 0;
}

static void on_timer(struct loop_timer *timer)
{
	struct http *http = timer->owner;
	int running;

	(void)curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	finish_done(http);
}

static size_t on_body(char *data, size_t size, size_t count, void *userp)
{
	struct http_request *request = userp;

	/* Less than what was given tells libcurl to give up. */
	return buf_add(&request->body, data, size * count) < 0 ? 0 : size * count;
}

/* ---- requests ---- */

struct http *http_new(struct loop *loop, struct err *err)
{
	struct http *http;

	/* Tokens and secrets pass through its memory, and it wipes none of it. */
	if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, wiped_malloc, wiped_free, wiped_realloc,
				 wiped_strdup, wiped_calloc) != CURLE_OK) {
		err_set(err, ERR_PERM, "libcurl can't be initialised");
		return NULL;
	}
	http = xcalloc(1, sizeof(*http));
	http->loop = loop;
	http->timer.due = on_timer;
	http->timer.owner = http;
	http->multi = curl_multi_init();
	if (http->multi == NULL) {
		err_set(err, ERR_PERM, "libcurl can't be initialised");
		free(http);
		return NULL;
	}
	(void)curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	(void)curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	(void)curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer_wish);
	(void)curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	return http;
}

void http_free(struct http **http)
{
	if (*http == NULL)
		return;
	(void)curl_multi_cleanup((*http)->multi);
	loop_timer_stop((*http)->loop, &(*http)->timer);
	free(*http);
	*http = NULL;
	curl_global_cleanup();
}

/* CURLOPT_PROTOCOLS_STR came with libcurl 7.85. */
#if LIBCURL_VERSION_NUM >= 0x075500
static CURLcode set_protocols(CURL *easy, bool plain)
{
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, plain ? "http,https" : "https");
}
#else
static CURLcode set_protocols(CURL *easy, bool plain)
{
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS,
				(long)CURLPROTO_HTTPS | (plain ? CURLPROTO_HTTP : 0));
}
#endif

/* Programs that we start have no business with our connections. */
static int on_socket_made(void *userp, curl_socket_t s, curlsocktype purpose)
{
	(void)userp;
	(void)purpose;
	return fcntl(s, F_SETFD, FD_CLOEXEC) < 0 ? CURL_SOCKOPT_ERROR : CURL_SOCKOPT_OK;
}

/* libcurl decodes both as it does those of a URL, so that they must be encoded. */
static CURLcode set_proxy_user(CURL *easy, const char *name, const char *password)
{
	char *encoded_name = curl_easy_escape(easy, name, 0);
	char *encoded_password = curl_easy_escape(easy, password, 0);
	struct buf both = BUF_INIT(2 * SECRET_MAX);
	CURLcode code = CURLE_OUT_OF_MEMORY;

	if (encoded_name != NULL && encoded_password != NULL &&
	    buf_addf(&both, "%s:%s", encoded_name, encoded_password) == 0)
		code = curl_easy_setopt(easy, CURLOPT_PROXYUSERPWD, buf_text(&both));
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_PROXYAUTH, (long)CURLAUTH_ANY);
	buf_clear(&both);
	curl_free(encoded_name);
	curl_free(encoded_password);
	return code;
}

/* Reads what the proxy wants to know; libcurl keeps its own copy. */
static int set_proxy_secret(CURL *easy, const char *path, struct err *err)
{
	struct secret secret = SECRET_INIT;
	char *colon;
	int result = -1;

	if (path == NULL || path[0] == '\0')
		return 0;
	if (file_read_secret(path, &secret, err) < 0)
		return -1;
	secret_trim(&secret);
	colon = secret_is_set(&secret) ? strchr(secret.data, ':') : NULL;
	if (colon == NULL) {
		err_set(err, ERR_CONFIG, "%s is not NAME:PASSWORD for the proxy", path);
	} else {
		*colon = '\0';
		if (set_proxy_user(easy, secret.data, colon + 1) == CURLE_OK)
			result = 0;
		else
			err_set(err, ERR_CONFIG, "%s is no NAME:PASSWORD that libcurl takes",
				path);
	}
	secret_clear(&secret);
	return result;
}

static CURLcode set_options(struct http_request *request, const struct http_target *target)
{
	CURL *easy = request->transfer.easy;
	CURLcode code = set_protocols(easy, target->plain);

#define SET(option, value)    \
	if (code == CURLE_OK) \
	code = curl_easy_setopt(easy, option, value)
	SET(CURLOPT_URL, target->url);
	SET(CURLOPT_PRIVATE, &request->transfer);
	SET(CURLOPT_ERRORBUFFER, request->error);
	SET(CURLOPT_NOSIGNAL, 1L);
	if (target->proxy != NULL)
		SET(CURLOPT_PROXY, target->proxy);
	SET(CURLOPT_SOCKOPTFUNCTION, on_socket_made);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	/*
	 * Requests are an hour apart: reuse would gain nothing, and libcurl sends a
	 * request once more, the signed assertion too, when an old connection is dead.
	 */
	SET(CURLOPT_FORBID_REUSE, 1L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_TIMEOUT_MS, (long)HTTP_TIMEOUT_MS);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_TIMEOUT_MS);
	SET(CURLOPT_USERAGENT, "relay365/" PACKAGE_VERSION);
	SET(CURLOPT_HTTPHEADER, request->headers);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, request);
	if (!request->is_get) {
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->form.len);
		SET(CURLOPT_POSTFIELDS, request->form.data);
	}
	if (target->ca_file[0] != '\0')
		SET(CURLOPT_CAINFO, target->ca_file);
#undef SET
	return code;
}

/* Adds a line to the request's headers; false when there is no memory. */
static bool add_header(struct http_request *request, const char *line)
{
	struct curl_slist *longer = curl_slist_append(request->headers, line);

	if (longer == NULL)
		return false;
	request->headers = longer;
	return true;
}

static bool add_headers(struct http_request *request, const struct http_target *target)
{
	char type[128];

	(void)snprintf(type, sizeof(type), "Content-Type: %s",
		       target->type == NULL ? "application/x-www-form-urlencoded" : target->type);
	return add_header(request, "Accept: application/json") &&
	       (request->is_get || add_header(request, type)) &&
	       (target->header == NULL || add_header(request, target->header));
}

struct http_request *http_send(struct http *http, const struct http_target *target,
			       struct secret *body,
			       void (*done)(void *arg, const struct http_answer *answer),
			       void *arg, struct err *err)
{
	struct http_request *request = xcalloc(1, sizeof(*request));
	CURLcode code = CURLE_OUT_OF_MEMORY;
	bool refused = false;

	request->http = http;
	request->done = done;
	request->arg = arg;
	request->body.max = HTTP_ANSWER_MAX;
	request->began_ms = clock_boot_ms();
	request->is_get = body == NULL;
	if (body != NULL)
		secret_move(&request->form, body);
	request->transfer.ended = on_ended;
	request->transfer.easy = curl_easy_init();
	if (request->transfer.easy != NULL && add_headers(request, target))
		code = set_options(request, target);
	if (code == CURLE_OK)
		refused = set_proxy_secret(request->transfer.easy, target->proxy_secret_file,
					   err) < 0;
	if (refused || code != CURLE_OK || http_start(http, &request->transfer) < 0) {
		if (!refused)
			err_set(err, ERR_CONFIG, "cannot ask %s: %s", target->url,
				curl_easy_strerror(code));
		request_free(request);
		return NULL;
	}
	return request;
}

void http_abort(struct http_request **request)
{
	if (*request == NULL)
		return;
	request_free(*request);
	*request = NULL;
}
