/* SPDX-License-Identifier: MIT */
#include "fs/revive.h"

#include <string.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/pack.h"
#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/keep.h"
#include "fs/locks.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/search.h"
#include "fs/stake.h"
#include "fs/status.h"
#include "lock/lockspace.h"

/* --- entering --- */

static void pack_node(struct buffer *entry, const struct node *node)
{
	pack_string(entry, node->path);
	pack_u64(entry, node_kind(node));
}

void node_enter(struct node *node)
{
	struct ledger *ledger = node->fs->ledger;
	struct buffer entry = {0};

	if (!ledger)
		return;
	pack_node(&entry, node);
	pack_u64(&entry, node->inode);
	pack_bytes(&entry, &node->directory, sizeof(node->directory));
	ledger_put(ledger, &node->slot, LEDGER_NODE, entry.data, entry.size);
	ledger_count(ledger, node->slot, node->lookups);
	buffer_fini(&entry);
}

/* All but whose it is. */
static void pack_handle(struct buffer *entry, const struct handle *handle)
{
	pack_u64(entry, (uint64_t)handle->flags);
	pack_u64(entry, handle->uid);
	pack_u64(entry, handle->gid);
	pack_bytes(entry, &handle->opener, sizeof(handle->opener));
	pack_bytes(entry, &handle->policy, sizeof(handle->policy));
	pack_u64(entry, (uint64_t)handle->opened_at);
}

void handle_enter(struct handle *handle)
{
	struct ledger *ledger = handle->node->fs->ledger;
	struct buffer entry = {0};

	if (!ledger)
		return;
	pack_u64(&entry, handle->number);
	pack_node(&entry, handle->node);
	pack_u64(&entry, handle->mark);
	pack_u64(&entry, handle->poll);
	pack_handle(&entry, handle);
	ledger_put(ledger, &handle->slot, LEDGER_HANDLE, entry.data, entry.size);
	buffer_fini(&entry);
}

static void pack_stake(struct buffer *entry, const struct stake *stake)
{
	cleanup(free_ptr) char *ranges = ranges_print(&stake->ranges);

	pack_u64(entry, stake->kind);
	pack_u64(entry, stake->handle->number);
	pack_u64(entry, stake->owner);
	pack_u64(entry, (uint64_t)stake->pid);
	pack_string(entry, ranges);
	if (stake->kind != STAKE_KEPT)
		return;
	pack_handle(entry, stake->handle);
	pack_u64(entry, keep_started(stake->handle->keep));
}

void hold_enter(struct hold *hold)
{
	struct ledger *ledger = hold->node->fs->ledger;
	const struct node *node = hold->node;
	const struct stake *stake;
	struct buffer entry = {0};
	size_t count;

	if (!ledger || !hold->holding)
		return;
	if (!hold->stakes) {
		ledger_drop(ledger, &hold->slot);
		return;
	}
	pack_string(&entry, lockspace_id(hold->holding));
	pack_node(&entry, node);
	pack_u64(&entry, hold->of_ranges);
	pack_string(&entry, node->twin ? node->twin->path : NULL);
	pack_u64(&entry, node->shown_inode);
	DL_COUNT(hold->stakes, stake, count);
	pack_u64(&entry, count);
	DL_FOREACH(hold->stakes, stake) {
		pack_stake(&entry, stake);
	}
	ledger_put(ledger, &hold->slot, LEDGER_HOLD, entry.data, entry.size);
	buffer_fini(&entry);
}

/* --- nodes --- */

/* The node of a path, with those above it, and one more reference. */
static struct node *reach(struct fs *fs, const char *path, enum node_kind kind)
{
	const char *slash = strrchr(path, '/');

	if (!*path) {
		node_ref(fs->root);
		return fs->root;
	}
	cleanup(free_ptr) char *above = xasprintf("%.*s", slash ? (int)(slash - path) : 0, path);
	struct node *parent = reach(fs, above, NODE_DIRECTORY);
	struct node *node = node_get(fs, parent, path, kind);
	node->status = status_of(parent, slash ? slash + 1 : path);
	node_unref(parent, 1);
	return node;
}

/* The same of what was packed; NULL if that can't be read. */
static struct node *unpack_node(struct fs *fs, struct unpack *from)
{
	cleanup(free_ptr) char *path = unpack_string(from, NULL);
	uint64_t kind = unpack_u64(from);

	if (!path || from->failed || kind > NODE_SYMLINK)
		return NULL;
	return reach(fs, path, (enum node_kind)kind);
}

