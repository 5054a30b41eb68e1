/* SPDX-License-Identifier: MIT */
#include "fs/metrics.h"

#include <utlist.h>

#include "base/buffer.h"
#include "base/metrics.h"
#include "base/usage.h"
#include "base/util.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/request.h"
#include "lock/lockspace.h"

static void write_info(const struct fs *fs, struct buffer *text)
{
	struct store_status status;

	fs->store->ops->status(fs->store, &status);
	cleanup(free_ptr) char *node = metric_label("node", fs->options.host);
	cleanup(free_ptr) char *prefix = metric_label("prefix", status.prefix);
	cleanup(free_ptr) char *labels = xasprintf(
		"version=\"%s\",store=\"%s\",%s,%s", LATCHFS_VERSION, status.kind, prefix, node);
	metric_head(text, "latchfs_info", "gauge", "The daemon.");
	metric_number(text, "latchfs_info", labels, 1);
	metric_gauge(text, "latchfs_start_time_seconds", (uint64_t)fs->started.tv_sec,
		"When it was started, since 1970.");
}

static void write_files(const struct fs *fs, struct buffer *text)
{
	const struct request *request;
	int requests;

	DL_COUNT2(fs->requests, request, requests, next_request);
	metric_gauge(text, "latchfs_handles", fs->handles.used, "Open files and directories.");
	metric_gauge(text, "latchfs_names", HASH_COUNT(fs->nodes), "Names that the kernel knows.");
	/* But for the one that is answered with this. */
	metric_gauge(text, "latchfs_requests_waiting", (uint64_t)requests - 1,
		"Requests of the kernel that are not answered.");
}

static void write_limits(const struct fs *fs, struct buffer *text)
{
	const struct shares *shares[LOCKSPACE_SHARES + 2];

	lockspace_shares(fs->space, shares);
	shares[LOCKSPACE_SHARES] = &fs->handles;
	shares[LOCKSPACE_SHARES + 1] = &fs->watched;
	shares_metrics(text, shares, ARRAY_SIZE(shares));
}

static void write_process(struct buffer *text)
{
	static const char cpu[] = "latchfs_process_cpu_seconds_total";
	struct usage usage;

	usage_read(&usage);
	metric_gauge(text, "latchfs_process_resident_memory_bytes", usage.resident,
		"Memory of the daemon that is in RAM.");
	metric_gauge(text, "latchfs_process_virtual_memory_bytes", usage.virtual,
		"Memory of the daemon.");
	metric_head(text, cpu, "counter", "Processor time of the daemon.");
	metric_seconds(text, cpu, NULL, usage.cpu);
	metric_gauge(
		text, "latchfs_process_open_fds", usage.files, "Descriptors that it has open.");
	metric_gauge(text, "latchfs_process_max_fds", usage.max_files,
		"Descriptors that it may have open.");
}

char *metrics_text(const struct fs *fs)
{
	struct buffer text = {0};

	write_info(fs, &text);
	lockspace_metrics(fs->space, &text);
	write_files(fs, &text);
	write_limits(fs, &text);
	fs->store->ops->metrics(fs->store, &text);
	write_process(&text);
	return buffer_take(&text);
}
