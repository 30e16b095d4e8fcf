#include "ctl/token_file.h"

#include "base/file.h"

#include <cjson/cJSON.h>
#include <strings.h>

static const char *text_of(const cJSON *json, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

	return text == NULL ? "" : text;
}

/* RFC 6749, appendix A.17: visible ASCII characters and spaces. */
static bool is_refresh_token(const char *text)
{
	size_t n = 0;

	while (text[n] >= ' ' && text[n] <= '~')
		n++;
	return n > 0 && text[n] == '\0';
}

static int take(const char *path, const char *client_id, const cJSON *json,
		struct secret *refresh_r, struct err *err)
{
	const char *refresh = text_of(json, "refresh_token");
	const char *its = text_of(json, "client_id");

	if (!is_refresh_token(refresh))
		return err_set(err, ERR_CONFIG,
			       "%s holds no refresh_token; is it a token file of sasl-xoauth2?",
			       path);
	if (client_id != NULL && its[0] != '\0' && strcasecmp(its, client_id) != 0)
		return err_set(err, ERR_CONFIG,
			       "%s is for another application: a refresh token serves only the "
			       "one it was given to, so its client_id must be the tenant's, %s",
			       path, client_id);
	if (secret_set(refresh_r, refresh, strlen(refresh)) < 0)
		return err_set(err, ERR_TEMP, "no memory for the token in %s", path);
	return 0;
}

/* Wipes and frees: the parser has copied access and refresh token. */
static void discard(cJSON *json)
{
	for (cJSON *item = json == NULL ? NULL : json->child; item != NULL; item = item->next)
		if (cJSON_IsString(item))
			explicit_bzero(item->valuestring, strlen(item->valuestring));
	cJSON_Delete(json);
}

int token_file_read(const char *path, const char *client_id, struct secret *refresh_r,
		    struct err *err)
{
	struct secret text = SECRET_INIT;
	cJSON *json;
	int result;

	if (file_read_secret(path, &text, err) < 0)
		return -1;
	json = secret_is_set(&text) ? cJSON_ParseWithLength(text.data, text.len) : NULL;
	secret_clear(&text);
	if (cJSON_IsObject(json))
		result = take(path, client_id, json, refresh_r, err);
	else
		result = err_set(err, ERR_CONFIG,
				 "%s is no JSON object, as sasl-xoauth2's token files are; is it "
				 "whole?",
				 path);
	discard(json);
	return result;
}
