/* SPDX-License-Identifier: MIT */
/*
 * A mount's locks on an etcd that says whatever it likes: the lock engines, the store and its
 * client, with every answer, delay and failure from the input, a line each:
 *
 *     l M N     ask for lock N in the mode M: x or s to wait for it, X or S to try
 *     q I       user I gives it back, or gives up waiting
 *     k I, v I  user I has it confirmed; writes its record
 *     n O N     look up, describe, list, make, remove or change N: O is l, d, s, m, r, c;
 *               or, with a, read everything
 *     a I BODY  request I is answered so
 *     h I SSS BODY, f I E   and so with the status SSS; fails with the error E
 *     w BODY    a line of the watch; W E: it ends
 *     + NUMBER  so many milliseconds pass
 *     z         the mount ends
 *
 * N and I are a digit.  Whatever etcd says, of two who exclude each other here only one holds
 * the lock, and nobody is answered twice.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "event/loop.h"
#include "fuzz.h"
#include "lock/lockspace.h"
#include "machine.h"
#include "store/etcd/etcd.h"
#include "store/etcd/json.h"
#include "store/record.h"
#include "store/survey.h"

enum { MAX_USERS = 10, ROOM = 2000, MAX_LINES = 300 };

/* Somebody who asks for one lock at a time. */
struct user {
	struct world *world;
	struct holding *holding; /* NULL: wants nothing, or was refused */
	char path[8];
	bool shared, granted, lost, over; /* over: given back, or given up */
};

struct world {
	struct machine *machine;
	struct store *store;
	struct lockspace *space;
	struct user users[MAX_USERS];
	unsigned int started, asked, answered; /* counts of names operations */
	bool stopped;
};

static const char *const paths[] = {"a", "b", "d/a", "d"};

static const char *path_of(char c)
{
	return paths[(unsigned char)(c - '0') % ARRAY_SIZE(paths)];
}

static struct user *user_of(struct world *world, char c)
{
	return &world->users[(unsigned char)(c - '0') % MAX_USERS];
}

/* --- locks --- */

static void check_exclusion(const struct user *one)
{
	for (size_t i = 0; i < MAX_USERS; i++) {
		const struct user *other = &one->world->users[i];
		if (other == one || !other->granted || other->lost || other->over)
			continue;
		require(strcmp(other->path, one->path) != 0 || (other->shared && one->shared));
	}
}

static void on_taken(void *data, int result)
{
	struct user *user = data;

	require(user->holding && !user->granted && result <= CLAIM_BUSY);
	if (result != CLAIM_GRANTED) {
		user->holding = NULL;
		return;
	}
	user->granted = true;
	/* Who gave up in the same moment gives it back at once. */
	if (user->over)
		lockspace_release(take(user->holding), NULL, NULL);
	else
		check_exclusion(user);
}

static void on_lost(void *data)
{
	struct user *user = data;

	require(user->holding && user->granted && !user->lost);
	user->lost = true;
}

static void take_lock(struct world *world, char mode, char name)
{
	static const struct record record = {.known = true, .host = "h", .command = "c"};
	struct user *user = world->users;

	while (user < world->users + MAX_USERS && user->holding)
		user++;
	if (user == world->users + MAX_USERS || world->stopped)
		return;
	*user = (struct user){.world = world, .shared = tolower((unsigned char)mode) == 's'};
	copy_string(user->path, sizeof(user->path), path_of(name));
	struct lockspace_request request = {.path = user->path,
		.shared = user->shared,
		.try = isupper((unsigned char)mode),
		.record = &record,
		.on_taken = on_taken,
		.on_lost = on_lost,
		.user = user};
	user->holding = lockspace_take(world->space, &request);
}

static void let_go(struct user *user)
{
	if (!user->holding || user->over)
		return;
	user->over = true;
	if (user->granted)
		lockspace_release(take(user->holding), NULL, NULL);
	else
		lockspace_cancel(user->holding);
}

static void on_done(void *data, int result)
{
	struct world *world = data;

	require(result <= 0);
	world->answered++;
}

static void use_lock(struct world *world, struct user *user, char how)
{
	if (!user->holding || !user->granted || user->over)
		return;
	world->asked++;
	if (how == 'k')
		lockspace_confirm(user->holding, on_done, world);
	else
		lockspace_write(user->holding, on_done, world);
}

/* --- names --- */

static void on_viewed(void *data, int result, struct store_view *view)
{
	require(!result == !!view);
	on_done(data, result);
}

static void on_described(void *data, int result, const char *holder, const char *queue)
{
	if (!result && holder)
		fuzz_require_json(holder);
	if (!result) {
		fuzz_require_json(queue);
		require(*queue == '[' && strlen(queue) <= ROOM);
	}
	on_done(data, result);
}

static void on_listed(void *data, int result, const struct store_name *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *name = names[i].name;
		require(*name && strlen(name) <= 255 && !strchr(name, '/'));
		require(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
	}
	on_done(data, result);
}

