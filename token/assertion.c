#include "token/assertion.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/xalloc.h"

#include <cjson/cJSON.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

enum { JWT_MAX = 16384, ID_BYTES = 16 };

static int add_base64url(struct buf *to, const unsigned char *data, size_t len)
{
	size_t room = 4 * ((len + 2) / 3) + 1;
	unsigned char *text = xmalloc(room);
	int n = EVP_EncodeBlock(text, data, (int)len), result;

	while (n > 0 && text[n - 1] == '=')
		n--;
	for (int i = 0; i < n; i++) {
		if (text[i] == '+')
			text[i] = '-';
		else if (text[i] == '/')
			text[i] = '_';
	}
	result = buf_add(to, text, (size_t)n);
	free(text);
	return result;
}

/* Adds a JSON object, base64url, and frees it. */
static int add_json(struct buf *to, cJSON *json)
{
	char *text = cJSON_PrintUnformatted(json);
	int result = text == NULL ? -1 : add_base64url(to, (unsigned char *)text, strlen(text));

	cJSON_free(text);
	cJSON_Delete(json);
	return result;
}

/* OpenSSL asks for a passphrase: never on the terminal. arg: a struct secret, or NULL. */
static int passphrase(char *buf, int size, int rwflag, void *arg)
{
	const struct secret *secret = arg;

	(void)rwflag;
	if (secret == NULL || size < 0 || secret->len > (size_t)size)
		return -1;
	memcpy(buf, secret->data, secret->len);
	return (int)secret->len;
}

static X509 *read_certificate(const char *path, struct err *err)
{
	struct buf pem = BUF_INIT(SECRET_MAX);
	X509 *certificate = NULL;
	BIO *bio = NULL;

	if (file_read(path, &pem, err) < 0)
		return NULL;
	bio = BIO_new_mem_buf(buf_text(&pem), (int)pem.len);
	if (bio != NULL)
		certificate = PEM_read_bio_X509(bio, NULL, passphrase, NULL);
	if (certificate == NULL)
		err_set(err, ERR_CONFIG, "%s holds no certificate in PEM form", path);
	BIO_free(bio);
	buf_clear(&pem);
	return certificate;
}

static EVP_PKEY *parse_key(const struct secret *pem, struct secret *pass)
{
	BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
	EVP_PKEY *key = NULL;

	if (bio != NULL)
		key = PEM_read_bio_PrivateKey(bio, NULL, passphrase,
					      secret_is_set(pass) ? pass : NULL);
	BIO_free(bio);
	return key;
}

static EVP_PKEY *read_key(const struct assertion *assertion, struct err *err)
{
	const char *path = assertion->private_key, *pass_path = assertion->passphrase_file;
	struct secret pem = SECRET_INIT, pass = SECRET_INIT;
	EVP_PKEY *key = NULL;

	if (file_read_secret(path, &pem, err) < 0)
		return NULL;
	if (pass_path != NULL && pass_path[0] != '\0') {
		if (file_read_secret(pass_path, &pass, err) < 0)
			goto out;
		secret_trim(&pass);
	}
	key = parse_key(&pem, &pass);
	if (key != NULL)
		goto out;
	if (secret_is_set(&pass))
		err_set(err, ERR_CONFIG,
			"%s holds no private key in PEM form that the passphrase in %s opens",
			path, pass_path);
	else if (strstr(pem.data, "ENCRYPTED") != NULL)
		err_set(err, ERR_CONFIG,
			"the private key in %s is encrypted; set passphrase_file to a file with "
			"its passphrase",
			path);
	else
		err_set(err, ERR_CONFIG,
			"%s holds no private key in PEM form without a passphrase", path);
out:
	secret_clear(&pem);
	secret_clear(&pass);
	return key;
}

static int check_validity(const X509 *certificate, const char *path, int64_t now_s,
			  struct err *err)
{
	time_t now = (time_t)now_s;

	if (X509_cmp_time(X509_get0_notAfter(certificate), &now) < 0)
		return err_set(err, ERR_CONFIG,
			       "the certificate in %s has expired; make a new one and upload it "
			       "to the app "
			       "registration",
			       path);
	if (X509_cmp_time(X509_get0_notBefore(certificate), &now) > 0)
		return err_set(
			err, ERR_CONFIG,
			"the certificate in %s is not valid yet; is this machine's clock right?",
			path);
	return 0;
}

static int add_head(struct buf *jwt, const X509 *certificate, bool rs256)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	struct buf thumbprint = BUF_INIT(128);
	cJSON *head;
	unsigned int n;
	int result;

	if (X509_digest(certificate, rs256 ? EVP_sha1() : EVP_sha256(), digest, &n) != 1 ||
	    add_base64url(&thumbprint, digest, n) < 0)
		return -1;
	head = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(head, "alg", rs256 ? "RS256" : "PS256");
	(void)cJSON_AddStringToObject(head, "typ", "JWT");
	(void)cJSON_AddStringToObject(head, rs256 ? "x5t" : "x5t#S256", buf_text(&thumbprint));
	result = add_json(jwt, head);
	buf_clear(&thumbprint);
	return result;
}