static void read_node(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct unpack from = {.data = data, .size = size};
	struct fs *fs = user;
	struct node *node = unpack_node(fs, &from);

	if (!node)
		return;
	node->slot = slot;
	node_restore_inode(node, unpack_u64(&from));
	unpack_bytes(&from, &node->directory, sizeof(node->directory));
	node->lookups = count;
	/* Of the root the kernel never forgets anything; what it was not told of is made anew. */
	if (node != fs->root && !count)
		ledger_drop(fs->ledger, &node->slot);
	if (node == fs->root || !count)
		node_unref(node, 1);
	else
		node->references += count - 1;
}

/* --- handles --- */

static void unpack_handle(struct unpack *from, struct handle *handle)
{
	handle->flags = (int)unpack_u64(from);
	uid_t uid = (uid_t)unpack_u64(from);
	handle_own(handle, uid, (gid_t)unpack_u64(from));
	unpack_bytes(from, &handle->opener, sizeof(handle->opener));
	unpack_bytes(from, &handle->policy, sizeof(handle->policy));
	handle->opened_at = (int64_t)unpack_u64(from);
}

static void read_handle(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct unpack from = {.data = data, .size = size};
	uint64_t number = unpack_u64(&from);
	struct node *node = unpack_node(user, &from);

	if (!node)
		return;
	struct handle *handle = handle_revive(node, number);
	node_unref(node, 1);
	handle->slot = slot;
	handle->mark = unpack_u64(&from);
	handle->poll = unpack_u64(&from);
	unpack_handle(&from, handle);
	if (!count)
		handle->node->fs->unsaid = handle;
}

struct handle *fs_opened_before(struct fs *fs, uint64_t mark)
{
	return fs->unsaid && fs->unsaid->mark == mark ? take(fs->unsaid) : NULL;
}

/* --- aims --- */

struct aim {
	uint64_t mark, value;
	ledger_slot slot;
	struct aim *prev, *next; /* in fs->aims */
};

void request_aim(struct request *request, uint64_t aim)
{
	struct buffer entry = {0};

	request->aim = aim;
	if (!request->fs->ledger)
		return;
	pack_u64(&entry, request->mark);
	pack_u64(&entry, aim);
	ledger_put(request->fs->ledger, &request->slot, LEDGER_AIM, entry.data, entry.size);
	buffer_fini(&entry);
}

static void read_aim(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct unpack from = {.data = data, .size = size};
	struct fs *fs = user;
	struct aim *aim = xzalloc(sizeof(*aim));

	aim->mark = unpack_u64(&from);
	aim->value = unpack_u64(&from);
	aim->slot = slot;
	DL_APPEND(fs->aims, aim);
}

void fs_recall(struct request *request)
{
	struct fs *fs = request->fs;
	struct aim *aim;

	DL_SEARCH_SCALAR(fs->aims, aim, mark, request->mark);
	if (!aim)
		return;
	request->aim = aim->value;
	request->slot = aim->slot;
	request->recalled = true;
	DL_DELETE(fs->aims, aim);
	free(aim);
}

static void forget_aims(struct fs *fs)
{
	struct aim *aim, *next;

	DL_FOREACH_SAFE(fs->aims, aim, next) {
		ledger_drop(fs->ledger, &aim->slot);
		DL_DELETE(fs->aims, aim);
		free(aim);
	}
}

/* --- holds --- */

struct link {
	struct node *node;
	char *twin;
	uint64_t shown_inode;
	struct link *next;
};

struct revival {
	struct fs *fs;
	struct link *links;
	size_t adopted, lost;
};

/* Nobody's handle but the lock's own. */
static void revive_keep(struct unpack *from, struct hold *hold, uint64_t number)
{
	struct handle *handle = handle_revive(hold->node, number);

	unpack_handle(from, handle);
	keep_revive(hold, handle, unpack_u64(from));
}

static void revive_stake(struct unpack *from, struct hold *hold)
{
	uint64_t kind = unpack_u64(from), number = unpack_u64(from), owner = unpack_u64(from);
	pid_t pid = (pid_t)unpack_u64(from);
	cleanup(free_ptr) char *ranges = unpack_string(from, NULL);
	struct handle *handle = handle_by_number(hold->node->fs, number);

	if (from->failed)
		return;
	if (kind == STAKE_KEPT) {
		revive_keep(from, hold, number);
		return;
	}
	if (!handle)
		return; /* its opening was not answered: it is asked for again */
	struct stake *stake = stake_revive(hold, (enum stake_kind)kind, handle, owner);
	stake->pid = pid;
	if (ranges && *ranges)
		(void)ranges_parse(&stake->ranges, ranges);
}

static void note_link(struct revival *revival, struct unpack *from, struct node *node)
{
	char *twin = unpack_string(from, NULL);
	uint64_t shown_inode = unpack_u64(from);

	if (!twin)
		return;
	struct link *link = xzalloc(sizeof(*link));
	node_ref(node);
	link->node = node;
	link->twin = twin;
	link->shown_inode = shown_inode;
	LL_PREPEND(revival->links, link);
}

