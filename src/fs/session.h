/* SPDX-License-Identifier: MIT */
/* What the files that know libfuse share: the session, which is mounted, and requests of the
 * kernel. */
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <linux/fuse.h>

#include "fs/attach.h"
#include "fs/fs.h"
#include "fs/mount.h"
#include "fs/request.h"

/* In a request's number: it is asked again.  The kernel's older headers do not have it. */
#define SESSION_RESENT ((uint64_t)1 << 63)

struct mount {
	struct fs fs;
	struct fuse_session *session;
	struct fuse_buf buffer;
	struct loop_fd watch;
	bool mounted;
	struct attachment attachment;
	uint64_t unique;  /* of the request that is being processed */
	bool can_resend;  /* the kernel */
	bool is_libfuses; /* it is libfuse that has mounted, and is to unmount */
	bool is_resumed;  /* it was another process that has mounted */
	bool is_resuming; /* and what that one has not answered is still being asked */
	int reaper;
	const struct mount_events *events;
	void *user;
};

/* calls.c: what the kernel asks. */
extern const struct fuse_lowlevel_ops session_operations;

/* reply.c */
/* One that was just read. */
struct request *request_new(fuse_req_t req, const char *name_of_op);
void request_free(struct request *request);
