/* SPDX-License-Identifier: MIT */
/* Extended attributes: who holds a lock, breaking it, and the policies of a directory. */
#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/steps.h"
#include "store/policy.h"

static const char name_prefix[] = "user.latchfs.";
static const char holder_name[] = "user.latchfs.holder";
static const char queue_name[] = "user.latchfs.queue";
static const char break_name[] = "user.latchfs.break"; /* to be set, never read */

/* The policy's name within an attribute's, or NULL. */
static const char *policy_of(const char *attribute)
{
	size_t length = strlen(name_prefix);

	return strncmp(attribute, name_prefix, length) == 0 ? attribute + length : NULL;
}

static void reply_value(struct request *request, const char *value, size_t length)
{
	if (!request->size)
		reply_xattr_size(request, length);
	else if (length > request->size)
		reply_error(request, -ERANGE);
	else
		reply_data(request, value, length);
}

/* --- reading --- */

static void get_policy(struct request *request)
{
	struct store_policy policy = node_policy(request->node);
	const char *name = policy_of(request->data);
	const char *value = name ? policy_get(&policy, name) : NULL;

	if (value)
		reply_value(request, value, strlen(value));
	else
		reply_error(request, -ENODATA);
}

static void on_described(void *user, int result, const char *holder, const char *queue)
{
	struct request *request = user;
	const char *value = strcmp(request->data, holder_name) == 0 ? holder : queue;

	if (result)
		reply_error(request, result);
	else if (!value)
		reply_error(request, -ENODATA);
	else
		reply_value(request, value, strlen(value));
}

static void describe(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->describe(store, request->path, XATTR_SIZE_MAX, on_described, request);
}

static bool is_of_queue(const char *name)
{
	return strcmp(name, holder_name) == 0 || strcmp(name, queue_name) == 0;
}

void fs_getxattr(struct request *request, struct node *node, const char *name, size_t size)
{
	request->node = node;
	request->size = size;
	request->path = xstrdup(node->path);
	request->data = xstrdup(name);
	bool is_known = node->is_directory ? policy_of(name) != NULL : is_of_queue(name);
	if (node->status || !is_known)
		reply_error(request, -ENODATA);
	else if (node->is_directory)
		step_permitted(request, 0, get_policy);
	else
		describe(request);
}

static void add_name(struct buffer *list, const char *name)
{
	buffer_add(list, name, strlen(name) + 1);
}

static void list_policies(struct request *request)
{
	struct buffer list = {0};

	for (size_t i = 0; i < POLICY_COUNT; i++) {
		if (!policy_get(&request->node->directory.policy, policy_name(i)))
			continue;
		cleanup(free_ptr) char *name = xasprintf("%s%s", name_prefix, policy_name(i));
		add_name(&list, name);
	}
	reply_value(request, list.data, list.size);
	buffer_fini(&list);
}

static void on_described_for_list(void *user, int result, const char *holder, const char *queue)
{
	struct request *request = user;
	struct buffer list = {0};

	if (result) {
		reply_error(request, result);
		return;
	}
	if (holder)
		add_name(&list, holder_name);
	add_name(&list, queue_name);
	reply_value(request, list.data, list.size);
	buffer_fini(&list);
}

static void describe_for_list(struct request *request)
{
	struct store *store = request->fs->store;

	store->ops->describe(store, request->path, XATTR_SIZE_MAX, on_described_for_list, request);
}

void fs_listxattr(struct request *request, struct node *node, size_t size)
{
	request->node = node;
	request->size = size;
	request->path = xstrdup(node->path);
	if (node->status)
		reply_value(request, NULL, 0);
	else if (node->is_directory)
		step_permitted(request, 0, list_policies);
	else
		describe_for_list(request);
}

/* --- breaking a lock --- */

/* request->data: the token. */
static void on_evicted(void *user, int result)
{
	struct request *request = user;
	struct proc_identity who;

	if (!result && log_admits("locks that were broken", request->uid, loop_clock())) {
		proc_identify(request->pid, &who);
		log_info("user %u (process %d, %s) broke token %s of lock %s",
			(unsigned int)request->uid, (int)who.pid, who.command, request->data,
			request->path);
	}
	/* At which the kernel looks the name up and asks again, for the same answer. */
	reply_error(request, result == STORE_GONE ? -ESTALE : result);
}

static void break_lock(
	struct request *request, struct node *node, const char *value, size_t size, int flags)
{
	struct store *store = request->fs->store;
	cleanup(free_ptr) char *text = xasprintf("%.*s", (int)size, value);
	uint64_t token;

	request->node = node;
	request->path = xstrdup(node->path);
	if (flags & XATTR_REPLACE) {
		reply_error(request, -ENODATA);
	} else if (*text == '0' || parse_u64(text, 10, INT64_MAX, &token) < 0) {
		reply_error(request, -EINVAL);
	} else {
		request->data = take(text);
		store->ops->evict(store, request->path, token, request->uid, on_evicted, request);
	}
}

/* --- changing --- */

static void on_changed(void *user, int result)
{
	struct request *request = user;

	request->node->read_at = 0;
	reply_error(request, result);
}

/* request->data is the attribute's name, a NUL, and its value; no value: remove it. */
static int read_change(struct request *request, unsigned int *mask)
{
	const char *name = request->data;
	const char *value = request->size ? name + strlen(name) + 1 : NULL;
	int error = policy_set(&request->directory.policy, policy_of(name), value);

	*mask = policy_change(policy_of(name));
	if (request->flags & XATTR_CREATE)
		*mask |= STORE_CHANGE_CREATES;
	if ((request->flags & XATTR_REPLACE) || !value)
		*mask |= STORE_CHANGE_REPLACES;
	return error == -ENODATA ? -EOPNOTSUPP : error;
}

static void change_policy(struct request *request)
{
	struct store *store = request->fs->store;
	unsigned int mask = 0;
	int error = check_owner(request, request->node);

	if (!error)
		error = read_change(request, &mask);
	if (error)
		reply_error(request, error);
	else
		store->ops->change(
			store, request->path, mask, &request->directory, on_changed, request);
}

static void start_change(struct request *request, struct node *node, const char *name,
	const char *value, size_t size)
{
	struct buffer data = {0};

	request->node = node;
	request->path = xstrdup(node->path);
	request->size = size;
	add_name(&data, name);
	buffer_add(&data, value, size);
	request->data = buffer_take(&data);
	if (!node->is_directory || !policy_of(name)) {
		reply_error(request, -EOPNOTSUPP);
		return;
	}
	/* What is changed must be what is there now, not a second ago. */
	node->read_at = 0;
	step_permitted(request, 0, change_policy);
}

void fs_setxattr(struct request *request, struct node *node, const char *name, const char *value,
	size_t size, int flags)
{
	request->flags = flags;
	request->node = node;
	if (node->status)
		reply_error(request, -EPERM);
	else if (!size || memchr(value, '\0', size))
		reply_error(request, -EINVAL);
	else if (!node->is_directory && strcmp(name, break_name) == 0)
		break_lock(request, node, value, size, flags);
	else
		start_change(request, node, name, value, size);
}

void fs_removexattr(struct request *request, struct node *node, const char *name)
{
	request->flags = 0;
	request->node = node;
	if (node->status)
		reply_error(request, -EPERM);
	else
		start_change(request, node, name, "", 0);
}
