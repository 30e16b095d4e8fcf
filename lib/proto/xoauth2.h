/*
 * The client's side of SASL XOAUTH2, as far as it is text:
 *
 *   user=ADDRESS ^A auth=Bearer TOKEN ^A ^A       (without the blanks, ^A = 0x01)
 *
 * Pure functions on the caller's buffers; any thread may call them. Base64 is
 * the caller's, in Postfix that of libsasl2.
 *
 * Source: "Authenticate an IMAP, POP or SMTP connection using OAuth" at
 * learn.microsoft.com, section SASL XOAUTH2; RFC 6750 section 2.1 (b64token).
 */
#ifndef RELAY365_PROTO_XOAUTH2_H
#define RELAY365_PROTO_XOAUTH2_H

#include <stddef.h>

#define XOAUTH2_USER_MAX 320	/* bytes; 64 + "@" + 255, the longest mail address */
#define XOAUTH2_TOKEN_MAX 16384 /* bytes; tokens for Exchange Online have 1,500 to 4,000 */
#define XOAUTH2_RESPONSE_MAX (XOAUTH2_USER_MAX + XOAUTH2_TOKEN_MAX + 32)

enum xoauth2_result {
	XOAUTH2_OK,
	XOAUTH2_BAD_USER,  /* empty, too long, or with a control character */
	XOAUTH2_BAD_TOKEN, /* empty, too long, or no b64token */
	XOAUTH2_NO_ROOM	   /* the response is longer than cap */
};

/*
 * Writes the response, without a NUL, to to, and its length to *len_r. With
 * any other result than XOAUTH2_OK nothing is written. The response is as
 * secret as the token: the caller erases it.
 */
enum xoauth2_result xoauth2_compose(const char *user, size_t user_len, const char *token,
				    size_t token_len, char *to, size_t cap, size_t *len_r);

#endif
