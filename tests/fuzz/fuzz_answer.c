#include "base/compat.h"

#include "fuzz.h"

#include "token/answer.h"

static const int statuses[] = {200, 400, 401, 302, 429, 503};

static void check(const struct answer *answer)
{
	must(answer->ok == secret_is_set(&answer->token));
	must(answer->ok == (answer->reason[0] == '\0'));
	must(answer->aadsts >= 0);
	must(answer->expires_in_s >= 0 && answer->refresh_in_s >= 0);
	for (const char *p = answer->reason; *p != '\0'; p++)
		must(*p >= 32 && *p < 127);
	if (!answer->ok)
		return;
	must(answer->refresh.len <= ANSWER_TOKEN_MAX);
	for (size_t i = 0; i < answer->refresh.len; i++)
		must(answer->refresh.data[i] >= 32 && answer->refresh.data[i] < 127);
	must(answer->token.len <= ANSWER_TOKEN_MAX && answer->expires_in_s > 0);
	for (size_t i = 0; i < answer->token.len; i++)
		must(answer->token.data[i] > 32 && answer->token.data[i] < 127);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_answer http = {.retry_after_ms = -1, .body_len = size};
	char *body;

	if (size > HTTP_ANSWER_MAX)
		return 0;
	body = malloc(size + 1);
	must(body != NULL);
	memcpy(body, data, size);
	body[size] = '\0';
	http.body = body;
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		struct answer answer;

		http.status = statuses[i];
		answer_parse(&http, &answer);
		check(&answer);
		must(!answer.ok || http.status == 200);
		answer_clear(&answer);
	}
	free(body);
	return 0;
}
