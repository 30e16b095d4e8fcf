/* Replies of a server, and the end of a message in what a client sends. */
#include "base/compat.h"

#include "fuzz.h"

#include "sendmail/body.h"
#include "sendmail/reply.h"

static void replies(char *data, size_t size)
{
	struct reply reply, again;
	char line[80];

	if (reply_parse(data, size, &reply) != 1)
		return;
	must(reply.text == data && reply.len > 3 && reply.len <= size);
	must(reply.code >= 200 && reply.code <= 599 && data[reply.len - 1] == '\n');
	reply_line(&reply, line, sizeof(line));
	must(strlen(line) < sizeof(line) && line[strspn(line, "\r\n")] != '\0');
	if (reply_soften(&reply))
		must(reply.code >= 400 && reply.code < 500);
	must(reply_parse(data, reply.len, &again) == 1);
	must(again.len == reply.len && again.code == reply.code);
	must(!reply_soften(&again));
}

static void body(const char *data, size_t size)
{
	enum body_at whole = BODY_LINE_START, parts = BODY_LINE_START;
	bool end, ended = false;
	size_t used = body_part(&whole, data, size, &end), done = 0;

	must(used <= size && (end || used == size));
	must(!end || (used >= 3 && memcmp(data + used - 3, ".\r\n", 3) == 0));
	must(!end || used == 3 || (used >= 5 && memcmp(data + used - 5, "\r\n", 2) == 0));
	while (done < size && !ended)
		done += body_part(&parts, data + done, 1, &ended);
	must(done == used && ended == end);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	char *copy = malloc(size + 1);

	must(copy != NULL);
	if (size > 0)
		memcpy(copy, bytes, size);
	body(copy, size);
	replies(copy, size);
	free(copy);
	return 0;
}
