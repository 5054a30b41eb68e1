/* SPDX-License-Identifier: MIT */
/* What is left in shared memory by a process that is killed at any moment. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/ledger.h"
#include "base/pack.h"
#include "base/ranges.h"
#include "base/util.h"

enum { ENTRIES = 40, LARGEST = 3000 };

/* An entry that says of itself whether it is whole. */
struct entry {
	uint64_t index, turn, size;
	unsigned char fill[LARGEST];
};

static size_t compose(struct entry *entry, uint64_t index, uint64_t turn)
{
	entry->index = index;
	entry->turn = turn;
	entry->size = turn * 131 % LARGEST;
	memset(entry->fill, (int)(turn % 251), entry->size);
	return offsetof(struct entry, fill) + entry->size;
}

struct seen {
	uint64_t turns[ENTRIES]; /* + 1; 0: not there */
	uint64_t counts[ENTRIES];
	ledger_slot slots[ENTRIES];
};

static void see(void *user, ledger_slot slot, uint64_t count, const void *data, size_t size)
{
	const struct entry *entry = data;
	struct entry same;
	struct seen *seen = user;

	assert_true(entry->index < ENTRIES);
	assert_int_equal(seen->turns[entry->index], 0);
	assert_int_equal(size, compose(&same, entry->index, entry->turn));
	assert_memory_equal(data, &same, size);
	seen->turns[entry->index] = entry->turn + 1;
	seen->counts[entry->index] = count;
	seen->slots[entry->index] = slot;
}

static void test_entries(void **state)
{
	int fd = ledger_create();
	struct ledger *ledger = ledger_open(fd);
	ledger_slot a = 0, b = 0, other = 0;
	struct entry entry;
	struct seen seen = {0};

	ledger_put(ledger, &a, LEDGER_NODE, &entry, compose(&entry, 1, 10));
	ledger_put(ledger, &b, LEDGER_NODE, &entry, compose(&entry, 2, 20));
	ledger_put(ledger, &other, LEDGER_HANDLE, &entry, compose(&entry, 3, 30));
	ledger_count(ledger, a, 7);
	ledger_put(ledger, &a, LEDGER_NODE, &entry, compose(&entry, 1, 11));
	ledger_drop(ledger, &b);
	assert_int_equal(b, 0);
	ledger_drop(ledger, &b);
	ledger_close(ledger);

	ledger = ledger_open(fd);
	ledger_each(ledger, LEDGER_NODE, see, &seen);
	assert_int_equal(seen.turns[1], 12);
	assert_int_equal(seen.counts[1], 7);
	assert_int_equal(seen.turns[2], 0);
	assert_int_equal(seen.turns[3], 0);
	assert_true(ledger_is_good(fd));
	ledger_close(ledger);
	close(fd);
}

/* The memory that is left unused does not grow with the number of changes. */
static void test_is_used_again(void **state)
{
	int fd = ledger_create();
	struct ledger *ledger = ledger_open(fd);
	ledger_slot slots[ENTRIES] = {0};
	struct entry entry;

	for (uint64_t turn = 0; turn < 100000; turn++) {
		uint64_t index = turn % ENTRIES;
		if (turn % 3)
			ledger_put(ledger, &slots[index], LEDGER_NODE, &entry,
				compose(&entry, index, turn));
		else
			ledger_drop(ledger, &slots[index]);
	}
	assert_true(lseek(fd, 0, SEEK_END) < 4000 * 1000L);
	ledger_close(ledger);
	close(fd);
}

static size_t kib_of(int fd)
{
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	return (size_t)status.st_blocks / 2;
}

/* Most of what many entries took is given back when they have gone, whatever stays between them. */
static void test_gives_memory_back(void **state)
{
	enum { MANY = 20000, STAY = 50 };
	int fd = ledger_create();
	struct ledger *ledger = ledger_open(fd);
	static ledger_slot slots[MANY];
	struct entry entry;
	struct seen seen = {0};

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < MANY; i++)
			ledger_put(ledger, &slots[i],
				i % (MANY / STAY) ? LEDGER_HANDLE : LEDGER_NODE, &entry,
				compose(&entry, i / (MANY / STAY) % ENTRIES, i % 7));
		size_t full = kib_of(fd);
		assert_true(full > MANY / 4);
		ledger_tidy(ledger);
		assert_int_equal(kib_of(fd), full);
		for (size_t i = 0; i < MANY; i++) {
			if (i % (MANY / STAY))
				ledger_drop(ledger, &slots[i]);
		}
		ledger_tidy(ledger);
		assert_true(kib_of(fd) < full / 5);
	}
	for (size_t i = ENTRIES; i < STAY; i++)
		ledger_drop(ledger, &slots[i * (MANY / STAY)]);
	ledger_close(ledger);
	ledger = ledger_open(fd);
	assert_non_null(ledger);
	ledger_each(ledger, LEDGER_NODE, see, &seen);
	for (size_t i = 0; i < ENTRIES; i++)
		assert_int_equal(seen.turns[i], i * (MANY / STAY) % 7 + 1);
	ledger_close(ledger);
	close(fd);
}

