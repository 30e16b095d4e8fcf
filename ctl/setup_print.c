#include "ctl/setup.h"

#include "base/xalloc.h"
#include "postfix/generate.h"

struct output {
	cJSON *json; /* NULL: print text */
	cJSON *main;
	cJSON *add;
};

static void each_parameter(void *arg, const char *name, const char *value, bool add)
{
	struct output *output = arg;

	if (output->json != NULL)
		(void)cJSON_AddStringToObject(add ? output->add : output->main, name, value);
	else if (add)
		(void)printf("# last in the list, behind what is there:\n%s = %s\n", name, value);
	else
		(void)printf("%s = %s\n", name, value);
}

static void print_file(struct output *output, cJSON *files, const char *path, struct buf *text)
{
	if (output->json != NULL)
		(void)cJSON_AddStringToObject(files, path, buf_text(text));
	else
		(void)printf("\n# ---- %s ----\n%s", path, buf_text(text));
	buf_clear(text);
}

int setup_print(const struct ctl *ctl)
{
	struct output output = {.json = ctl->json ? cJSON_CreateObject() : NULL};
	char *folder = generate_folder(ctl->conf);
	struct buf text = BUF_INIT(GENERATE_MAX);
	cJSON *files = NULL;
	char *path;

	generate_master(ctl->conf, 'y', &text);
	if (output.json != NULL) {
		output.main = cJSON_AddObjectToObject(output.json, "main_cf");
		output.add = cJSON_AddObjectToObject(output.json, "main_cf_last_in_list");
		(void)cJSON_AddStringToObject(output.json, "master_cf", buf_text(&text));
		files = cJSON_AddObjectToObject(output.json, "files");
	} else {
		(void)printf("# ---- master.cf ----\n%s\n# ---- main.cf ----\n", buf_text(&text));
	}
	buf_clear(&text);
	generate_main(ctl->conf, NULL, each_parameter, &output);
	path = xasprintf("%s/sender_transport", folder);
	generate_sender_transport(ctl->conf, &text);
	print_file(&output, files, path, &text);
	free(path);
	path = xasprintf("%s/reply_filter", folder);
	generate_reply_filter(&text);
	print_file(&output, files, path, &text);
	free(path);
	free(folder);
	if (output.json != NULL)
		return ctl_print_json(output.json, CTL_OK);
	return CTL_OK;
}
