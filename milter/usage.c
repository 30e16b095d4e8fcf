#include "milter/usage.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/xalloc.h"

#include <pthread.h>
#include <sys/random.h>
#include <unistd.h>

enum {
	DAY_H = 24,
	HOUR_MS = 3600 * 1000,
	FADE = 256, /* what is usual fades by this part an hour, and is kept times this */
	SLOTS = 16384,
	FILE_MAX = USAGE_SOURCES_MAX * (USAGE_NAME_MAX + 60)
};

/* What a source sends through one mailbox, by the hour of the day. */
struct through {
	struct through *next;
	uint32_t day[DAY_H];
	char mailbox[];
};

struct source {
	struct source *next;
	int64_t known_h; /* the hour in which it was first seen */
	int64_t last_h;	 /* of its last mail */
	int64_t hour;	 /* of now */
	int64_t now;	 /* recipients in it */
	int64_t usual;	 /* times FADE */
	int64_t since_wall_ms;
	uint16_t incident;
	bool watched;
	struct through *through;
	char name[];
};

struct usage {
	pthread_mutex_t lock;
	struct source *slot[SLOTS];
	size_t sources;
	size_t away; /* how many run away */
	int64_t hour;
	int64_t saved_h;
	char *path;
};

static size_t slot_of(const char *name)
{
	uint32_t h = 2166136261u; /* FNV-1a: who chooses names can only slow down a help */

	for (; *name != '\0'; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h % SLOTS;
}

static struct source *find(struct usage *usage, const char *name)
{
	struct source *s = usage->slot[slot_of(name)];

	while (s != NULL && strcmp(s->name, name) != 0)
		s = s->next;
	return s;
}

static struct source *make(struct usage *usage, const char *name)
{
	struct source **slot = &usage->slot[slot_of(name)];
	struct source *s;

	if (usage->sources == USAGE_SOURCES_MAX)
		return NULL;
	s = xcalloc(1, sizeof(*s) + strlen(name) + 1);
	memcpy(s->name, name, strlen(name) + 1);
	s->known_h = s->last_h = s->hour = usage->hour;
	s->next = *slot;
	*slot = s;
	usage->sources++;
	return s;
}

static void free_source(struct source *s)
{
	struct through *next;

	for (struct through *t = s->through; t != NULL; t = next) {
		next = t->next;
		free(t);
	}
	free(s);
}

static struct through *through_of(struct source *s, const char *mailbox)
{
	size_t len = strlen(mailbox);
	struct through *t = s->through;

	while (t != NULL && strcmp(t->mailbox, mailbox) != 0)
		t = t->next;
	if (t != NULL)
		return t;
	t = xcalloc(1, sizeof(*t) + len + 1);
	memcpy(t->mailbox, mailbox, len + 1);
	t->next = s->through;
	s->through = t;
	return t;
}

static int64_t usual_of(const struct source *s)
{
	return (s->usual + FADE - 1) / FADE;
}

static int64_t threshold(const struct source *s, int64_t factor)
{
	int64_t usual = usual_of(s);

	if (factor <= 0 || s->hour - s->known_h < USAGE_KNOWN_H)
		return INT64_MAX;
	return factor * usual < USAGE_RUNAWAY_MIN ? USAGE_RUNAWAY_MIN : factor * usual;
}

/* Brings a source to an hour; true when it ran away and does so no more. */
static bool roll(struct source *s, int64_t hour, int64_t factor)
{
	int64_t gap = hour - s->hour; /* not over 0: the wall clock went back, a long hour */
	bool away = s->incident != 0, over = s->now > threshold(s, s->watched ? factor : 0);

	if (gap <= 0)
		return false;
	if (gap > 1 || !over)
		s->incident = 0;
	/* What it sends while it runs away must not become usual. */
	if (!(away && over) && s->now * FADE > s->usual)
		s->usual = s->now * FADE;
	for (int64_t i = 0; i < gap && i < USAGE_FORGET_H; i++)
		s->usual -= s->usual / FADE;
	for (struct through *t = s->through; t != NULL; t = t->next)
		for (int64_t i = 1; i <= gap && i <= DAY_H; i++)
			t->day[(s->hour + i) % DAY_H] = 0;
	s->hour = hour;
	s->now = 0;
	return away && s->incident == 0;
}

void usage_add(struct usage *usage, const char *source, const char *mailbox, int64_t n,
	       int64_t factor, struct usage_hour *hour_r)
{
	struct source *s;

	memset(hour_r, 0, sizeof(*hour_r));
	(void)pthread_mutex_lock(&usage->lock);
	s = find(usage, source);
	if (s == NULL)
		s = make(usage, source);
	if (s == NULL)
		goto out;
	s->watched = factor > 0;
	s->last_h = s->hour;
	s->now += n;
	through_of(s, mailbox)->day[s->hour % DAY_H] += (uint32_t)n;
	hour_r->begins = s->incident == 0 && s->now > threshold(s, factor);
	if (hour_r->begins) {
		if (getrandom(&s->incident, sizeof(s->incident), 0) < 0 || s->incident == 0)
			s->incident = 1;
		s->since_wall_ms = clock_wall_ms();
		usage->away++;
	}
	hour_r->recipients = s->now;
	hour_r->usual = usual_of(s);
	hour_r->incident = s->watched ? s->incident : 0;
out:
	(void)pthread_mutex_unlock(&usage->lock);
}

/* ---- who is at the top ---- */

static int64_t day_of(const struct source *s, int64_t hour, const char *mailbox)
{
	int64_t sum = 0;

	for (const struct through *t = s->through; t != NULL; t = t->next) {
		if (mailbox != NULL && strcmp(t->mailbox, mailbox) != 0)
			continue;
		for (int64_t i = 0; i < DAY_H && s->hour - i > hour - DAY_H; i++)
			sum += t->day[(s->hour - i + DAY_H) % DAY_H];
	}
	return sum;
}

static void fill(const struct source *s, int64_t recipients, struct usage_row *row)
{
	(void)snprintf(row->source, sizeof(row->source), "%s", s->name);
	row->recipients = recipients;
	row->usual = usual_of(s);
	row->incident = s->incident;
	row->since_wall_ms = s->since_wall_ms;
}

size_t usage_top(struct usage *usage, const char *mailbox, struct usage_row *row_r, size_t max)
{
	size_t n = 0;

	(void)pthread_mutex_lock(&usage->lock);
	for (size_t i = 0; i < SLOTS; i++)
		for (const struct source *s = usage->slot[i]; s != NULL; s = s->next) {
			int64_t sent = day_of(s, usage->hour, mailbox);
			size_t at = n;

			if (sent == 0)
				continue;
			for (; at > 0 && row_r[at - 1].recipients < sent; at--)
				if (at < max)
					row_r[at] = row_r[at - 1];
			if (at == max)
				continue;
			fill(s, sent, &row_r[at]);
			n += n < max;
		}
	(void)pthread_mutex_unlock(&usage->lock);
	return n;
}

size_t usage_runaways(struct usage *usage, struct usage_row *row_r, size_t max)
{
	size_t n = 0;

	(void)pthread_mutex_lock(&usage->lock);
	for (size_t i = 0; i < SLOTS && usage->away > 0; i++)
		for (const struct source *s = usage->slot[i]; s != NULL && n < max; s = s->next)
			if (s->incident != 0)
				fill(s, s->now, &row_r[n++]);
	(void)pthread_mutex_unlock(&usage->lock);
	return n;
}

size_t usage_roll(struct usage *usage, int64_t factor, struct usage_row *ended_r, size_t max)
{
	int64_t hour = clock_wall_ms() / HOUR_MS;
	size_t ended = 0;
	bool over;

	(void)pthread_mutex_lock(&usage->lock);
	over = hour > usage->hour;
	if (over)
		usage->hour = hour;
	for (size_t i = 0; i < SLOTS && over; i++)
		for (struct source **at = &usage->slot[i]; *at != NULL;) {
			struct source *s = *at;
			int64_t before = s->now;

			if (roll(s, hour, factor)) {
				usage->away--;
				if (ended < max)
					fill(s, before, &ended_r[ended++]);
			}
			if (hour - s->last_h <= USAGE_FORGET_H) {
				at = &s->next;
				continue;
			}
			*at = s->next;
			usage->sources--;
			free_source(s);
		}
	(void)pthread_mutex_unlock(&usage->lock);
	return ended;
}

/* ---- the file: a line for each source, "known last usual NAME" ---- */

void usage_save(struct usage *usage, bool now)
{
	struct buf text = BUF_INIT(FILE_MAX);
	struct err err = ERR_INIT;

	(void)pthread_mutex_lock(&usage->lock);
	now = now || usage->saved_h != usage->hour;
	usage->saved_h = usage->hour;
	for (size_t i = 0; i < SLOTS && now; i++)
		for (const struct source *s = usage->slot[i]; s != NULL; s = s->next) {
			int64_t so_far = s->incident == 0 ? s->now * FADE : 0;

			if (strchr(s->name, '\n') == NULL)
				(void)buf_addf(&text, "%lld %lld %lld %s\n",
					       (long long)s->known_h, (long long)s->last_h,
					       (long long)(so_far > s->usual ? so_far : s->usual),
					       s->name);
		}
	(void)pthread_mutex_unlock(&usage->lock);
	if (now && file_replace(usage->path, buf_text(&text), text.len, 0600, &err) < 0)
		log_say(EV_WARNING, "what is usual for sources is not kept: %s", err.text);
	buf_clear(&text);
}

/* One line; false when it is not of that form. */
static bool read_line(struct usage *usage, char *line)
{
	int64_t number[3];
	struct source *s;

	for (size_t i = 0; i < ARRAY_LEN(number); i++) {
		char *end;

		number[i] = strtoll(line, &end, 10);
		if (end == line || *end != ' ' || number[i] < 0 || number[i] > INT64_MAX / FADE)
			return false;
		line = end + 1;
	}
	if (line[0] == '\0' || strlen(line) > USAGE_NAME_MAX || number[0] > usage->hour ||
	    number[1] > usage->hour)
		return false;
	if (find(usage, line) != NULL)
		return false;
	s = make(usage, line);
	if (s == NULL)
		return false;
	s->known_h = number[0];
	s->last_h = s->hour = number[1];
	s->usual = number[2];
	(void)roll(s, usage->hour, 0);
	return true;
}

static void load(struct usage *usage)
{
	struct buf text = BUF_INIT(FILE_MAX);
	struct err err = ERR_INIT;
	size_t bad = 0;
	char *next;

	if (access(usage->path, F_OK) < 0)
		return;
	if (file_read(usage->path, &text, &err) < 0 || buf_add(&text, "", 1) < 0) {
		log_say(EV_WARNING, "what is usual for sources is learnt anew: %s", err.text);
		buf_clear(&text);
		return;
	}
	for (char *line = text.data; line != NULL && *line != '\0'; line = next) {
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		bad += !read_line(usage, line);
	}
	if (bad > 0)
		log_say(EV_WARNING, "%s: %zu lines could not be read; these sources are new now",
			usage->path, bad);
	buf_clear(&text);
}

struct usage *usage_open(const char *path)
{
	struct usage *usage = xcalloc(1, sizeof(*usage));

	(void)pthread_mutex_init(&usage->lock, NULL);
	usage->hour = usage->saved_h = clock_wall_ms() / HOUR_MS;
	usage->path = xstrdup(path);
	load(usage);
	return usage;
}

void usage_free(struct usage **usage)
{
	struct usage *u = *usage;

	if (u == NULL)
		return;
	for (size_t i = 0; i < SLOTS; i++) {
		struct source *next;

		for (struct source *s = u->slot[i]; s != NULL; s = next) {
			next = s->next;
			free_source(s);
		}
	}
	(void)pthread_mutex_destroy(&u->lock);
	free(u->path);
	free(u);
	*usage = NULL;
}