/* Something large that comes and goes, so that there is always something to tidy. */
static void come_and_go(struct ledger *ledger)
{
	static const char large[500 * 1000];
	ledger_slot slot = 0;

	ledger_put(ledger, &slot, LEDGER_HANDLE, large, sizeof(large));
	ledger_drop(ledger, &slot);
	ledger_tidy(ledger);
}

/* Changes entries for ever; `done` is how far it has got for certain. */
static void work(int fd, uint64_t *done)
{
	struct ledger *ledger = ledger_open(fd);
	struct seen seen = {0};
	struct entry entry;
	uint64_t turn = *done;

	ledger_each(ledger, LEDGER_NODE, see, &seen);
	for (;; turn++) {
		uint64_t index = turn * 7 % ENTRIES;
		if (turn % 5)
			ledger_put(ledger, &seen.slots[index], LEDGER_NODE, &entry,
				compose(&entry, index, turn));
		else
			ledger_drop(ledger, &seen.slots[index]);
		ledger_count(ledger, seen.slots[index], turn);
		if (turn % 64 == 0)
			come_and_go(ledger);
		__atomic_store_n(done, turn + 1, __ATOMIC_RELEASE);
	}
}

/* All but the change that was under way is there, and of that it is one or the other. */
static void check(int fd, uint64_t done)
{
	struct ledger *ledger = ledger_open(fd);
	struct seen seen = {0};

	assert_non_null(ledger);
	ledger_each(ledger, LEDGER_NODE, see, &seen);
	for (uint64_t back = 0; back < ENTRIES && back < done; back++) {
		uint64_t turn = done - 1 - back, index = turn * 7 % ENTRIES;
		if (index == done * 7 % ENTRIES)
			continue;
		assert_int_equal(seen.turns[index], turn % 5 ? turn + 1 : 0);
		if (turn % 5)
			assert_int_equal(seen.counts[index], turn);
	}
	uint64_t index = done * 7 % ENTRIES, before = done - ENTRIES;
	if (done >= ENTRIES && seen.turns[index] != (done % 5 ? done + 1 : 0))
		assert_int_equal(seen.turns[index], before % 5 ? before + 1 : 0);
	ledger_close(ledger);
}

static void test_killed_at_any_moment(void **state)
{
	enum { KILLS = 300 };
	int fd = ledger_create();
	uint64_t *done = mmap(
		NULL, sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < KILLS; i++) {
		uint64_t before = *done;
		pid_t pid = fork();
		if (pid == 0)
			work(fd, done);
		while (__atomic_load_n(done, __ATOMIC_ACQUIRE) < before + 50 + (uint64_t)i % 97)
			continue;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		check(fd, *done);
	}
	munmap(done, sizeof(*done));
	close(fd);
}

/* A few changes, each of which is known by its number. */
enum { CHANGES = 40, CHANGED = 6 };

/* Of a turn that makes an entry of 20 bytes times the change's number. */
enum { STRIDE = 55420 };

static bool drops(uint64_t change)
{
	return change % 4 == 3;
}

static void change(struct ledger *ledger, ledger_slot *slots, uint64_t number)
{
	uint64_t index = number % CHANGED;
	struct entry entry;

	if (drops(number))
		ledger_drop(ledger, &slots[index]);
	else
		ledger_put(ledger, &slots[index], LEDGER_NODE, &entry,
			compose(&entry, index, number * STRIDE));
	if (number % 5 == 0)
		ledger_tidy(ledger);
}

/* What see() finds after so many of them. */
static uint64_t turn_after(uint64_t index, uint64_t changes)
{
	uint64_t turn = 0;

	for (uint64_t number = index; number < changes; number += CHANGED)
		turn = drops(number) ? 0 : number * STRIDE + 1;
	return turn;
}

