#include "base/compat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/xalloc.h"
#include "temp.h"
#include "token/assertion.h"
#include "token/grant.h"

#include <cjson/cJSON.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#define NOW_S 1795442825 /* 2026-11-23T14:07:05Z */
#define DAY_S 86400
#define CLIENT "11111111-2222-3333-4444-555555555555"
#define ENDPOINT "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
#define SCOPE "https://outlook.office365.com/.default"

/* ---- keys and certificates, made once ---- */

static EVP_PKEY *rsa, *other_rsa, *ec;

static int make_keys(void **state)
{
	(void)state;
	rsa = EVP_RSA_gen(2048);
	other_rsa = EVP_RSA_gen(2048);
	ec = EVP_EC_gen("P-256");
	return rsa == NULL || other_rsa == NULL || ec == NULL ? -1 : 0;
}

static int free_keys(void **state)
{
	(void)state;
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(other_rsa);
	EVP_PKEY_free(ec);
	return 0;
}

static X509 *make_certificate(EVP_PKEY *key, int64_t from_s, int64_t to_s)
{
	X509 *x509 = X509_new();
	X509_NAME *name = X509_get_subject_name(x509);

	assert_int_equal(X509_set_version(x509, 2), 1);
	assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(x509), 365), 1);
	assert_non_null(ASN1_TIME_set(X509_getm_notBefore(x509), (time_t)from_s));
	assert_non_null(ASN1_TIME_set(X509_getm_notAfter(x509), (time_t)to_s));
	assert_int_equal(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
						    (const unsigned char *)"relay365", -1, -1, 0),
			 1);
	assert_int_equal(X509_set_issuer_name(x509, name), 1);
	assert_int_equal(X509_set_pubkey(x509, key), 1);
	assert_true(X509_sign(x509, key, EVP_sha256()) > 0);
	return x509;
}

static const char *save(const char *name, BIO *bio)
{
	char *data;
	long n = BIO_get_mem_data(bio, &data);
	const char *path = temp_write(name, data, (size_t)n, 0600);

	BIO_free(bio);
	return path;
}

static const char *save_certificate(const char *name, EVP_PKEY *key, int64_t from_s, int64_t to_s)
{
	BIO *bio = BIO_new(BIO_s_mem());
	X509 *x509 = make_certificate(key, from_s, to_s);

	assert_int_equal(PEM_write_bio_X509(bio, x509), 1);
	X509_free(x509);
	return save(name, bio);
}

static const char *save_key(const char *name, EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());

	assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
	return save(name, bio);
}

static const char *save_encrypted_key(const char *name, EVP_PKEY *key, bool traditional)
{
	unsigned char phrase[] = "phrase";
	BIO *bio = BIO_new(BIO_s_mem());
	int done = traditional ? PEM_write_bio_PrivateKey_traditional(bio, key, EVP_aes_128_cbc(),
								      phrase, 6, NULL, NULL)
			       : PEM_write_bio_PrivateKey(bio, key, EVP_aes_128_cbc(), phrase, 6,
							  NULL, NULL);

	assert_int_equal(done, 1);
	return save(name, bio);
}

/* ---- the assertion ---- */

static struct assertion assertion_of(const char *certificate, const char *key)
{
	struct assertion assertion = {.certificate = certificate,
				      .private_key = key,
				      .audience = ENDPOINT,
				      .client_id = CLIENT};

	return assertion;
}

/* base64url without padding, as a JWT has it; data is the caller's to free. */
static unsigned char *decode(const char *text, size_t len, size_t *len_r)
{
	size_t padded = (len + 3) / 4 * 4;
	char *copy = xmalloc(padded + 1);
	unsigned char *data = xmalloc(padded);
	int n;

	for (size_t i = 0; i < padded; i++) {
		char c = i < len ? text[i] : '=';

		assert_true(i >= len || (c != '+' && c != '/' && c != '='));
		copy[i] = c == '-' ? '+' : c == '_' ? '/' : c;
	}
	n = EVP_DecodeBlock(data, (unsigned char *)copy, (int)padded);
	assert_true(n >= 0);
	*len_r = (size_t)n - (padded - len);
	free(copy);
	return data;
}

