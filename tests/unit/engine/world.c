/* SPDX-License-Identifier: MIT */
/* Chance, and the people who want the lock. */
#include "engine/world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

void world_trace(const struct world *world, const char *format, ...)
{
	va_list args;

	if (!world->trace)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void world_broken_rule(const struct world *world, const char *rule, const char *function, int line)
{
	fflush(stdout);
	fprintf(stderr, "LATCHFS_SEED=%" PRIu64 ": %s:%d: not so: %s\n", world->seed, function,
		line, rule);
	_exit(1);
}

/* --- chance --- */

/* splitmix64 */
static uint64_t next_random(struct world *world)
{
	uint64_t z = world->random += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

unsigned int world_below(struct world *world, unsigned int n)
{
	return (unsigned int)(next_random(world) % n);
}

bool world_chance(struct world *world, unsigned int percent)
{
	return world_below(world, 100) < percent;
}

unsigned int world_pick(struct world *world, const unsigned int *values, size_t count)
{
	return values[world_below(world, (unsigned int)count)];
}

/* --- jobs --- */

struct job *job_of(struct claim *claim)
{
	return container_of(claim, struct job, claim);
}

struct job *job_find(const struct mount *mount, const char *id)
{
	struct job *job;

	DL_FOREACH(mount->jobs, job) {
		if (job->known && strcmp(job->id, id) == 0)
			return job;
	}
	return NULL;
}

/* The job whose place that is and who has not given it back. */
struct job *job_at(const struct mount *mount, const struct model_place *place)
{
	struct job *job = mount ? job_find(mount, place->id) : NULL;

	return job && !job->left ? job : NULL;
}

bool job_is_alive(const struct job *job)
{
	return job->mount->session && !job->broken;
}

struct job *job_random(struct mount *mount, bool held)
{
	struct job *job, *found = NULL;
	unsigned int n = 0;

	DL_FOREACH(mount->jobs, job) {
		if (!job->left && (!held || job->held) && world_below(mount->world, ++n) == 0)
			found = job;
	}
	return found;
}

/* As ranges, of which the last byte stands for all that follow. */
static void part_to_ranges(struct part part, struct ranges *ranges)
{
	ranges_fini(ranges);
	for (unsigned int i = 0; i < MODEL_BYTES; i++) {
		uint64_t end = i + 1 < MODEL_BYTES ? i : RANGE_END;
		if ((part.read | part.write) >> i & 1)
			ranges_set(ranges, (struct range){i, end, part.write >> i & 1});
	}
}

void job_set_part(struct job *job, struct part part)
{
	job->part = part;
	if (!job->plain)
		part_to_ranges(part, &job->ranges);
	job->claim.shared = !part.write;
	job->claim.ranges = job->ranges.count ? &job->ranges : NULL;
}

struct job *job_new(struct mount *mount, struct part part, bool try, struct job *replaces)
{
	struct world *world = mount->world;
	struct job *job = xzalloc(sizeof(*job));

	job->mount = mount;
	job->number = ++world->jobs;
	job->arrival = ++world->arrivals;
	job->replaces = replaces;
	job->plain = (part.read == MODEL_ALL || part.write == MODEL_ALL) &&
		     !(world->odds.parts && world_chance(world, world->odds.parts));
	job_set_part(job, part);
	job->claim.try = try;
	DL_APPEND(mount->jobs, job);
	world_trace(world, "m%u: job %u wants it, r%x w%x%s%s", mount->number, job->number,
		part.read, part.write, try ? ", now" : "",
		replaces ? ", instead of what it has" : "");
	lock_take(&mount->lock, &job->claim);
	return job;
}

void job_end(struct job *job)
{
	struct mount *mount = job->mount;
	struct job *other;

	DL_FOREACH(mount->jobs, other) {
		if (other->replaces == job)
			other->replaces = NULL;
	}
	job->replaces = NULL;
	job->held = false;
	job->left = true;
	world_trace(mount->world, "m%u: job %u leaves", mount->number, job->number);
	lock_leave(&mount->lock, &job->claim, -EINTR);
}

/* Who was granted an upgrade gives the old lock back; most others do something for a while. */
void job_maybe_end(struct mount *mount)
{
	struct job *job = job_random(mount, false);

	if (!job)
		return;
	if (job->held && job->replaces)
		job = job->replaces;
	else if (world_chance(mount->world, mount->world->odds.linger))
		return;
	job_end(job);
}

static struct part random_part(struct world *world)
{
	bool shared = world_chance(world, world->odds.shared);
	struct part part = {0};
	unsigned int bytes = MODEL_ALL;

	if (world_chance(world, world->odds.parts))
		bytes = 1 + world_below(world, MODEL_ALL);
	*(shared ? &part.read : &part.write) = bytes;
	return part;
}

/* Some of it, or what was exclusive becomes shared; never nothing. */
void job_shrink_random(struct mount *mount)
{
	struct world *world = mount->world;
	struct job *job = job_random(mount, true);
	unsigned int kept = 1 + world_below(world, MODEL_ALL);

	if (!job || job->claim.state != CLAIM_HELD || job->plain || job->replaces || !job->known)
		return;
	struct part part = {.read = job->part.read & kept, .write = job->part.write & kept};
	if (world_chance(world, 50)) {
		part = (struct part){.read = part.read | part.write};
	}
	if (!(part.read | part.write))
		return;
	job_set_part(job, part);
	world_trace(world, "m%u: job %u keeps r%x w%x", mount->number, job->number, part.read,
		part.write);
	(void)request_new(mount, REQUEST_SHRINK, job);
	lock_shrunk(&mount->lock, &job->claim);
}

void job_start_random(struct mount *mount)
{
	struct world *world = mount->world;
	struct job *job, *replaces = job_random(mount, true);
	struct part part = random_part(world);
	unsigned int count;

	DL_COUNT(mount->jobs, job, count);
	if (count >= MAX_JOBS)
		return;
	/* As fs/ does it: what is shared is upgraded. */
	if (replaces && replaces->claim.shared && world_chance(world, world->odds.replace))
		part = (struct part){.write = part.read | part.write};
	else
		replaces = NULL;
	(void)job_new(mount, part, world_chance(world, world->odds.try), replaces);
}