/* Another process that is killed now leaves this. */
static void check_copy(int fd, uint64_t done)
{
	struct seen seen = {0};
	struct stat status;
	int copy = memfd_create("copy", MFD_CLOEXEC);

	assert_int_equal(fstat(fd, &status), 0);
	char *memory = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(memory != MAP_FAILED);
	assert_int_equal(write(copy, memory, (size_t)status.st_size), status.st_size);
	munmap(memory, (size_t)status.st_size);
	struct ledger *ledger = ledger_open(copy);
	assert_non_null(ledger);
	ledger_each(ledger, LEDGER_NODE, see, &seen);
	for (uint64_t index = 0; index < CHANGED; index++) {
		if (seen.turns[index] != turn_after(index, done))
			assert_int_equal(seen.turns[index], turn_after(index, done + 1));
	}
	ledger_close(ledger);
	close(copy);
}

static void make_changes(int fd, uint64_t *done)
{
	struct ledger *ledger = ledger_open(fd);
	ledger_slot slots[CHANGED] = {0};

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	for (uint64_t number = 0; number < CHANGES; number++) {
		change(ledger, slots, number);
		__atomic_store_n(done, number + 1, __ATOMIC_RELEASE);
	}
	_exit(0);
}

/* All that tells how the slots lie, as one number; what they contain comes before it. */
static uint64_t layout(const uint64_t *memory, size_t size)
{
	enum { FIRST = 4096, WORDS = 6 };
	uint64_t hash = 0;

	for (size_t at = FIRST; at < size;) {
		const uint64_t *slot = memory + at / sizeof(*slot);
		for (size_t word = 0; word < WORDS; word++)
			hash = hash * 31 + slot[word];
		assert_true(slot[0] > 0);
		at += slot[0];
	}
	return hash;
}

/* Whichever instruction is the last. */
static void test_killed_at_every_moment(void **state)
{
	static const char large[500 * 1000];
	int fd = ledger_create(), wait_status;
	struct ledger *ledger = ledger_open(fd);
	ledger_slot slot = 0;
	size_t checks = 0;
	uint64_t before = 0;
	uint64_t *done = mmap(
		NULL, sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	/* So much is free that it is worth it to tidy. */
	ledger_put(ledger, &slot, LEDGER_HANDLE, large, sizeof(large));
	ledger_drop(ledger, &slot);
	ledger_close(ledger);
	size_t size = (size_t)lseek(fd, 0, SEEK_END);
	const uint64_t *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	pid_t pid = fork();
	if (pid == 0)
		make_changes(fd, done);
	while (waitpid(pid, &wait_status, 0) == pid && WIFSTOPPED(wait_status)) {
		uint64_t now = layout(memory, size);
		if (now != before) {
			check_copy(fd, *done);
			checks++;
		}
		before = now;
		ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
	}
	assert_true(WIFEXITED(wait_status) && *done == CHANGES);
	assert_true(checks > 4UL * CHANGES);
	munmap(done, sizeof(*done));
	close(fd);
}

static void test_what_is_none(void **state)
{
	char page[64 * 1024] = "something else";
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_null(ledger_open(fd));
	assert_false(ledger_is_good(fd));
	assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	assert_null(ledger_open(fd));
	close(fd);
}

static void test_packing(void **state)
{
	struct buffer buffer = {0};
	size_t size;
	int number = 5, same = 0;

	pack_u64(&buffer, UINT64_MAX);
	pack_string(&buffer, NULL);
	pack_string(&buffer, "");
	pack_bytes(&buffer, "a\0b", 3);
	pack_bytes(&buffer, &number, sizeof(number));
	struct unpack from = {.data = buffer.data, .size = buffer.size};
	assert_true(unpack_u64(&from) == UINT64_MAX);
	assert_null(unpack_string(&from, NULL));
	cleanup(free_ptr) char *empty = unpack_string(&from, NULL);
	assert_string_equal(empty, "");
	cleanup(free_ptr) char *bytes = unpack_string(&from, &size);
	assert_int_equal(size, 3);
	assert_memory_equal(bytes, "a\0b", 4);
	unpack_bytes(&from, &same, sizeof(same));
	assert_int_equal(same, 5);
	assert_false(from.failed);
	assert_true(unpack_u64(&from) == 0 && from.failed);
	from = (struct unpack){.data = buffer.data, .size = 12};
	unpack_u64(&from);
	assert_null(unpack_string(&from, NULL));
	assert_true(from.failed);
	buffer_fini(&buffer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_is_used_again),
		cmocka_unit_test(test_gives_memory_back),
		cmocka_unit_test(test_killed_at_any_moment),
		cmocka_unit_test(test_killed_at_every_moment),
		cmocka_unit_test(test_what_is_none),
		cmocka_unit_test(test_packing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
