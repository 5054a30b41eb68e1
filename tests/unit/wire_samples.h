/* SPDX-License-Identifier: MIT */
/* Answers of etcd's gateway, as versions 3.4 and 3.5 give them, for the tests that read them. */
#pragma once

#include "store/etcd/wire.h"

#define HEADER                                                                                     \
	"\"header\":{\"cluster_id\":\"14841639068965178418\","                                     \
	"\"member_id\":\"10276657743932975437\",\"revision\":\"17\",\"raft_term\":\"2\"}"

/* What is asked for a place in a queue. */
static const struct wire_shape join_shape = {.success = {{WIRE_PUT, WIRE_RANGE}, 2}};
static const struct wire_shape limited_join_shape = {
	.success = {{WIRE_PUT, WIRE_LIMITED_RANGE}, 2}};

static const char joined[] =
	"{" HEADER ",\"succeeded\":true,\"responses\":["
	"{\"response_put\":{\"header\":{\"revision\":\"17\"}}},"
	"{\"response_range\":{\"header\":{\"revision\":\"17\"},\"kvs\":["
	"{\"key\":\"YQ==\",\"create_revision\":\"9\",\"mod_revision\":\"12\",\"version\":\"2\","
	"\"value\":\"dg==\",\"lease\":\"7587879127637462530\"},"
	"{\"key\":\"YgBj\",\"create_revision\":\"17\",\"mod_revision\":\"17\",\"version\":\"1\"}],"
	"\"count\":\"2\"}}]}";

/* The same with blanks, numbers that are not strings, fields we don't know, and more cut off. */
static const char joined_otherwise[] =
	"{ \"header\" : {\n\t\"revision\" : 17 } ,\r\n \"succeeded\": true, \"new\": [{}, null],"
	"  \"responses\": [ {\"response_put\": {} }, { \"response_range\": { \"more\": true,"
	" \"kvs\": [ {\"key\":\"YQ==\", \"create_revision\": 9, \"mod_revision\": 12,"
	"  \"value\": \"dg==\", \"lease\": \"7587879127637462530\" },"
	" {\"create_revision\":\"17\", \"key\":\"YgBj\", \"mod_revision\": \"17\" } ] } } ] }\n";

/* And for a try. */
static const struct wire_shape try_shape = {.conditional = true,
	.success = {{WIRE_PUT}, 1},
	.failure = {{WIRE_RANGE, WIRE_LIMITED_RANGE}, 2}};

/* An empty range has no kvs at all. */
static const char refused[] =
	"{" HEADER ",\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"17\"}}},"
	"{\"response_range\":{\"header\":{\"revision\":\"17\"},\"kvs\":[{\"key\":\"YQ==\","
	"\"create_revision\":\"17\",\"mod_revision\":\"17\"}],\"more\":true,\"count\":\"2\"}}]}";
static const char tried[] = "{" HEADER ",\"succeeded\":true,\"responses\":["
			    "{\"response_put\":{\"header\":{\"revision\":\"17\"}}}]}";

/* Of a join, a try that fails, a leave and a try that succeeds. */
static const struct wire_shape leave_shape = {.success = {{WIRE_DELETE}, 1}};
static const char parts[] =
	"{" HEADER ",\"succeeded\":true,\"responses\":["
	"{\"response_put\":{\"header\":{\"revision\":\"17\"}}},"
	"{\"response_range\":{\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"9\"}]}},"
	"{\"response_txn\":{\"header\":{},\"responses\":[{\"response_range\":{}},"
	"{\"response_range\":{\"kvs\":[{\"key\":\"Yg==\",\"create_revision\":\"5\"}]}}]}},"
	"{\"response_delete_range\":{\"deleted\":\"1\"}},"
	"{\"response_txn\":{\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}}]}";

static const char renewed[] = "{\"result\":{" HEADER ",\"ID\":\"77\",\"TTL\":\"60\"}}\n";
static const char granted[] = "{" HEADER ",\"ID\":\"77\",\"TTL\":\"60\"}";

static const char lease_keys[] =
	"{" HEADER
	",\"ID\":\"77\",\"TTL\":\"59\",\"grantedTTL\":\"60\",\"keys\":[\"YQ==\",\"YgBj\"]}";

static const char deleted[] =
	"{\"result\":{" HEADER ",\"events\":["
	"{\"type\":\"DELETE\",\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"16\"}},"
	"{\"kv\":{\"key\":\"eA==\",\"create_revision\":\"9\",\"mod_revision\":\"17\"}},"
	"{\"type\":\"PUT\",\"kv\":{\"key\":\"eA==\",\"mod_revision\":\"17\"}},"
	"{\"type\":\"DELETE\",\"kv\":{\"key\":\"YgBj\",\"mod_revision\":\"17\"}}]}}";