struct jwt {
	cJSON *head, *claims;
	size_t signed_len; /* of head and claims with the dot between */
	unsigned char *signature;
	size_t signature_len;
};

static cJSON *decode_json(const char *text, size_t len)
{
	size_t n;
	unsigned char *data = decode(text, len, &n);
	cJSON *json = cJSON_ParseWithLength((char *)data, n);

	assert_true(cJSON_IsObject(json));
	free(data);
	return json;
}

static void take_apart(const char *text, struct jwt *jwt)
{
	const char *first = strchr(text, '.'), *second = strchr(first + 1, '.');

	assert_null(strchr(second + 1, '.'));
	jwt->head = decode_json(text, (size_t)(first - text));
	jwt->claims = decode_json(first + 1, (size_t)(second - first - 1));
	jwt->signed_len = (size_t)(second - text);
	jwt->signature = decode(second + 1, strlen(second + 1), &jwt->signature_len);
}

static void jwt_clear(struct jwt *jwt)
{
	cJSON_Delete(jwt->head);
	cJSON_Delete(jwt->claims);
	free(jwt->signature);
}

static const char *text_of(const cJSON *json, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

	assert_non_null(text);
	return text;
}

static bool is_signed_by(const char *text, const struct jwt *jwt, EVP_PKEY *key)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *how = NULL;
	int verified;

	assert_int_equal(EVP_DigestVerifyInit(ctx, &how, EVP_sha256(), NULL, key), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING), 1);
	/* PS256 means a salt of 32 bytes, not whatever fits. */
	assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(how, 32), 1);
	verified = EVP_DigestVerify(ctx, jwt->signature, jwt->signature_len,
				    (const unsigned char *)text, jwt->signed_len);
	EVP_MD_CTX_free(ctx);
	return verified == 1;
}

static void check_thumbprint(const struct jwt *jwt, const char *certificate)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	struct buf pem = BUF_INIT(SECRET_MAX);
	const char *text = text_of(jwt->head, "x5t#S256");
	unsigned char *thumbprint;
	struct err err = ERR_INIT;
	unsigned int n;
	size_t len;
	X509 *x509;
	BIO *bio;

	assert_int_equal(file_read(certificate, &pem, &err), 0);
	bio = BIO_new_mem_buf(pem.data, (int)pem.len);
	x509 = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	assert_int_equal(X509_digest(x509, EVP_sha256(), digest, &n), 1);
	thumbprint = decode(text, strlen(text), &len);
	assert_int_equal(len, n);
	assert_memory_equal(thumbprint, digest, n);
	free(thumbprint);
	X509_free(x509);
	BIO_free(bio);
	buf_clear(&pem);
}

static void check_claims(const struct jwt *jwt)
{
	assert_string_equal(text_of(jwt->head, "alg"), "PS256");
	assert_string_equal(text_of(jwt->head, "typ"), "JWT");
	assert_int_equal(cJSON_GetArraySize(jwt->head), 3);
	assert_string_equal(text_of(jwt->claims, "aud"), ENDPOINT);
	assert_string_equal(text_of(jwt->claims, "iss"), CLIENT);
	assert_string_equal(text_of(jwt->claims, "sub"), CLIENT);
	assert_true(strlen(text_of(jwt->claims, "jti")) >= 32);
	assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(jwt->claims, "nbf")) == NOW_S);
	assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(jwt->claims, "iat")) == NOW_S);
	assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(jwt->claims, "exp")) ==
		    NOW_S + ASSERTION_LIFETIME_S);
	assert_int_equal(cJSON_GetArraySize(jwt->claims), 7);
}

static void make(const struct assertion *assertion, struct secret *jwt)
{
	struct err err = ERR_INIT;

	if (assertion_make(assertion, NOW_S, jwt, &err) < 0)
		fail_msg("%s", err.text);
}

