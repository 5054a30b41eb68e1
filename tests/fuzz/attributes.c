/* SPDX-License-Identifier: MIT */
/*
 * Extended attributes of a directory and of a lock file, a call a line:
 *
 *     s F NAME=VALUE    set, with the flags F; v the same of the lock file
 *     r F NAME          remove
 *     g F NAME, l F     get and list, into 2^F bytes
 *
 * where F is a digit, and an upper case letter means another user than the directory's owner.
 */
#include <ctype.h>
#include <errno.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/revive.h"
#include "fuzz.h"
#include "store/etcd/values.h"
#include "store/policy.h"

enum { OWNER = 7, OTHER = 8, UNANSWERED = 1 };

/* The one directory, as the store keeps it, and the answer to the one request. */
struct scene {
	struct store store;
	struct fs fs;
	struct node *directory, *lock;
	char *value;
	int result; /* 0 or -errno; or UNANSWERED */
	char *data;
	size_t size;
};

static struct scene *scene_of(const struct request *request)
{
	return container_of(request->fs, struct scene, fs);
}

/* --- in place of fs/mount.c --- */

static void end(struct request *request, int result, const void *data, size_t size)
{
	struct scene *scene = scene_of(request);

	require(scene->result == UNANSWERED && result <= 0);
	scene->result = result;
	scene->data = xzalloc(size + 1);
	if (data)
		memcpy(scene->data, data, size);
	scene->size = size;
	free(request->path);
	free(request->data);
	free(request);
}

void reply_error(struct request *request, int error)
{
	end(request, error, NULL, 0);
}

void reply_data(struct request *request, const void *data, size_t size)
{
	require(size <= request->size);
	end(request, 0, data, size);
}

void reply_xattr_size(struct request *request, size_t size)
{
	require(!request->size);
	end(request, 0, NULL, size);
}

bool request_in_group(const struct request *request, gid_t gid)
{
	return false;
}

void request_go_on(struct request *request)
{
	request->next(request);
}

/* --- in place of fs/revive.c: there is no ledger --- */

void node_enter(struct node *node)
{
}

void hold_enter(struct hold *hold)
{
}

/* --- in place of store/etcd --- */

static void lookup(struct store *store, const char *path, store_view_fn *fn, void *user)
{
	const struct scene *scene = container_of(store, struct scene, store);
	struct store_view view = {.kind = STORE_KIND_DIRECTORY};

	value_parse_directory(scene->value, &view.directory);
	fn(user, 0, &view);
}

static int check_policies(
	const struct store_policy *now, const struct store_policy *to, unsigned int mask)
{
	unsigned int all = policy_equal_ones(to, to, mask), set = policy_set_ones(now, mask);

	if ((mask & STORE_CHANGE_CREATES) && set)
		return -EEXIST;
	return (mask & STORE_CHANGE_REPLACES) && set != all ? -ENODATA : 0;
}

static void change(struct store *store, const char *path, unsigned int mask,
	const struct store_directory *to, store_done_fn *fn, void *user)
{
	struct scene *scene = container_of(store, struct scene, store);
	struct store_directory now = {0};

	value_parse_directory(scene->value, &now);
	require(policy_equal_ones(&to->policy, &to->policy, mask) != 0);
	int error = check_policies(&now.policy, &to->policy, mask);
	if (!error) {
		policy_apply(&now.policy, &to->policy, mask);
		free(scene->value);
		scene->value = value_of_directory(&now, NULL);
	}
	fn(user, error);
}

static void describe(
	struct store *store, const char *path, size_t room, store_describe_fn *fn, void *user)
{
	require(room == XATTR_SIZE_MAX);
	fn(user, 0, "{\"token\":7}", "[{\"token\":7}]");
}

static void evict(struct store *store, const char *path, uint64_t token, uid_t uid,
	store_done_fn *fn, void *user)
{
	fn(user, token == 7 ? 0 : STORE_GONE);
}

static const struct store_ops ops = {
	.lookup = lookup, .change = change, .describe = describe, .evict = evict};

/* --- calls --- */

static struct request *new_request(struct scene *scene, bool is_owner)
{
	struct request *request = xzalloc(sizeof(*request));

	request->fs = &scene->fs;
	request->uid = is_owner ? OWNER : OTHER;
	scene->result = UNANSWERED;
	free(take(scene->data));
	return request;
}

static void get(
	struct scene *scene, struct node *node, bool is_owner, const char *name, size_t size)
{
	fs_getxattr(new_request(scene, is_owner), node, name, size);
	require(scene->result <= 0);
}

