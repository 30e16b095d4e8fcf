/*
 * Included first by every C file: what configure found, and the functions
 * that nobody here may call.
 */
#ifndef RELAY365_BASE_COMPAT_H
#define RELAY365_BASE_COMPAT_H

#include "config.h"

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define WARN_UNUSED __attribute__((warn_unused_result))
#define NORETURN __attribute__((noreturn))
#else
#define PRINTF_LIKE(fmt, args)
#define WARN_UNUSED
#define NORETURN
#endif

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#include "base/banned.h"

#endif
