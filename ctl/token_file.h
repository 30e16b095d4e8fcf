/*
 * A token file of sasl-xoauth2: a JSON object with the refresh token of a user
 * who signed in, and perhaps the application ("client_id") that it serves.
 */
#ifndef RELAY365_CTL_TOKEN_FILE_H
#define RELAY365_CTL_TOKEN_FILE_H

#include "base/err.h"
#include "base/secret.h"

/*
 * Reads the refresh token of the file at path. Refused as any file with a
 * secret when others may read it, and when it names another application than
 * client_id (NULL: any will do). No error shows what stands in the file.
 */
int token_file_read(const char *path, const char *client_id, struct secret *refresh_r,
		    struct err *err) WARN_UNUSED;

#endif
