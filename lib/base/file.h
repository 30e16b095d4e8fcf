/*
 * Files: read with a maximum, replaced so that a crash leaves the old or the
 * new content. Errors name the file and say what to do.
 */
#ifndef RELAY365_BASE_FILE_H
#define RELAY365_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/secret.h"

/* Reads a whole file into buf, which must be empty; larger than buf->max is an error. */
int file_read(const char *path, struct buf *buf, struct err *err) WARN_UNUSED;

/*
 * Reads a file that holds a secret. Refused when others may read or write it,
 * or its group may write it. White space at the end is kept.
 */
int file_read_secret(const char *path, struct secret *secret, struct err *err) WARN_UNUSED;

/* The mode check alone: 0 (also when this user may not look), or -1 with what to do. */
int file_check_secrecy(const char *path, struct err *err) WARN_UNUSED;

/*
 * Writes path.tmp, syncs it, renames it to path and syncs the folder: after 0
 * the content survives a power cut. mode is the new file's.
 */
int file_replace(const char *path, const void *data, size_t len, unsigned int mode,
		 struct err *err) WARN_UNUSED;

/*
 * Maps so many bytes of a file that is shared memory: mode 0600, made or brought to that size
 * when it is not, all of it taken from the file system now, so that it can't run out of room
 * later. Undone by munmap(). Returns NULL with the reason.
 */
void *file_map(const char *path, size_t bytes, struct err *err) WARN_UNUSED;

/* Makes the last folder of path, mode 0700, when it is missing: what a daemon keeps is its own.
 */
int file_make_folder(const char *path, struct err *err) WARN_UNUSED;

#endif
