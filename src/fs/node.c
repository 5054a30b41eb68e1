/* SPDX-License-Identifier: MIT */
#include "fs/node.h"

#include <string.h>

#include "base/util.h"
#include "event/loop.h"
#include "fs/fs.h"
#include "fs/handle.h"
#include "fs/revive.h"
#include "fs/stake.h"
#include "store/policy.h"

enum { FRESH_FOR = 1000, NOBODY = 65534 };

static const struct store_policy default_policy = {
	.hold = STORE_HOLD_CLOSE,
	.names = STORE_NAMES_HELD,
	.open = STORE_OPEN_PLAIN,
	.on_loss = STORE_ON_LOSS_ERROR,
	.dirs = STORE_DIRS_KEEP,
	.record = STORE_RECORD_YES,
	.mkdir = STORE_MKDIR_WRITE,
};

/* FNV-1a over the path and the kind: a name that changes its kind must change its number. */
uint64_t node_inode(const char *path, enum node_kind kind)
{
	static const char marks[] = {
		[NODE_FILE] = ' ', [NODE_DIRECTORY] = '/', [NODE_SYMLINK] = '@'};
	uint64_t hash = 0xcbf29ce484222325u;

	if (!*path)
		return NODE_ROOT_INODE;
	for (const unsigned char *c = (const unsigned char *)path; *c; c++)
		hash = (hash ^ *c) * 0x100000001b3u;
	hash = (hash ^ (unsigned char)marks[kind]) * 0x100000001b3u;
	/* 0 and 1 have a meaning. */
	return hash > NODE_ROOT_INODE ? hash : hash + 2;
}

struct node *node_by_inode(struct fs *fs, uint64_t inode)
{
	struct node *node;

	HASH_FIND(hh, fs->nodes, &inode, sizeof(inode), node);
	return node;
}

enum node_kind node_kind(const struct node *node)
{
	if (node->is_symlink)
		return NODE_SYMLINK;
	return node->is_directory ? NODE_DIRECTORY : NODE_FILE;
}

/* Two paths of one number would be one lock to the kernel, so the next free number is taken. */
static uint64_t free_inode(struct fs *fs, const char *path, enum node_kind kind)
{
	uint64_t inode = node_inode(path, kind);

	while (inode < NODE_ROOT_INODE || node_by_inode(fs, inode))
		inode++;
	return inode;
}

struct node *node_find(struct fs *fs, const char *path, enum node_kind kind)
{
	struct node *node;

	HASH_FIND(path_hh, fs->node_paths[kind], path, strlen(path), node);
	return node;
}

static struct node *node_new(
	struct fs *fs, struct node *parent, const char *path, enum node_kind kind)
{
	struct node *node = xzalloc(sizeof(*node));

	node->fs = fs;
	node->inode = free_inode(fs, path, kind);
	node->path = xstrdup(path);
	node->is_directory = kind == NODE_DIRECTORY;
	node->is_symlink = kind == NODE_SYMLINK;
	node->parent = parent;
	if (parent)
		node_ref(parent);
	HASH_ADD(hh, fs->nodes, inode, sizeof(node->inode), node);
	HASH_ADD_KEYPTR(path_hh, fs->node_paths[kind], node->path, strlen(node->path), node);
	fs->busy_nodes += node->is_directory;
	return node;
}

struct node *node_get(struct fs *fs, struct node *parent, const char *path, enum node_kind kind)
{
	struct node *node = node_find(fs, path, kind);

	if (!node)
		node = node_new(fs, parent, path, kind);
	node_ref(node);
	return node;
}

static void set_inode(struct node *node, uint64_t inode)
{
	HASH_DEL(node->fs->nodes, node);
	node->inode = inode;
	HASH_ADD(hh, node->fs->nodes, inode, sizeof(node->inode), node);
}

void node_restore_inode(struct node *node, uint64_t inode)
{
	struct node *other = node_by_inode(node->fs, inode);

	if (inode == node->inode || inode <= NODE_ROOT_INODE)
		return;
	/* The other one has its number only until its own entry is read. */
	if (other)
		set_inode(other, free_inode(node->fs, other->path, node_kind(other)));
	set_inode(node, inode);
}

void node_ref(struct node *node)
{
	node->references++;
}

static void node_free(struct node *node)
{
	node->fs->busy_nodes -= node->is_directory;
	HASH_DEL(node->fs->nodes, node);
	HASH_DELETE(path_hh, node->fs->node_paths[node_kind(node)], node);
	free(node->path);
	free(node);
}

void node_unref(struct node *node, uint64_t count)
{
	while (node) {
		struct node *parent = node->parent;
		node->references -= count < node->references ? count : node->references;
		if (node->references)
			return;
		node_free(node);
		node = parent;
		count = 1;
	}
}

void node_looked_up(struct node *node)
{
	node->lookups++;
	if (node->slot)
		ledger_count(node->fs->ledger, node->slot, node->lookups);
	else
		node_enter(node);
}

void node_forget(struct node *node, uint64_t count)
{
	struct ledger *ledger = node->fs->ledger;

	node->lookups -= count < node->lookups ? count : node->lookups;
	if (node->lookups)
		ledger_count(ledger, node->slot, node->lookups);
	else
		ledger_drop(ledger, &node->slot);
	node_unref(node, count);
}

