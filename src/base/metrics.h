/* SPDX-License-Identifier: MIT */
/*
 * What is counted, and its text form for Prometheus.
 *
 * Counters are plain numbers of whoever counts.  A label has few values, known beforehand: never
 * the name of a lock, of which there may be any number.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buffer;

/* The upper bounds of a histogram's buckets, of which there is one more: without a bound. */
enum { HISTOGRAM_BOUNDS = 12 };
struct histogram_scale {
	int64_t bounds[HISTOGRAM_BOUNDS];
	size_t count;
	int is_time; /* values are milliseconds, to be shown as seconds */
};
extern const struct histogram_scale scale_latency;  /* of requests: a millisecond to ten seconds */
extern const struct histogram_scale scale_duration; /* of locks: ten milliseconds to a week */
extern const struct histogram_scale scale_sizes;    /* powers of two */

/* A zeroed one is empty.  It is always used with the same scale. */
struct histogram {
	uint64_t counts[HISTOGRAM_BOUNDS + 1];
	int64_t sum;
};

void histogram_add(struct histogram *histogram, const struct histogram_scale *scale, int64_t value);

/* What stands before the values of a metric; kind: "counter", "gauge" or "histogram". */
void metric_head(struct buffer *text, const char *name, const char *kind, const char *help);
/* A value; labels as metric_label gives them, with a comma between several, or NULL. */
void metric_number(struct buffer *text, const char *name, const char *labels, uint64_t value);
void metric_seconds(
	struct buffer *text, const char *name, const char *labels, int64_t milliseconds);
void metric_histogram(struct buffer *text, const char *name, const char *labels,
	const struct histogram *histogram, const struct histogram_scale *scale);

/* Head and value of those without labels. */
void metric_counter(struct buffer *text, const char *name, uint64_t value, const char *help);
void metric_gauge(struct buffer *text, const char *name, uint64_t value, const char *help);
void metric_gauge_seconds(
	struct buffer *text, const char *name, int64_t milliseconds, const char *help);

/* name="value", whatever is in the value; the caller frees it. */
char *metric_label(const char *name, const char *value);