static int add_claims(struct buf *jwt, const struct assertion *assertion, int64_t now_s)
{
	unsigned char id[ID_BYTES];
	char jti[2 * ID_BYTES + 1];
	cJSON *claims;

	if (RAND_bytes(id, sizeof(id)) != 1)
		return -1;
	for (size_t i = 0; i < sizeof(id); i++)
		(void)snprintf(jti + 2 * i, 3, "%02x", id[i]);
	claims = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(claims, "aud", assertion->audience);
	(void)cJSON_AddStringToObject(claims, "iss", assertion->client_id);
	(void)cJSON_AddStringToObject(claims, "sub", assertion->client_id);
	(void)cJSON_AddStringToObject(claims, "jti", jti);
	(void)cJSON_AddNumberToObject(claims, "nbf", (double)now_s);
	(void)cJSON_AddNumberToObject(claims, "iat", (double)now_s);
	(void)cJSON_AddNumberToObject(claims, "exp", (double)(now_s + ASSERTION_LIFETIME_S));
	return add_json(jwt, claims);
}

/* RSASSA-PSS with SHA-256 and a salt as long as the digest (RFC 7518, section 3.5). */
static int use_pss(EVP_PKEY_CTX *how)
{
	return EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING) == 1 &&
			       EVP_PKEY_CTX_set_rsa_pss_saltlen(how, RSA_PSS_SALTLEN_DIGEST) == 1
		       ? 0
		       : -1;
}

static int add_signature(struct buf *jwt, EVP_PKEY *key, bool rs256)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *how = NULL;
	unsigned char *signature = NULL;
	size_t n = 0;
	int result = -1;

	if (ctx == NULL || EVP_DigestSignInit(ctx, &how, EVP_sha256(), NULL, key) != 1 ||
	    (!rs256 && use_pss(how) < 0) ||
	    EVP_DigestSign(ctx, NULL, &n, (const unsigned char *)jwt->data, jwt->len) != 1)
		goto out;
	signature = xmalloc(n);
	if (EVP_DigestSign(ctx, signature, &n, (const unsigned char *)jwt->data, jwt->len) != 1)
		goto out;
	if (buf_add(jwt, ".", 1) < 0 || add_base64url(jwt, signature, n) < 0)
		goto out;
	result = 0;
out:
	free(signature);
	EVP_MD_CTX_free(ctx);
	return result;
}

int assertion_make(const struct assertion *assertion, int64_t now_s, struct secret *jwt_r,
		   struct err *err)
{
	struct buf jwt = BUF_INIT(JWT_MAX);
	X509 *certificate = NULL;
	EVP_PKEY *key = NULL;
	int result = -1;

	certificate = read_certificate(assertion->certificate, err);
	if (certificate == NULL ||
	    check_validity(certificate, assertion->certificate, now_s, err) < 0)
		goto out;
	key = read_key(assertion, err);
	if (key == NULL)
		goto out;
	if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA) {
		err_set(err, ERR_CONFIG, "%s is not an RSA key, which Entra asks for",
			assertion->private_key);
		goto out;
	}
	if (X509_check_private_key(certificate, key) != 1) {
		err_set(err, ERR_CONFIG, "%s is not the key of the certificate in %s",
			assertion->private_key, assertion->certificate);
		goto out;
	}
	if (add_head(&jwt, certificate, assertion->rs256) < 0 || buf_add(&jwt, ".", 1) < 0 ||
	    add_claims(&jwt, assertion, now_s) < 0 ||
	    add_signature(&jwt, key, assertion->rs256) < 0 ||
	    secret_set(jwt_r, buf_text(&jwt), jwt.len) < 0) {
		err_set(err, ERR_TEMP, "the assertion could not be signed");
		goto out;
	}
	result = 0;
out:
	ERR_clear_error();
	EVP_PKEY_free(key);
	X509_free(certificate);
	buf_clear(&jwt);
	return result;
}

int64_t assertion_expires_s(const char *certificate, struct err *err)
{
	X509 *x509 = read_certificate(certificate, err);
	struct tm end = {0};
	int64_t at = -1;

	if (x509 != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(x509), &end) == 1)
		at = (int64_t)timegm(&end);
	else if (x509 != NULL)
		err_set(err, ERR_CONFIG, "the certificate in %s does not say when it ends",
			certificate);
	ERR_clear_error();
	X509_free(x509);
	return at;
}

static int to_text(const unsigned char *data, size_t len, char text_r[ASSERTION_RANDOM_MAX])
{
	struct buf text = BUF_INIT(ASSERTION_RANDOM_MAX - 1);
	int result = add_base64url(&text, data, len);

	(void)snprintf(text_r, ASSERTION_RANDOM_MAX, "%s", buf_text(&text));
	buf_clear(&text);
	return result;
}

int assertion_random(char text_r[ASSERTION_RANDOM_MAX])
{
	unsigned char data[32];

	return RAND_bytes(data, sizeof(data)) == 1 ? to_text(data, sizeof(data), text_r) : -1;
}

int assertion_challenge(const char *verifier, char challenge_r[ASSERTION_RANDOM_MAX])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n;

	if (EVP_Digest(verifier, strlen(verifier), digest, &n, EVP_sha256(), NULL) != 1)
		return -1;
	return to_text(digest, n, challenge_r);
}
