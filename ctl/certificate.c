#include "base/compat.h"

#include "ctl/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

static EVP_PKEY *make_key(void)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, NULL);
	EVP_PKEY *key = NULL;

	if (context == NULL || EVP_PKEY_keygen_init(context) != 1 ||
	    EVP_PKEY_CTX_set_rsa_keygen_bits(context, CERTIFICATE_BITS) != 1 ||
	    EVP_PKEY_keygen(context, &key) != 1)
		key = NULL;
	EVP_PKEY_CTX_free(context);
	return key;
}

/* RFC 5280: version 3, a random serial number, subject and issuer the same. */
static X509 *make_certificate(EVP_PKEY *key, const char *name)
{
	X509 *certificate = X509_new();
	X509_NAME *subject = certificate == NULL ? NULL : X509_get_subject_name(certificate);
	BIGNUM *serial = BN_new();
	bool ok;

	ok = subject != NULL && serial != NULL && X509_set_version(certificate, 2) == 1 &&
	     BN_rand(serial, 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
	     BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(certificate)) != NULL &&
	     X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
	     X509_time_adj_ex(X509_getm_notAfter(certificate), CERTIFICATE_DAYS, 0, NULL) !=
		     NULL &&
	     X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name,
					-1, -1, 0) == 1 &&
	     X509_set_issuer_name(certificate, subject) == 1 &&
	     X509_set_pubkey(certificate, key) == 1 &&
	     X509_sign(certificate, key, EVP_sha256()) > 0;
	BN_free(serial);
	if (ok)
		return certificate;
	X509_free(certificate);
	return NULL;
}

/* A new file for the caller to write to; one that is there stays. */
static FILE *create(const char *path, mode_t mode, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");

	if (fd >= 0 && fchmod(fd, mode) < 0 && file != NULL) {
		(void)fclose(file);
		file = NULL;
	}
	if (file == NULL)
		err_set(err, ERR_CONFIG, "cannot create %s: %s", path, err_no(errno));
	return file;
}

static int finish(FILE *file, bool written, const char *path, struct err *err)
{
	bool synced = written && fflush(file) == 0 && fsync(fileno(file)) == 0;

	if (fclose(file) == 0 && synced)
		return 0;
	(void)unlink(path);
	return err_set(err, ERR_TEMP, "cannot write %s: %s", path, err_no(errno));
}

int certificate_make(const char *certificate, const char *key, const char *name, struct err *err)
{
	EVP_PKEY *pair = make_key();
	X509 *made = pair == NULL ? NULL : make_certificate(pair, name);
	int result = -1;
	FILE *file;

	if (made == NULL) {
		err_set(err, ERR_TEMP, "OpenSSL can't make a key and certificate");
	} else if ((file = create(key, 0600, err)) != NULL) {
		result = finish(file,
				PEM_write_PrivateKey(file, pair, NULL, NULL, 0, NULL, NULL) == 1,
				key, err);
		file = result == 0 ? create(certificate, 0644, err) : NULL;
		result = file == NULL ? -1
				      : finish(file, PEM_write_X509(file, made) == 1, certificate,
					       err);
		if (result < 0)
			(void)unlink(key);
	}
	X509_free(made);
	EVP_PKEY_free(pair);
	return result;
}

int certificate_read(const char *certificate, struct certificate_facts *facts, struct err *err)
{
	FILE *file = fopen(certificate, "r");
	X509 *read = file == NULL ? NULL : PEM_read_X509(file, NULL, NULL, NULL);
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	struct tm end;
	int result = -1;

	if (file != NULL)
		(void)fclose(file);
	if (read != NULL && X509_digest(read, EVP_sha1(), digest, &len) == 1 && len == 20 &&
	    ASN1_TIME_to_tm(X509_get0_notAfter(read), &end) == 1) {
		for (unsigned int i = 0; i < len; i++)
			(void)snprintf(facts->thumbprint + 2 * i, 3, "%02X", digest[i]);
		(void)strftime(facts->not_after, sizeof(facts->not_after), "%Y-%m-%d", &end);
		result = 0;
	} else {
		err_set(err, ERR_CONFIG, "%s holds no certificate in PEM", certificate);
	}
	X509_free(read);
	return result;
}