static void test_assertion(void **state)
{
	const char *certificate = save_certificate("crt", rsa, NOW_S - DAY_S, NOW_S + DAY_S);
	struct assertion assertion = assertion_of(certificate, save_key("key", rsa));
	struct secret text = SECRET_INIT;
	struct jwt jwt;

	(void)state;
	make(&assertion, &text);
	take_apart(text.data, &jwt);
	check_claims(&jwt);
	check_thumbprint(&jwt, certificate);
	assert_int_equal(jwt.signature_len, 256);
	assert_true(is_signed_by(text.data, &jwt, rsa));
	assert_false(is_signed_by(text.data, &jwt, other_rsa));
	jwt.signature[5] ^= 1;
	assert_false(is_signed_by(text.data, &jwt, rsa));
	jwt_clear(&jwt);
	secret_clear(&text);
}

static void test_assertions_differ(void **state)
{
	const char *certificate = save_certificate("crt", rsa, NOW_S - DAY_S, NOW_S + DAY_S);
	struct assertion assertion = assertion_of(certificate, save_key("key", rsa));
	char *seen[20];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(seen); i++) {
		struct secret text = SECRET_INIT;
		struct jwt jwt;

		make(&assertion, &text);
		take_apart(text.data, &jwt);
		seen[i] = xstrdup(text_of(jwt.claims, "jti"));
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(seen[i], seen[j]);
		jwt_clear(&jwt);
		secret_clear(&text);
	}
	for (size_t i = 0; i < ARRAY_LEN(seen); i++)
		free(seen[i]);
}

static void test_form_with_assertion(void **state)
{
	static const char head[] = "grant_type=client_credentials&client_id=" CLIENT
				   "&scope=https%3A%2F%2Foutlook.office365.com%2F.default"
				   "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A"
				   "client-assertion-type%3Ajwt-bearer&client_assertion=";
	char client[] = CLIENT, endpoint[] = ENDPOINT, scope[] = SCOPE;
	char key[128], certificate[128], none[] = "";
	struct conf_tenant tenant = {.client_id = client,
				     .token_endpoint = endpoint,
				     .scope = scope,
				     .secret_file = none,
				     .certificate = certificate,
				     .private_key = key};
	struct secret form = SECRET_INIT;
	struct err err = ERR_INIT;
	struct jwt jwt;

	(void)state;
	(void)snprintf(certificate, sizeof(certificate), "%s",
		       save_certificate("crt", rsa, NOW_S - DAY_S, NOW_S + DAY_S));
	(void)snprintf(key, sizeof(key), "%s", save_key("key", rsa));
	assert_int_equal(
		grant_form(&(struct grant){.tenant = &tenant}, NOW_S * 1000LL + 999, &form, &err),
		0);
	assert_memory_equal(form.data, head, sizeof(head) - 1);
	/* base64url and dots need no encoding. */
	take_apart(form.data + sizeof(head) - 1, &jwt);
	check_claims(&jwt);
	assert_true(is_signed_by(form.data + sizeof(head) - 1, &jwt, rsa));
	assert_string_equal(grant_name(&tenant), "certificate");
	jwt_clear(&jwt);
	secret_clear(&form);
}

/* A file with the chain behind the certificate, or with the key beside it. */
static void test_pem_with_more(void **state)
{
	BIO *bio = BIO_new(BIO_s_mem());
	X509 *own = make_certificate(rsa, NOW_S - DAY_S, NOW_S + DAY_S);
	X509 *issuer = make_certificate(other_rsa, NOW_S - DAY_S, NOW_S + DAY_S);
	const char *path;
	struct assertion assertion;
	struct secret text = SECRET_INIT;

	(void)state;
	(void)BIO_puts(bio, "subject=CN = relay365\n");
	assert_int_equal(PEM_write_bio_PrivateKey(bio, rsa, NULL, NULL, 0, NULL, NULL), 1);
	assert_int_equal(PEM_write_bio_X509(bio, own), 1);
	assert_int_equal(PEM_write_bio_X509(bio, issuer), 1);
	path = save("both", bio);
	assertion = assertion_of(path, path);
	make(&assertion, &text);
	X509_free(own);
	X509_free(issuer);
	secret_clear(&text);
}

static void refuse(const char *certificate, const char *key, const char *file, const char *why)
{
	struct assertion assertion = assertion_of(certificate, key);
	struct secret text = SECRET_INIT;
	struct err err = ERR_INIT;

	assert_int_equal(assertion_make(&assertion, NOW_S, &text, &err), -1);
	assert_false(secret_is_set(&text));
	assert_int_equal(err.class, ERR_CONFIG);
	if (strstr(err.text, file) == NULL || strstr(err.text, why) == NULL)
		fail_msg("%s", err.text);
}

