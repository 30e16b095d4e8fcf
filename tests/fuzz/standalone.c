/*
 * Runs a fuzz target without libFuzzer: each file of the corpus, then a bounded
 * number of seeded, and so repeatable, random changes of them.
 *
 *	fuzz_NAME [-runs=N] [-seed=N] [FILE | FOLDER]...
 *
 * Without a file it takes $srcdir/tests/fuzz/corpus/NAME.
 */
#include "base/compat.h"

#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

enum { INPUTS_MAX = 256, INPUT_SIZE_MAX = 1 << 17, RUNS = 20000 };

static struct {
	uint8_t *data;
	size_t size;
} inputs[INPUTS_MAX];
static size_t input_count;
static uint64_t seed = 365;

static size_t random_below(size_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return n == 0 ? 0 : (size_t)(seed >> 33) % n;
}

/* In a block of just this size, so that a sanitizer sees a byte too far. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *exact = calloc(1, size == 0 ? 1 : size);

	must(exact != NULL);
	if (size > 0)
		memcpy(exact, data, size);
	(void)LLVMFuzzerTestOneInput(exact, size);
	free(exact);
}

static void read_file(const char *path)
{
	FILE *file = fopen(path, "rb");

	if (file == NULL) {
		perror(path);
		exit(1);
	}
	must(input_count < INPUTS_MAX);
	inputs[input_count].data = malloc(INPUT_SIZE_MAX);
	must(inputs[input_count].data != NULL);
	inputs[input_count].size = fread(inputs[input_count].data, 1, INPUT_SIZE_MAX, file);
	input_count++;
	(void)fclose(file);
}

static int no_dot(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void read_path(const char *path)
{
	struct dirent **entries;
	struct stat st;
	int n;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		read_file(path);
		return;
	}
	n = scandir(path, &entries, no_dot, alphasort);
	must(n >= 0);
	for (int i = 0; i < n; i++) {
		char name[4096];

		(void)snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		read_file(name);
		free(entries[i]);
	}
	free(entries);
}

/* Puts len bytes in place of cut ones at a place in *size bytes. */
static void splice(uint8_t *data, size_t *size, size_t at, size_t cut, const uint8_t *with,
		   size_t len)
{
	if (*size - cut + len > INPUT_SIZE_MAX)
		return;
	memmove(data + at + len, data + at + cut, *size - at - cut);
	memcpy(data + at, with, len);
	*size = *size - cut + len;
}

static void change(uint8_t *data, size_t *size)
{
	static const uint8_t telling[] = "\0\001\t\n\r \"%,-/:;=@[\\]{}0919aZ\177\200\377";
	size_t at = random_below(*size + 1);
	uint8_t byte = telling[random_below(sizeof(telling) - 1)];
	uint8_t piece[256] = {0};
	size_t other, len;

	switch (random_below(7)) {
	case 0:
		if (at < *size)
			data[at] ^= (uint8_t)(1u << random_below(8));
		break;
	case 1:
		if (at < *size)
			data[at] = byte;
		break;
	case 2:
		splice(data, size, at, 0, &byte, 1);
		break;
	case 3: /* less */
		splice(data, size, at, random_below(*size - at + 1), piece, 0);
		break;
	case 4: /* the end is missing */
		*size = at;
		break;
	case 5: /* the same again */
		len = random_below(*size - at + 1);
		len = len > sizeof(piece) ? sizeof(piece) : len;
		memcpy(piece, data + at, len);
		splice(data, size, random_below(*size + 1), 0, piece, len);
		break;
	default: /* a piece of another input */
		other = random_below(input_count);
		len = random_below(sizeof(piece));
		len = len > inputs[other].size ? inputs[other].size : len;
		splice(data, size, at, 0,
		       inputs[other].data + random_below(inputs[other].size - len + 1), len);
		break;
	}
}

static void run_changed(long runs)
{
	static uint8_t data[INPUT_SIZE_MAX];

	for (long i = 0; i < runs; i++) {
		size_t input = random_below(input_count), size = inputs[input].size;

		memcpy(data, inputs[input].data, size);
		for (size_t changes = 1 + random_below(8); changes > 0; changes--)
			change(data, &size);
		run(data, size);
	}
}

static void read_default(const char *program)
{
	const char *srcdir = getenv("srcdir");
	const char *name = strrchr(program, '/');
	char path[4096];

	name = name == NULL ? program : name + 1;
	if (strncmp(name, "fuzz_", 5) == 0)
		name += 5;
	(void)snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s",
		       srcdir == NULL ? "." : srcdir, name);
	read_path(path);
}

int main(int argc, char **argv)
{
	long runs = RUNS;

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "-runs=", 6) == 0)
			runs = strtol(argv[i] + 6, NULL, 10);
		else if (strncmp(argv[i], "-seed=", 6) == 0)
			seed = strtoull(argv[i] + 6, NULL, 10);
		else
			read_path(argv[i]);
	}
	if (input_count == 0)
		read_default(argv[0]);
	must(input_count > 0);
	run((const uint8_t *)"", 0);
	for (size_t i = 0; i < input_count; i++)
		run(inputs[i].data, inputs[i].size);
	run_changed(runs);
	(void)printf("%zu inputs, %ld changed ones\n", input_count, runs);
	for (size_t i = 0; i < input_count; i++)
		free(inputs[i].data);
	return 0;
}