/* The former process may have written down that less is needed, and not that less is held. */
static void go_on(struct hold *hold)
{
	hold_settle(hold, NULL, NULL);
	keep_revived(hold);
}

static void read_hold(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	struct unpack from = {.data = data, .size = size};
	struct revival *revival = user;
	struct fs *fs = revival->fs;
	cleanup(free_ptr) char *id = unpack_string(&from, NULL);
	struct node *node = id ? unpack_node(fs, &from) : NULL;

	if (!node)
		return;
	struct hold *hold = hold_new(node, NULL);
	node_unref(node, 1);
	hold->slot = slot;
	hold->of_ranges = unpack_u64(&from);
	note_link(revival, &from, node);
	for (uint64_t stakes = unpack_u64(&from); stakes && !from.failed; stakes--)
		revive_stake(&from, hold);
	if (hold->stakes)
		hold->holding = lockspace_adopt(fs->space, id, lock_lost, hold);
	if (!hold->holding) {
		keep_drop(hold);
		return;
	}
	bool lost = !lockspace_is_held(hold->holding);
	revival->adopted += !lost;
	revival->lost += lost;
	/* It may not have been told to all who have to know. */
	if (lost)
		lock_lost(hold);
	else
		go_on(hold);
}

/* Of a pair both have to say so: one may have been unlinked. */
static void revive_links(struct revival *revival)
{
	struct link *link, *other, *next;

	LL_FOREACH(revival->links, link) {
		LL_FOREACH(revival->links, other) {
			if (strcmp(other->node->path, link->twin) == 0 &&
				strcmp(other->twin, link->node->path) == 0)
				break;
		}
		if (!other)
			continue;
		link->node->twin = other->node;
		link->node->shown_inode = link->shown_inode;
	}
	LL_FOREACH_SAFE(revival->links, link, next) {
		node_unref(link->node, 1);
		free(link->twin);
		free(link);
	}
}

void fs_revive(struct fs *fs)
{
	struct revival revival = {.fs = fs};

	ledger_each(fs->ledger, LEDGER_NODE, read_node, fs);
	ledger_each(fs->ledger, LEDGER_HANDLE, read_handle, fs);
	ledger_each(fs->ledger, LEDGER_AIM, read_aim, fs);
	lockspace_revive(fs->space);
	ledger_each(fs->ledger, LEDGER_HOLD, read_hold, &revival);
	revive_links(&revival);
	log_info("goes on with %zu locks that are held and %zu that were lost", revival.adopted,
		revival.lost);
}

/* --- a file of which nobody may have been told --- */

/* Whether anybody has it open, if perhaps through another handle. */
struct unsaid_search {
	struct fs *fs;
	struct search_job job;
	uint64_t handle; /* its number: it may be closed meanwhile */
	bool is_found;
};

static int on_found(struct search_job *job, size_t target, pid_t pid)
{
	container_of(job, struct unsaid_search, job)->is_found = true;
	return 0;
}

/* In doubt somebody has. */
static void on_searched(struct search_job *job, int result)
{
	struct unsaid_search *search = container_of(job, struct unsaid_search, job);
	struct fs *fs = search->fs;
	struct handle *handle = handle_by_number(fs, search->handle);
	bool is_open = search->is_found || result;

	fs_forget_unsaid(fs);
	if (!handle)
		return;
	if (is_open) {
		ledger_count(fs->ledger, handle->slot, 1);
		return;
	}
	stakes_close_handle(handle);
	handle_free(handle);
}

/* Whoever was killed in the moment between does not ask again, nor close what he was never given.
 */
static void look_for_opener(struct fs *fs, const struct handle *unsaid)
{
	struct unsaid_search *search = xzalloc(sizeof(*search));
	struct search_target target = {.inode = node_shown_inode(unsaid->node)};

	fs->unsaid_search = search;
	search->fs = fs;
	search->handle = unsaid->number;
	search->job = (struct search_job){.found = on_found, .done = on_searched};
	search_add(&search->job, &target, NULL);
	int error = search_start(fs->search, &search->job);
	if (error)
		on_searched(&search->job, error);
}

void fs_forget_unsaid(struct fs *fs)
{
	if (!fs->unsaid_search)
		return;
	search_cancel(&fs->unsaid_search->job);
	free(take(fs->unsaid_search));
}

void fs_revived(struct fs *fs)
{
	struct handle *unsaid = take(fs->unsaid);

	lockspace_revived(fs->space);
	forget_aims(fs);
	if (unsaid)
		look_for_opener(fs, unsaid);
}