static void test_certificate_dates(void **state)
{
	static const struct {
		int64_t from_s, to_s;
		const char *why; /* NULL: valid */
	} cases[] = {
		{-DAY_S, DAY_S, NULL},
		{-DAY_S, 1, NULL},
		{-1, DAY_S, NULL},
		{-2 * DAY_S, -DAY_S, "has expired; make a new one and upload it"},
		{-DAY_S, -1, "has expired"},
		{DAY_S, 2 * DAY_S, "is not valid yet; is this machine's clock right?"},
		{1, DAY_S, "is not valid yet"},
	};
	char key[128];

	(void)state;
	(void)snprintf(key, sizeof(key), "%s", save_key("key", rsa));
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *certificate = save_certificate("crt", rsa, NOW_S + cases[i].from_s,
							   NOW_S + cases[i].to_s);

		if (cases[i].why == NULL) {
			struct assertion assertion = assertion_of(certificate, key);
			struct secret text = SECRET_INIT;

			make(&assertion, &text);
			secret_clear(&text);
		} else {
			refuse(certificate, key, certificate, cases[i].why);
		}
	}
}

static void test_bad_certificates(void **state)
{
	char key[128];

	(void)state;
	(void)snprintf(key, sizeof(key), "%s", save_key("key", rsa));
	refuse(temp_path("missing"), key, "missing", "No such file or directory");
	refuse(temp_text("crt", ""), key, "crt", "holds no certificate in PEM form");
	refuse(temp_text("crt", "garbage"), key, "crt", "holds no certificate in PEM form");
	refuse(temp_text("crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
	       key, "crt", "holds no certificate in PEM form");
	refuse(key, key, "key", "holds no certificate in PEM form");
	/* Must not ask the terminal for a passphrase. */
	refuse(temp_text("crt", "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n"
				"DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n"
				"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
				"-----END CERTIFICATE-----\n"),
	       key, "crt", "holds no certificate in PEM form");
}

static void test_bad_keys(void **state)
{
	static const char none[] = "holds no private key in PEM form without a passphrase";
	static const char locked[] = "is encrypted; set passphrase_file";
	char certificate[128];
	const char *path;

	(void)state;
	(void)snprintf(certificate, sizeof(certificate), "%s",
		       save_certificate("crt", rsa, NOW_S - DAY_S, NOW_S + DAY_S));
	refuse(certificate, temp_path("missing"), "missing", "No such file or directory");
	refuse(certificate, temp_text("key", ""), "key", none);
	refuse(certificate, temp_text("key", "garbage"), "key", none);
	refuse(certificate, certificate, "crt", none);
	refuse(certificate, save_encrypted_key("key", rsa, false), "key", locked);
	refuse(certificate, save_encrypted_key("key", rsa, true), "key", locked);
	refuse(certificate, save_key("key", ec), "key",
	       "is not an RSA key, which Entra asks for");
	path = save_key("key", other_rsa);
	refuse(certificate, path, "key", "is not the key of the certificate in");
	refuse(certificate, path, certificate, "is not the key of the certificate in");
	path = save_key("key", rsa);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(chmod(path, 0644), 0);
	refuse(certificate, path, "key", "mode 0644");
}

static void test_ec_certificate(void **state)
{
	(void)state;
	refuse(save_certificate("crt", ec, NOW_S - DAY_S, NOW_S + DAY_S), save_key("key", ec),
	       "key", "is not an RSA key");
}

#define IN_TEMP(test) cmocka_unit_test_setup_teardown(test, temp_enter, temp_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_TEMP(test_assertion),
		IN_TEMP(test_assertions_differ),
		IN_TEMP(test_form_with_assertion),
		IN_TEMP(test_pem_with_more),
		IN_TEMP(test_certificate_dates),
		IN_TEMP(test_bad_certificates),
		IN_TEMP(test_bad_keys),
		IN_TEMP(test_ec_certificate),
	};

	return cmocka_run_group_tests_name("assertion", tests, make_keys, free_keys);
}
