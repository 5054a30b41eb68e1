/* SPDX-License-Identifier: MIT */
/*
 * The watch's stream: however it is cut into pieces, the same comes of it.
 *
 * The first byte says how: it is the size of the pieces, 0 for the whole at once.  A stream that
 * the watch has had enough of is opened again, and goes on with what is left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/util.h"
#include "event/http.h"
#include "fuzz.h"
#include "machine.h"
#include "store/etcd/client.h"
#include "store/etcd/watch.h"

/* What has happened, to be compared. */
struct listener {
	struct etcd_watch watch;
	struct buffer news;
	uint64_t last; /* revision told since it was opened */
	bool telling;  /* deletes are being told */
};

/* --- in place of store/etcd/client.c --- */

struct http_pool *etcd_client_stream_pool(struct etcd_client *client)
{
	return NULL;
}

const char *etcd_client_endpoint(const struct etcd_client *client)
{
	return "http://one:2379";
}

const char *etcd_client_authorization(const struct etcd_client *client)
{
	return NULL;
}

int etcd_client_timeout(const struct etcd_client *client)
{
	return 5000;
}

void etcd_client_blame(struct etcd_client *client, const char *url)
{
}

void etcd_client_token_refused(struct etcd_client *client)
{
}

int etcd_backoff(unsigned int failures)
{
	return 10;
}

/* --- the watch's owner --- */

static struct listener *listener_of(struct etcd_watch *watch)
{
	return container_of(watch, struct listener, watch);
}

static void on_deleted(struct etcd_watch *watch, const char *key, size_t size, uint64_t revision)
{
	struct listener *listener = listener_of(watch);

	require(listener->telling);
	require(revision && revision >= listener->last && revision < watch->next);
	listener->last = revision;
	require(key[size] == '\0');
	buffer_addf(&listener->news, "%llu:%zu:", (unsigned long long)revision, size);
	buffer_add(&listener->news, key, size);
}

/* Every delete is between the two. */
static void on_telling(struct etcd_watch *watch, bool more)
{
	struct listener *listener = listener_of(watch);

	require(more || listener->telling);
	listener->telling = more;
}

static void on_gap(struct etcd_watch *watch)
{
	buffer_add_string(&listener_of(watch)->news, "gap;");
}

static void on_open(struct etcd_watch *watch)
{
	buffer_add_string(&listener_of(watch)->news, "open;");
	listener_of(watch)->last = 0;
}

static const struct etcd_watch_events events = {
	.deleted = on_deleted, .telling = on_telling, .gap = on_gap, .open = on_open};

/* Line by line, so that what the watch throws away does not depend on the pieces. */
static void feed(struct machine *machine, const char *line, size_t size, size_t piece)
{
	struct http_request *stream = machine_stream(machine);

	for (size_t at = 0; at < size && stream && stream == machine_stream(machine); at += piece)
		machine_stream_data(machine, line + at, size - at < piece ? size - at : piece);
	if (!machine_stream(machine))
		machine_advance(machine, 100);
}

static char *listen_to(const uint8_t *data, size_t size, size_t piece)
{
	struct machine *machine = machine_new();
	struct listener listener = {0};

	etcd_watch_init(&listener.watch, machine_loop(machine), NULL, "/p/", "/p0", 1000, &events);
	etcd_watch_start(&listener.watch, 5);
	while (size) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t length = end ? (size_t)(end - data) + 1 : size;
		feed(machine, (const char *)data, length, piece ? piece : length);
		data += length;
		size -= length;
	}
	etcd_watch_fini(&listener.watch);
	machine_free(machine);
	return buffer_take(&listener.news);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	char *whole = listen_to(data + 1, size - 1, 0);
	char *pieces = listen_to(data + 1, size - 1, data[0]);
	require(strcmp(whole, pieces) == 0);
	free(whole);
	free(pieces);
	return 0;
}
