/* SPDX-License-Identifier: MIT */
/*
 * The memory is a row of slots, each of which keeps its capacity for ever.  An entry is changed by
 * writing it anew in a free slot, marking that as used, and only then marking the old one as free;
 * of two slots with one number the one of the higher version counts.  The kernel orders all that a
 * killed process has written before what others read, so the compiler is the only one to be kept
 * from changing the order.
 */
#include "base/ledger.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#include "base/log.h"
#include "base/util.h"

enum {
	SMALLEST = 128,
	CLASSES = 24,
	FIRST_SIZE = 64 * 1024,
	DAMAGED = 1,
};

struct header {
	char magic[8];
	uint64_t format;
	uint64_t end; /* of the slots so far */
	uint64_t incomplete;
};

struct slot {
	uint64_t capacity; /* with this header; a power of two */
	uint64_t kind;     /* LEDGER_NOTHING: it is free, and nothing below means anything */
	uint64_t number, version;
	uint64_t count;
	uint64_t size;
	char data[];
};

struct ledger {
	int fd;
	char *memory;
	size_t size;
	uint64_t numbers; /* of entries, so far */
	struct {
		ledger_slot *list;
		size_t count, room;
	} unused[CLASSES];
};

static const char magic[8] = "latchfs";

static struct header *header_of(const struct ledger *ledger)
{
	return (struct header *)(void *)ledger->memory;
}

static struct slot *slot_at(const struct ledger *ledger, ledger_slot at)
{
	return (struct slot *)(void *)(ledger->memory + at);
}

/* All that stands before it in the program is written before it. */
static void publish(uint64_t *to, uint64_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}

/* --- free slots --- */

static unsigned int class_of(size_t capacity)
{
	unsigned int class = 0;

	while (class < CLASSES - 1 && (size_t)SMALLEST << class < capacity)
		class ++;
	return class;
}

static void add_unused(struct ledger *ledger, ledger_slot at)
{
	unsigned int class = class_of(slot_at(ledger, at)->capacity);

	if (ledger->unused[class].count == ledger->unused[class].room) {
		ledger->unused[class].room = ledger->unused[class].room * 2 + 16;
		ledger->unused[class].list = xrealloc(ledger->unused[class].list,
			ledger->unused[class].room, sizeof(ledger_slot));
	}
	ledger->unused[class].list[ledger->unused[class].count++] = at;
}

static void make_free(struct ledger *ledger, ledger_slot at)
{
	publish(&slot_at(ledger, at)->kind, LEDGER_NOTHING);
	add_unused(ledger, at);
}

static bool grow(struct ledger *ledger, size_t needed)
{
	size_t size = ledger->size;

	while (size < needed)
		size *= 2;
	if (size == ledger->size)
		return true;
	if (ftruncate(ledger->fd, (off_t)size) < 0)
		return false;
	void *memory = mremap(ledger->memory, ledger->size, size, MREMAP_MAYMOVE);
	if (memory == MAP_FAILED)
		return false;
	ledger->memory = memory;
	ledger->size = size;
	return true;
}

/* Returns 0 if there is no memory for one. */
static ledger_slot take_slot(struct ledger *ledger, size_t size)
{
	unsigned int class = class_of(sizeof(struct slot) + size);
	size_t capacity = (size_t)SMALLEST << class;

	if (ledger->unused[class].count)
		return ledger->unused[class].list[--ledger->unused[class].count];
	ledger_slot at = header_of(ledger)->end;
	if (capacity < sizeof(struct slot) + size || !grow(ledger, at + capacity))
		return 0;
	slot_at(ledger, at)->capacity = capacity;
	slot_at(ledger, at)->kind = LEDGER_NOTHING;
	publish(&header_of(ledger)->end, at + capacity);
	return at;
}

/* --- opening --- */