void node_set_directory(struct node *node, const struct store_directory *directory)
{
	struct timespec started = node->fs->started;

	node->directory = *directory;
	node->read_at = loop_clock();
	/* One that has no key of its own: something below it makes it exist. */
	if (!directory->ctime.tv_sec)
		node->directory.atime = node->directory.mtime = node->directory.ctime = started;
	if (node->lookups || !node->parent)
		node_enter(node);
}

bool node_is_fresh(const struct node *node)
{
	if (!node->read_at)
		return false;
	if (loop_clock() - node->read_at < FRESH_FOR)
		return true;
	return node_policy(node).names == STORE_NAMES_ALWAYS;
}

struct store_policy node_policy(const struct node *node)
{
	struct store_policy policy = {0};

	for (; node; node = node->parent) {
		/* The root's are the mount's, before what the store says. */
		if (!node->parent)
			policy_inherit(&policy, &node->fs->options.policy);
		policy_inherit(&policy, &node->directory.policy);
	}
	policy_inherit(&policy, &default_policy);
	/* A name that open may have to wait for must be there before it. */
	if (policy.open == STORE_OPEN_LOCK)
		policy.names = STORE_NAMES_ALWAYS;
	return policy;
}

void node_directory_attr(const struct node *node, struct stat *attr)
{
	const struct store_directory *directory = &node->directory;
	/*
	 * The sticky bit that nobody has asked for is checked here alone: a kernel that checks it
	 * as well, and fs.protected_regular, refuse whoever opens a lock file of another user with
	 * O_CREAT.
	 */
	mode_t hidden = !directory->created && node->fs->kernel_checks ? S_ISVTX : 0;

	*attr = (struct stat){
		.st_ino = node->inode,
		.st_mode = S_IFDIR | (directory->mode & ~hidden),
		.st_nlink = 2,
		.st_uid = directory->uid,
		.st_gid = directory->gid,
		.st_blksize = 4096,
		.st_atim = directory->atime,
		.st_mtim = directory->mtime,
		.st_ctim = directory->ctime,
	};
}

/* How many bytes reading it gives. */
static off_t lock_size(
	const struct node *node, const struct record *record, uint64_t token, bool shared)
{
	if (!token || !record)
		return 0;
	if (node->is_symlink)
		return record->symlink ? (off_t)strlen(record->symlink) : 0;
	if (record->content_size)
		return (off_t)record->content_size;
	if (node_policy(node).record == STORE_RECORD_NO)
		return 0;
	cleanup(free_ptr) char *text = fs_record_text(record, token, shared, "held");
	return (off_t)strlen(text);
}

enum node_kind node_kind_shown(const struct fs *fs, bool is_symlink)
{
	return is_symlink && fs->has_symlinks ? NODE_SYMLINK : NODE_FILE;
}

void node_lock_attr(const struct node *node, const struct record *record, uint64_t token,
	bool shared, struct stat *attr)
{
	*attr = (struct stat){
		.st_ino = node_shown_inode(node),
		.st_mode = node->is_symlink ? S_IFLNK | 0777 : S_IFREG | 0666,
		.st_nlink = node->twin ? 2 : 1,
		.st_blksize = 4096,
		.st_size = lock_size(node, record, token, shared),
		.st_mtim = node->fs->started,
	};
	if (token && record) {
		attr->st_uid = record->known ? record->uid : NOBODY;
		attr->st_gid = record->known ? record->gid : NOBODY;
		/* Who calls a lock file stale by its age is to see that this one is alive. */
		attr->st_mtim = (struct timespec){.tv_sec = record->since};
		if (record->hold)
			clock_gettime(CLOCK_REALTIME, &attr->st_mtim);
	}
	attr->st_blocks = (attr->st_size + 511) / 512;
	attr->st_atim = attr->st_ctim = attr->st_mtim;
}

uint64_t node_shown_inode(const struct node *node)
{
	return node->shown_inode ? node->shown_inode : node->inode;
}

void node_link(struct node *source, struct node *node)
{
	node->shown_inode = node_shown_inode(source);
	node->twin = source;
	source->twin = node;
}

void node_unlink(struct node *node)
{
	if (node->twin)
		node->twin->twin = NULL;
	node->twin = NULL;
	node->shown_inode = 0;
}

size_t nodes_idle(const struct fs *fs)
{
	return HASH_COUNT(fs->nodes) - fs->busy_nodes;
}

char *node_child_path(const struct node *directory, const char *name)
{
	return *directory->path ? xasprintf("%s/%s", directory->path, name) : xstrdup(name);
}

void nodes_init(struct fs *fs)
{
	fs->root = node_get(fs, NULL, "", NODE_DIRECTORY);
	/* Until the store says something else. */
	fs->root->directory = (struct store_directory){.mode = fs->options.root_mode,
		.atime = fs->started,
		.mtime = fs->started,
		.ctime = fs->started};
}

void nodes_fini(struct fs *fs)
{
	struct node *node, *next;

	/* What is open keeps its node, whose parents it keeps: nothing is freed twice. */
	HASH_ITER(hh, fs->nodes, node, next) {
		node->references++;
	}
	HASH_ITER(hh, fs->nodes, node, next) {
		holds_free(node);
		while (node->handles)
			handle_free(node->handles);
	}
	HASH_ITER(hh, fs->nodes, node, next) {
		node_free(node);
	}
}
