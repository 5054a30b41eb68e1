/* SPDX-License-Identifier: MIT */
#include "base/regular_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int regular_file_open(const char *path, struct stat *attr)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	int error = fstat(fd, attr) < 0       ? -errno
		    : S_ISDIR(attr->st_mode)  ? -EISDIR
		    : !S_ISREG(attr->st_mode) ? -EINVAL
					      : 0;
	if (!error)
		return fd;
	close(fd);
	return error;
}

int regular_file_check(const char *path)
{
	struct stat attr;
	int fd = regular_file_open(path, &attr);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

const char *regular_file_reason(int error)
{
	return error == -EINVAL ? "it is not a regular file" : strerror(-error);
}