int ledger_create(void)
{
	struct header header = {.format = LEDGER_FORMAT, .end = sizeof(header)};
	int fd = memfd_create("latchfs-ledger", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	memcpy(header.magic, magic, sizeof(magic));
	if (ftruncate(fd, FIRST_SIZE) == 0 &&
		pwrite(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header))
		return fd;
	int error = -errno;
	close(fd);
	return error;
}

struct newest {
	uint64_t number;
	ledger_slot at;
	UT_hash_handle hh;
};

/* Of an entry that was just being changed there are two. */
static void add_used(struct ledger *ledger, struct newest **table, ledger_slot at)
{
	const struct slot *slot = slot_at(ledger, at);
	struct newest *newest;

	if (slot->number > ledger->numbers)
		ledger->numbers = slot->number;
	HASH_FIND(hh, *table, &slot->number, sizeof(slot->number), newest);
	if (!newest) {
		newest = xzalloc(sizeof(*newest));
		newest->number = slot->number;
		newest->at = at;
		HASH_ADD(hh, *table, number, sizeof(newest->number), newest);
		return;
	}
	ledger_slot older = at;
	if (slot->version > slot_at(ledger, newest->at)->version) {
		older = newest->at;
		newest->at = at;
	}
	make_free(ledger, older);
}

static int read_slots(struct ledger *ledger)
{
	struct newest *table = NULL, *newest, *next;
	uint64_t end = header_of(ledger)->end, at = sizeof(struct header);

	while (at < end) {
		const struct slot *slot = slot_at(ledger, at);
		uint64_t capacity = slot->capacity;
		if (capacity < SMALLEST || capacity > end - at ||
			slot->size > capacity - sizeof(*slot))
			break;
		if (slot->kind == LEDGER_NOTHING)
			add_unused(ledger, at);
		else
			add_used(ledger, &table, at);
		at += capacity;
	}
	HASH_ITER(hh, table, newest, next) {
		HASH_DEL(table, newest);
		free(newest);
	}
	return at == end ? 0 : -EINVAL;
}

static int check(const struct ledger *ledger)
{
	const struct header *header = header_of(ledger);

	if (memcmp(header->magic, magic, sizeof(magic)) != 0 || header->format != LEDGER_FORMAT ||
		header->end > ledger->size)
		return -EINVAL;
	return 0;
}

struct ledger *ledger_open(int fd)
{
	struct ledger *ledger = xzalloc(sizeof(*ledger));
	struct stat status;

	ledger->fd = fd;
	if (fstat(fd, &status) == 0 && status.st_size >= FIRST_SIZE) {
		void *memory = mmap(
			NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		ledger->memory = memory == MAP_FAILED ? NULL : memory;
		ledger->size = (size_t)status.st_size;
	}
	if (ledger->memory && check(ledger) == 0 && read_slots(ledger) == 0)
		return ledger;
	log_error("what another process has left can't be read; was it of another version?");
	ledger_close(ledger);
	return NULL;
}

void ledger_close(struct ledger *ledger)
{
	if (!ledger)
		return;
	if (ledger->memory)
		munmap(ledger->memory, ledger->size);
	for (unsigned int class = 0; class < CLASSES; class ++)
		free(ledger->unused[class].list);
	free(ledger);
}

/* --- entries --- */

bool ledger_is_good(int fd)
{
	struct header header;

	return pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) &&
	       memcmp(header.magic, magic, sizeof(magic)) == 0 && header.format == LEDGER_FORMAT &&
	       !header.incomplete;
}

void ledger_put(struct ledger *ledger, ledger_slot *slot, enum ledger_kind kind, const void *data,
	size_t size)
{
	if (!ledger)
		return;
	ledger_slot at = take_slot(ledger, size);
	if (!at) {
		if (!header_of(ledger)->incomplete)
			log_warning("there is no memory for what another process would need to go "
				    "on with the locks: if this one dies, they are lost");
		publish(&header_of(ledger)->incomplete, DAMAGED);
		return;
	}
	const struct slot *old = *slot ? slot_at(ledger, *slot) : NULL;
	struct slot *new = slot_at(ledger, at);
	new->number = old ? old->number : ++ledger->numbers;
	new->version = old ? old->version + 1 : 1;
	new->count = old ? old->count : 0;
	new->size = size;
	memcpy(new->data, data, size);
	publish(&new->kind, kind);
	if (old)
		make_free(ledger, *slot);
	*slot = at;
}

void ledger_count(struct ledger *ledger, ledger_slot slot, uint64_t count)
{
	if (ledger && slot)
		publish(&slot_at(ledger, slot)->count, count);
}

void ledger_drop(struct ledger *ledger, ledger_slot *slot)
{
	if (ledger && *slot)
		make_free(ledger, *slot);
	*slot = 0;
}

struct found {
	ledger_slot at;
	uint64_t number;
};

static size_t find(const struct ledger *ledger, enum ledger_kind kind, struct found **list)
{
	size_t count = 0, room = 0;

	for (ledger_slot at = sizeof(struct header); at < header_of(ledger)->end;
		at += slot_at(ledger, at)->capacity) {
		const struct slot *slot = slot_at(ledger, at);
		if (slot->kind != kind)
			continue;
		if (count == room) {
			room = room * 2 + 64;
			*list = xrealloc(*list, room, sizeof(**list));
		}
		(*list)[count++] = (struct found){.at = at, .number = slot->number};
	}
	return count;
}

/* What fn puts may move the memory, and take the place of what is still to come. */
void ledger_each(struct ledger *ledger, enum ledger_kind kind, ledger_fn *fn, void *user)
{
	struct found *list = NULL;
	size_t count = find(ledger, kind, &list);

	for (size_t i = 0; i < count; i++) {
		const struct slot *slot = slot_at(ledger, list[i].at);
		if (slot->kind != kind || slot->number != list[i].number)
			continue;
		cleanup(free_ptr) char *copy = xzalloc(slot->size + 1);
		size_t size = slot->size;
		memcpy(copy, slot->data, size);
		fn(user, list[i].at, slot->count, copy, size);
	}
	free(list);
}
