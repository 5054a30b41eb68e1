/* SPDX-License-Identifier: MIT */
/* Memory that is locked only if that takes none away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants these before it. */
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/memory.h"

/* More than this program needs, and less than it asks for later. */
enum { LIMIT = 8 * 1024 * 1024, MUCH = 4 * LIMIT };

static void drop_capability(int capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		_exit(2);
	data[capability / 32].effective &= ~(1U << (capability % 32));
	if (syscall(SYS_capset, &header, data) < 0)
		_exit(2);
}

static int allocate_much(void)
{
	memory_init();
	char *much = malloc(MUCH);
	if (!much)
		return 1;
	memset(much, 1, MUCH);
	free(much);
	memory_tidy();
	much = malloc(MUCH);
	free(much);
	return much ? 0 : 1;
}

/* As root of a container, with a limit that is larger than the process is at first. */
static void test_a_limit_of_locked_memory(void **state)
{
	struct rlimit limit = {.rlim_cur = LIMIT, .rlim_max = LIMIT};
	int status;

	pid_t pid = fork();
	if (pid == 0) {
		drop_capability(CAP_IPC_LOCK);
		_exit(setrlimit(RLIMIT_MEMLOCK, &limit) < 0 ? 2 : allocate_much());
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_limit_of_locked_memory)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
