/* SPDX-License-Identifier: MIT */
#include "base/metrics.h"

#include <inttypes.h>

#include "base/buffer.h"
#include "base/util.h"

const struct histogram_scale scale_latency = {
	.bounds = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10000},
	.count = 12,
	.is_time = 1,
};

const struct histogram_scale scale_duration = {
	/* A minute is 60000, an hour 3600000, a day 86400000. */
	.bounds = {10, 100, 1000, 10000, 60000, 300000, 1800000, 3600000, 21600000, 86400000,
		604800000},
	.count = 11,
	.is_time = 1,
};

const struct histogram_scale scale_sizes = {
	.bounds = {1, 2, 4, 8, 16, 32, 64, 128},
	.count = 8,
};

void histogram_add(struct histogram *histogram, const struct histogram_scale *scale, int64_t value)
{
	size_t i = 0;

	while (i < scale->count && value > scale->bounds[i])
		i++;
	histogram->counts[i]++;
	histogram->sum += value;
}

/* --- text --- */

void metric_head(struct buffer *text, const char *name, const char *kind, const char *help)
{
	buffer_addf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* Everything but the value. */
static void begin(struct buffer *text, const char *name, const char *labels)
{
	if (labels)
		buffer_addf(text, "%s{%s} ", name, labels);
	else
		buffer_addf(text, "%s ", name);
}

void metric_number(struct buffer *text, const char *name, const char *labels, uint64_t value)
{
	begin(text, name, labels);
	buffer_addf(text, "%" PRIu64 "\n", value);
}

void metric_seconds(struct buffer *text, const char *name, const char *labels, int64_t milliseconds)
{
	begin(text, name, labels);
	buffer_add_seconds(text, milliseconds);
	buffer_add_string(text, "\n");
}

static void add_value(struct buffer *text, const struct histogram_scale *scale, int64_t value)
{
	if (scale->is_time)
		buffer_add_seconds(text, value);
	else
		buffer_addf(text, "%" PRId64, value);
}

void metric_histogram(struct buffer *text, const char *name, const char *labels,
	const struct histogram *histogram, const struct histogram_scale *scale)
{
	const char *comma = labels ? "," : "";
	cleanup(free_ptr) char *sum = xasprintf("%s_sum", name);
	cleanup(free_ptr) char *count = xasprintf("%s_count", name);
	const double unit = scale->is_time ? 1000 : 1;
	uint64_t total = 0;

	for (size_t i = 0; i <= scale->count; i++) {
		total += histogram->counts[i];
		buffer_addf(text, "%s_bucket{%s%sle=\"", name, labels ? labels : "", comma);
		/* Without zeros at the end, as everybody else writes them. */
		if (i < scale->count)
			buffer_addf(text, "%g", (double)scale->bounds[i] / unit);
		else
			buffer_add_string(text, "+Inf");
		buffer_addf(text, "\"} %" PRIu64 "\n", total);
	}
	begin(text, sum, labels);
	add_value(text, scale, histogram->sum);
	buffer_add_string(text, "\n");
	metric_number(text, count, labels, total);
}

void metric_counter(struct buffer *text, const char *name, uint64_t value, const char *help)
{
	metric_head(text, name, "counter", help);
	metric_number(text, name, NULL, value);
}

void metric_gauge(struct buffer *text, const char *name, uint64_t value, const char *help)
{
	metric_head(text, name, "gauge", help);
	metric_number(text, name, NULL, value);
}

void metric_gauge_seconds(
	struct buffer *text, const char *name, int64_t milliseconds, const char *help)
{
	metric_head(text, name, "gauge", help);
	metric_seconds(text, name, NULL, milliseconds);
}

char *metric_label(const char *name, const char *value)
{
	struct buffer text = {0};

	buffer_addf(&text, "%s=\"", name);
	while (*value) {
		const char *begin_of = value;
		if (!skip_printable(&value)) {
			buffer_add_string(&text, "?");
			continue;
		}
		if (*begin_of == '"' || *begin_of == '\\')
			buffer_add_string(&text, "\\");
		buffer_add(&text, begin_of, (size_t)(value - begin_of));
	}
	buffer_add_string(&text, "\"");
	return buffer_take(&text);
}
