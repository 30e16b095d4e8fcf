#include "base/compat.h"

#include "tls/tls.h"

#include "base/wiped_heap.h"
#include "base/xalloc.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <poll.h>

struct tls_trust {
	SSL_CTX *context;
};

struct tls {
	SSL *ssl;
	const char *host;
	short read_wants, write_wants;
};

/* OpenSSL's own words for what went wrong last. */
static const char *why(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *text = code == 0 ? NULL : ERR_reason_error_string(code);

	return text == NULL ? "no reason given" : text;
}

/* OpenSSL tells where in its source it asks. */
static void *take_block(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return size == 0 ? NULL : wiped_malloc(size);
}

static void give_block(void *block, const char *file, int line)
{
	(void)file;
	(void)line;
	wiped_free(block);
}

static void *change_block(void *block, size_t size, const char *file, int line)
{
	if (size != 0)
		return wiped_realloc(block, size);
	give_block(block, file, line);
	return NULL;
}

void tls_wipe_heap(void)
{
	(void)CRYPTO_set_mem_functions(take_block, change_block, give_block);
}

struct tls_trust *tls_trust_new(const char *ca_file, struct err *err)
{
	struct tls_trust *trust = xcalloc(1, sizeof(*trust));
	int ok;

	ERR_clear_error();
	trust->context = SSL_CTX_new(TLS_client_method());
	if (trust->context == NULL) {
		err_set(err, ERR_TEMP, "OpenSSL gives no context: %s", why());
		free(trust);
		return NULL;
	}
	ok = ca_file[0] == '\0' ? SSL_CTX_set_default_verify_paths(trust->context)
				: SSL_CTX_load_verify_locations(trust->context, ca_file, NULL);
	if (ok != 1 || SSL_CTX_set_min_proto_version(trust->context, TLS1_2_VERSION) != 1) {
		err_set(err, ERR_CONFIG, "cannot read the authorities in %s: %s",
			ca_file[0] == '\0' ? "the system's folder" : ca_file, why());
		tls_trust_free(&trust);
		return NULL;
	}
	SSL_CTX_set_verify(trust->context, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_mode(trust->context, SSL_MODE_ENABLE_PARTIAL_WRITE |
						       SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
						       SSL_MODE_RELEASE_BUFFERS);
	return trust;
}

void tls_trust_free(struct tls_trust **trust)
{
	if (*trust == NULL)
		return;
	SSL_CTX_free((*trust)->context);
	free(*trust);
	*trust = NULL;
}

struct tls *tls_new(struct tls_trust *trust, int fd, const char *host, struct err *err)
{
	struct tls *tls = xcalloc(1, sizeof(*tls));

	ERR_clear_error();
	tls->host = host;
	tls->ssl = SSL_new(trust->context);
	if (tls->ssl == NULL || SSL_set_fd(tls->ssl, fd) != 1 ||
	    SSL_set_tlsext_host_name(tls->ssl, host) != 1 || SSL_set1_host(tls->ssl, host) != 1) {
		err_set(err, ERR_TEMP, "cannot begin TLS with %s: %s", host, why());
		tls_free(&tls);
		return NULL;
	}
	SSL_set_connect_state(tls->ssl);
	return tls;
}

void tls_free(struct tls **tls)
{
	if (*tls == NULL)
		return;
	if ((*tls)->ssl != NULL && SSL_is_init_finished((*tls)->ssl) == 1) {
		ERR_clear_error();
		(void)SSL_shutdown((*tls)->ssl);
	}
	SSL_free((*tls)->ssl);
	free(*tls);
	*tls = NULL;
}

/* 0: wait for *wants_r; -1: the connection has ended. */
static int judge(struct tls *tls, int result, short *wants_r)
{
	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		*wants_r = POLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		*wants_r = POLLOUT;
		return 0;
	default:
		return -1;
	}
}

int tls_handshake(struct tls *tls, struct err *err)
{
	long verdict;
	int rc;

	ERR_clear_error();
	rc = SSL_do_handshake(tls->ssl);
	if (rc == 1) {
		tls->read_wants = POLLIN;
		tls->write_wants = POLLOUT;
		return 1;
	}
	if (judge(tls, rc, &tls->read_wants) == 0)
		return 0;
	verdict = SSL_get_verify_result(tls->ssl);
	if (verdict != X509_V_OK)
		return err_set(err, ERR_CONFIG,
			       "the certificate of %s is not trusted: %s; look for a proxy or "
			       "firewall that opens TLS, or set ca_file",
			       tls->host, X509_verify_cert_error_string(verdict));
	return err_set(err, ERR_TEMP, "TLS with %s failed: %s", tls->host, why());
}

ssize_t tls_read(struct tls *tls, char *to, size_t cap)
{
	size_t n = 0;

	ERR_clear_error();
	if (SSL_read_ex(tls->ssl, to, cap, &n) == 1)
		return (ssize_t)n;
	return judge(tls, 0, &tls->read_wants);
}

ssize_t tls_write(struct tls *tls, const char *data, size_t len)
{
	size_t n = 0;

	ERR_clear_error();
	if (SSL_write_ex(tls->ssl, data, len, &n) == 1)
		return (ssize_t)n;
	return judge(tls, 0, &tls->write_wants);
}

short tls_read_wants(const struct tls *tls)
{
	return tls->read_wants;
}

short tls_write_wants(const struct tls *tls)
{
	return tls->write_wants;
}
