/*
 * Functions without a bound, with hidden state or with an answer that can't
 * be told from an error. Using one is a compile error.
 */
#ifndef RELAY365_BASE_BANNED_H
#define RELAY365_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__GNUC__)
/* With fortification the C library may have macros of these names. */
#undef strcpy
#undef strcat
#undef strncpy
#undef strncat
#undef sprintf
#undef vsprintf
#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf gets strtok
#pragma GCC poison atoi atol atoll atof sscanf gmtime localtime ctime asctime
#endif

#endif