static bool is_policy(const char *name)
{
	for (size_t i = 0; i < POLICY_COUNT; i++) {
		if (begins_with(name, "user.latchfs.") &&
			strcmp(name + strlen("user.latchfs."), policy_name(i)) == 0)
			return true;
	}
	return false;
}

/* Where opening takes the lock every name exists, whatever else is set. */
static bool is_overruled(const struct scene *scene, const char *name)
{
	return strcmp(name, "user.latchfs.names") == 0 && strcmp(scene->data, "always") == 0 &&
	       strstr(scene->value, "\"open\":\"lock\"");
}

/* What was set is what one gets; what was not has changed nothing. */
static void set(struct scene *scene, bool is_owner, const char *name, const char *value,
	size_t size, int flags)
{
	cleanup(free_ptr) char *before = xstrdup(scene->value);

	fs_setxattr(new_request(scene, is_owner), scene->directory, name, value, size, flags);
	require(scene->result <= 0);
	if (scene->result) {
		require(strcmp(before, scene->value) == 0);
		return;
	}
	require(is_owner && is_policy(name));
	get(scene, scene->directory, false, name, XATTR_SIZE_MAX);
	bool is_same = scene->size == size && memcmp(scene->data, value, size) == 0;
	require(!scene->result && (is_same || is_overruled(scene, name)));
}

/* A lock file has but one that can be set. */
static void set_of_lock(struct scene *scene, bool is_owner, int flags, char *line)
{
	char *value = line;
	const char *name = strsep(&value, "=");

	fs_setxattr(new_request(scene, is_owner), scene->lock, name, value ? value : "",
		value ? strlen(value) : 0, flags);
	require(scene->result <= 0);
	require(scene->result || strcmp(name, "user.latchfs.break") == 0);
}

static void set_of_line(struct scene *scene, bool is_owner, int flags, char *line)
{
	char *value = line;
	const char *name = strsep(&value, "=");

	set(scene, is_owner, name, value ? value : "", value ? strlen(value) : 0, flags);
	/* A NUL may be in the value as well. */
	if (value)
		set(scene, is_owner, name, value, strlen(value) + 1, flags);
}

static void remove_one(struct scene *scene, bool is_owner, const char *name)
{
	fs_removexattr(new_request(scene, is_owner), scene->directory, name);
	require(scene->result <= 0);
	require(scene->result || (is_owner && is_policy(name)));
}

/* Of each name that is listed there is a value. */
static void list(struct scene *scene, struct node *node, bool is_owner, size_t size)
{
	fs_listxattr(new_request(scene, is_owner), node, size);
	require(scene->result <= 0);
	if (scene->result || !size)
		return;
	cleanup(free_ptr) char *names = take(scene->data);
	size_t length = scene->size;
	for (size_t at = 0; at < length; at += strlen(names + at) + 1) {
		get(scene, node, is_owner, names + at, 0);
		require(!scene->result && scene->size);
	}
}

static void carry_out(struct scene *scene, char *line)
{
	if (strlen(line) < 2)
		return;
	bool is_owner = islower((unsigned char)line[0]);
	int number = line[1] & 15;
	size_t size = number ? (size_t)1 << number : 0;
	switch (tolower((unsigned char)line[0])) {
	case 's':
		set_of_line(scene, is_owner, number & (XATTR_CREATE | XATTR_REPLACE), line + 2);
		break;
	case 'r':
		remove_one(scene, is_owner, line + 2);
		break;
	case 'g':
		get(scene, scene->directory, is_owner, line + 2, size);
		get(scene, scene->lock, is_owner, line + 2, size);
		break;
	case 'l':
		list(scene, scene->directory, is_owner, size);
		list(scene, scene->lock, is_owner, size);
		break;
	case 'v':
		set_of_lock(scene, is_owner, number & (XATTR_CREATE | XATTR_REPLACE), line + 2);
		break;
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), *rest = text, *line;
	struct scene scene = {.store.ops = &ops};
	struct store_directory directory = {.mode = 0755, .uid = OWNER};

	scene.fs.store = &scene.store;
	scene.value = value_of_directory(&directory, NULL);
	scene.fs.options.max_handles = 1000;
	scene.fs.options.user_share = 100;
	handles_init(&scene.fs);
	nodes_init(&scene.fs);
	scene.directory = node_get(&scene.fs, scene.fs.root, "d", true);
	scene.lock = node_get(&scene.fs, scene.fs.root, "l", false);
	while ((line = fuzz_line(&rest)))
		carry_out(&scene, line);
	nodes_fini(&scene.fs);
	shares_fini(&scene.fs.handles);
	free(scene.data);
	free(scene.value);
	free(text);
	return 0;
}
