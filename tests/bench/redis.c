// SPDX-License-Identifier: MIT
/*
 * redis PORT [PROCESSES [SECONDS [WARMUP]]]
 *
 * Lock keys in Redis, as an aside: SET key value NX PX, then DEL, each process its own key over a
 * connection of its own.
 */
#include "load.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct client {
	redisContext *redis;
	int index;
};

static int port;

static void *begin(int index)
{
	struct client *client = zeroed(1, sizeof(*client));

	client->index = index;
	client->redis = redisConnect("127.0.0.1", port);
	if (!client->redis || client->redis->err)
		fail("redisConnect");
	return client;
}

/* Ends the process if Redis did not do it. */
static void expect(redisReply *reply, bool done)
{
	if (!reply || !done) {
		fprintf(stderr, "redis: %s\n", reply && reply->str ? reply->str : "refused");
		_exit(1);
	}
	freeReplyObject(reply);
}

static void take(void *self)
{
	struct client *client = self;
	redisReply *reply =
		redisCommand(client->redis, "SET lock-%d held NX PX 10000", client->index);

	expect(reply, reply && reply->type == REDIS_REPLY_STATUS);
}

static void give(void *self)
{
	struct client *client = self;
	redisReply *reply = redisCommand(client->redis, "DEL lock-%d", client->index);

	expect(reply, reply && reply->integer == 1);
}

int main(int argc, char **argv)
{
	struct load load = {.begin = begin, .take = take, .give = give};

	if (argc < 2) {
		fprintf(stderr, "usage: redis PORT [PROCESSES [SECONDS [WARMUP]]]\n");
		return 2;
	}
	port = atoi(argv[1]);
	load.processes = argc > 2 ? atoi(argv[2]) : 1;
	load.seconds = argc > 3 ? atof(argv[3]) : 2;
	load.warmup = argc > 4 ? atof(argv[4]) : 0.5;
	return load_run(&load);
}
