/* SPDX-License-Identifier: MIT */
/*
 * The memory is a header and a row of slots.  An entry is changed by writing it anew in a free
 * slot, marking that as used, and only then marking the old one as free; of two slots with one
 * number the one of the higher version counts.  The kernel orders all that a killed process has
 * written before what others read, so the compiler is the only one to be kept from changing the
 * order.
 *
 * Slots are those of a buddy allocator: each begins at a multiple of its capacity, a power of two.
 * To halve a free one is to write the header of its second half and then its capacity; to join two,
 * which ledger_tidy does, just the capacity of the first.
 */
#include "base/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#include "base/log.h"
#include "base/util.h"

enum {
	SMALLEST = 128,
	CLASSES = 32,
	PAGE = 4096,
	FIRST = PAGE, /* where the slots begin */
	FIRST_SIZE = 64 * 1024,
	DAMAGED = 1,
	WORTH_IT = 256 * 1024, /* bytes that are free, for ledger_tidy */
};

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

struct header {
	char magic[8];
	uint64_t format;
	uint64_t end; /* of the slots so far */
	uint64_t incomplete;
};

struct slot {
	uint64_t capacity; /* with this header */
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
	size_t free_size; /* of the slots that nothing is in, together */
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
	uint64_t capacity = slot_at(ledger, at)->capacity;
	unsigned int class = class_of(capacity);

	if (ledger->unused[class].count == ledger->unused[class].room) {
		ledger->unused[class].room = ledger->unused[class].room * 2 + 16;
		ledger->unused[class].list = xrealloc(ledger->unused[class].list,
			ledger->unused[class].room, sizeof(ledger_slot));
	}
	ledger->unused[class].list[ledger->unused[class].count++] = at;
	ledger->free_size += capacity;
}

static void forget_unused(struct ledger *ledger)
{
	for (unsigned int class = 0; class < CLASSES; class ++)
		free(ledger->unused[class].list);
	memset(ledger->unused, 0, sizeof(ledger->unused));
	ledger->free_size = 0;
}

static void make_free(struct ledger *ledger, ledger_slot at)
{
	publish(&slot_at(ledger, at)->kind, LEDGER_NOTHING);
	add_unused(ledger, at);
}

/* As many slots again, all of them one. */
static bool grow(struct ledger *ledger)
{
	uint64_t end = header_of(ledger)->end, more = end - FIRST;
	size_t size = end + more;

	if (ftruncate(ledger->fd, (off_t)size) < 0)
		return false;
	void *memory = mremap(ledger->memory, ledger->size, size, MREMAP_MAYMOVE);
	if (memory == MAP_FAILED)
		return false;
	ledger->memory = memory;
	ledger->size = size;
	slot_at(ledger, end)->capacity = more;
	slot_at(ledger, end)->kind = LEDGER_NOTHING;
	publish(&header_of(ledger)->end, size);
	add_unused(ledger, end);
	return true;
}

/* The smallest that are large enough; CLASSES if there are none. */
static unsigned int class_with_unused(const struct ledger *ledger, unsigned int class)
{
	while (class < CLASSES && !ledger->unused[class].count)
		class ++;
	return class;
}

/* Returns 0 if there is no memory for one. */
static ledger_slot take_slot(struct ledger *ledger, size_t size)
{
	unsigned int wanted = class_of(sizeof(struct slot) + size), class;
	size_t capacity = (size_t)SMALLEST << wanted;

	if (capacity < sizeof(struct slot) + size)
		return 0;
	while ((class = class_with_unused(ledger, wanted)) == CLASSES) {
		if (!grow(ledger))
			return 0;
	}
	ledger_slot at = ledger->unused[class].list[--ledger->unused[class].count];
	ledger->free_size -= (size_t)SMALLEST << class;
	for (size_t half = (size_t)SMALLEST << class; half > capacity;) {
		half /= 2;
		slot_at(ledger, at + half)->capacity = half;
		slot_at(ledger, at + half)->kind = LEDGER_NOTHING;
		publish(&slot_at(ledger, at)->capacity, half);
		add_unused(ledger, at + half);
	}
	return at;
}

static bool is_free(const struct ledger *ledger, ledger_slot at, uint64_t capacity)
{
	const struct slot *slot = slot_at(ledger, at);

	return slot->kind == LEDGER_NOTHING && slot->capacity == capacity;
}

/* Returns whether any two were joined. */
static bool join_once(struct ledger *ledger)
{
	uint64_t end = header_of(ledger)->end, capacity;
	bool joined = false;

	for (ledger_slot at = FIRST; at < end; at += capacity) {
		capacity = slot_at(ledger, at)->capacity;
		if ((at - FIRST) % (2 * capacity) || at + capacity >= end ||
			!is_free(ledger, at, capacity) || !is_free(ledger, at + capacity, capacity))
			continue;
		capacity *= 2;
		publish(&slot_at(ledger, at)->capacity, capacity);
		joined = true;
	}
	return joined;
}

/* The memory of a free one but for its header, which is never needed again. */
static void give_back(const struct ledger *ledger, ledger_slot at)
{
	uint64_t capacity = slot_at(ledger, at)->capacity;

	if (capacity > PAGE)
		(void)fallocate(ledger->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)(at + PAGE), (off_t)(capacity - PAGE));
}

void ledger_tidy(struct ledger *ledger)
{
	if (!ledger || ledger->free_size < WORTH_IT || ledger->free_size < ledger->size / 2)
		return;
	while (join_once(ledger))
		continue;
	forget_unused(ledger);
	for (ledger_slot at = FIRST; at < header_of(ledger)->end;
		at += slot_at(ledger, at)->capacity) {
		if (slot_at(ledger, at)->kind != LEDGER_NOTHING)
			continue;
		add_unused(ledger, at);
		give_back(ledger, at);
	}
}

/* --- opening --- */

int ledger_create(void)
{
	struct header header = {.format = LEDGER_FORMAT, .end = FIRST + FIRST_SIZE};
	struct slot slot = {.capacity = FIRST_SIZE};
	int fd = memfd_create("latchfs-ledger", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

	/* Older kernels do not know that it is no program, newer ones may insist on it. */
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("latchfs-ledger", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	memcpy(header.magic, magic, sizeof(magic));
	if (ftruncate(fd, FIRST + FIRST_SIZE) == 0 &&
		pwrite(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) &&
		pwrite(fd, &slot, sizeof(slot), FIRST) == (ssize_t)sizeof(slot))
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
	uint64_t end = header_of(ledger)->end, at = FIRST;

	while (at < end) {
		const struct slot *slot = slot_at(ledger, at);
		uint64_t capacity = slot->capacity;
		bool is_free = slot->kind == LEDGER_NOTHING;
		if (capacity < SMALLEST || capacity > end - at ||
			(!is_free && slot->size > capacity - sizeof(*slot)))
			break;
		if (is_free)
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
		header->end < FIRST || header->end > ledger->size)
		return -EINVAL;
	return 0;
}

struct ledger *ledger_open(int fd)
{
	struct ledger *ledger = xzalloc(sizeof(*ledger));
	struct stat status;

	ledger->fd = fd;
	if (fstat(fd, &status) == 0 && status.st_size >= FIRST + FIRST_SIZE) {
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
	forget_unused(ledger);
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
				    "on with the locks: if this one dies, they are lost (%s)",
				strerror(errno));
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

	for (ledger_slot at = FIRST; at < header_of(ledger)->end;
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