/* Sorted, and nothing in it that can't be a path. */
static void on_surveyed(void *data, int result, struct store_survey *survey)
{
	for (size_t i = 0; !result && i < survey->place_count; i++) {
		const struct store_survey_place *place = &survey->places[i];
		int order = i ? strcmp(place[-1].path, place->path) : -1;
		require(*place->path && !place->host == !place->command);
		require(order < 0 || (!order && place[-1].token <= place->token));
	}
	for (size_t i = 1; !result && i < survey->directory_count; i++)
		require(strcmp(survey->directories[i - 1].path, survey->directories[i].path) <= 0);
	if (survey)
		survey_free(survey);
	on_done(data, result);
}

static void ask_name(struct world *world, char how, const char *path)
{
	const struct store_ops *ops = world->store->ops;
	struct store *store = world->store;
	const struct store_directory directory = {.mode = 0755};

	world->asked++;
	switch (how) {
	case 'l':
		ops->lookup(store, path, on_viewed, world);
		break;
	case 'd':
		ops->describe(store, path, ROOM, on_described, world);
		break;
	case 's':
		ops->list(store, path, on_listed, world);
		break;
	case 'a':
		ops->survey(store, on_surveyed, world);
		break;
	case 'm':
		ops->mkdir(store, path, &directory, false, 0, on_done, world);
		break;
	case 'r':
		ops->rmdir(store, path, 0, on_done, world);
		break;
	default:
		ops->change(store, path, STORE_CHANGE_MODE, &directory, on_done, world);
		break;
	}
}

/* --- etcd --- */

static int error_of(char c)
{
	static const int errors[] = {-ETIMEDOUT, -ECONNREFUSED, -EFBIG, -EPROTO, -ECONNRESET};

	return errors[(unsigned char)c % ARRAY_SIZE(errors)];
}

static void answer_with_status(struct world *world, const char *line)
{
	char digits[4];
	uint64_t status;

	copy_string(digits, sizeof(digits), line + 1);
	if (strlen(digits) == 3 && parse_u64(digits, 10, 999, &status) == 0)
		machine_answer(world->machine, (unsigned char)line[0] - '0', (int)status, line + 4);
}

static void stream_line(struct world *world, const char *line)
{
	machine_stream_data(world->machine, line, strlen(line));
	machine_stream_data(world->machine, "\n", 1);
}

static void pass_time(struct world *world, const char *line)
{
	uint64_t milliseconds;

	if (parse_u64(line, 10, 1000 * 1000, &milliseconds) == 0)
		machine_advance(world->machine, (int64_t)milliseconds);
}

/* --- the mount --- */

static void on_started(void *data, int result)
{
	struct world *world = data;

	require(!world->started++ && result <= 0);
}

static void on_stopped(void *data, int result)
{
}

static void stop(struct world *world)
{
	if (world->stopped)
		return;
	world->stopped = true;
	world->store->ops->stop(world->store, on_stopped, world);
}

static void carry_out(struct world *world, const char *line)
{
	size_t length = strlen(line);
	char first = length > 1 ? line[1] : '0', second = length > 2 ? line[2] : '0';

	switch (length ? line[0] : '\0') {
	case 'l':
		take_lock(world, first, second);
		break;
	case 'q':
		let_go(user_of(world, first));
		break;
	case 'k':
	case 'v':
		use_lock(world, user_of(world, first), line[0]);
		break;
	case 'n':
		ask_name(world, first, second == '/' ? "" : path_of(second));
		break;
	case 'a':
		if (length > 1)
			machine_answer(world->machine, (unsigned char)first - '0', 200, line + 2);
		break;
	case 'h':
		if (length > 1)
			answer_with_status(world, line + 1);
		break;
	case 'f':
		machine_fail(world->machine, (unsigned char)first - '0', error_of(second));
		break;
	case 'w':
		stream_line(world, line + 1);
		break;
	case 'W':
		machine_stream_end(world->machine, error_of(first), 0, "");
		break;
	case '+':
		pass_time(world, line + 1);
		break;
	case 'z':
		stop(world);
		break;
	default:
		break;
	}
}

static void set_up(struct world *world, bool has_login)
{
	char one[] = "http://one:2379", two[] = "http://two:2379";
	char *endpoints[] = {one, two};
	struct etcd_options options = {.client = {.endpoints = endpoints,
					       .endpoint_count = 2,
					       .user = has_login ? "user" : NULL,
					       .password = has_login ? "secret" : NULL,
					       .timeout = 5000},
		.prefix = "/p",
		.root_mode = STORE_DEFAULT_MODE,
		.ttl = 10};

	world->machine = machine_new();
	world->store = etcd_new(machine_loop(world->machine), &options);
	world->space = lockspace_new(machine_loop(world->machine), world->store, 5000,
		&(struct lockspace_limits){.claims = 1000,
			.content = 1 << 20,
			.write_rate = 1 << 20,
			.user_share = 100});
	world->store->ops->start(world->store, on_started, world);
	machine_settle(world->machine);
}

/* In the order of src/main.c. */
static void tear_down(struct world *world)
{
	world->store->ops->free(world->store);
	machine_settle(world->machine);
	lockspace_free(world->space);
	machine_free(world->machine);
	require(world->answered <= world->asked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), *rest = text, *line;
	struct world world = {0};

	set_up(&world, size && data[0] == 'u');
	for (int i = 0; i < MAX_LINES && (line = fuzz_line(&rest)); i++) {
		carry_out(&world, line);
		machine_settle(world.machine);
	}
	tear_down(&world);
	free(text);
	return 0;
}
