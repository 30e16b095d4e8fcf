#include "base/compat.h"

#include "sendmail/patience.h"

enum {
	COMMAND_MS = 5 * 60 * 1000, /* for a reply or a command */
	DATA_MS = 2 * 60 * 1000,    /* for the reply to DATA */
	BLOCK_MS = 3 * 60 * 1000,   /* for a piece of the message to move */
	END_MS = 10 * 60 * 1000	    /* for the reply to the end of the message */
};

int64_t patience_reply_ms(const enum sent *oldest)
{
	if (oldest == NULL)
		return COMMAND_MS;
	return *oldest == SENT_DATA ? DATA_MS : *oldest == SENT_END ? END_MS : COMMAND_MS;
}

int64_t patience_body_ms(bool blocked)
{
	return blocked ? BLOCK_MS : COMMAND_MS;
}
