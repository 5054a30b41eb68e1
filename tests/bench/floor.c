// SPDX-License-Identifier: MIT
/*
 * floor URL [PROCESSES [SECONDS [WARMUP]]]
 *
 * The least that a lock on etcd's JSON gateway can cost: put a key that is attached to a lease,
 * delete it, by one libcurl handle over one kept connection.  Nobody else is looked at.
 */
#include "load.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct client {
	CURL *curl;
	char answer[4096];
	size_t used;
	char put[256], delete[256]; /* bodies */
};

static const char *url;

static size_t on_data(char *data, size_t size, size_t n, void *self)
{
	struct client *client = self;
	size_t room = sizeof(client->answer) - 1 - client->used, bytes = size * n;

	if (bytes > room)
		return 0;
	memcpy(client->answer + client->used, data, bytes);
	client->used += bytes;
	client->answer[client->used] = '\0';
	return bytes;
}

static void call(struct client *client, const char *path, const char *body)
{
	char address[512];
	CURLcode code;
	long status = 0;

	snprintf(address, sizeof(address), "%s%s", url, path);
	client->used = 0;
	curl_easy_setopt(client->curl, CURLOPT_URL, address);
	curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, body);
	code = curl_easy_perform(client->curl);
	curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK && status == 200)
		return;
	fprintf(stderr, "%s: %s, status %ld\n", path, curl_easy_strerror(code), status);
	_exit(1);
}

static void encode(const char *text, char *out)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i += 3) {
		unsigned int bits = 0;

		for (size_t k = 0; k < 3; k++)
			bits = bits << 8 | (i + k < n ? (unsigned char)text[i + k] : 0);
		for (size_t k = 0; k < 4; k++)
			*out++ = i + k > n ? '=' : digits[bits >> (18 - 6 * k) & 63];
	}
	*out = '\0';
}

static long long grant(struct client *client)
{
	const char *id;

	call(client, "/v3/lease/grant", "{\"TTL\":\"120\"}");
	id = strstr(client->answer, "\"ID\":");
	id = id ? strpbrk(id + 5, "0123456789") : NULL;
	if (!id) {
		fprintf(stderr, "no lease: %s\n", client->answer);
		_exit(1);
	}
	return strtoll(id, NULL, 10);
}

static void *begin(int index)
{
	struct client *client = zeroed(1, sizeof(*client));
	char name[64], key[128];
	long long lease;

	client->curl = curl_easy_init();
	curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, client);
	curl_easy_setopt(client->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(client->curl, CURLOPT_TIMEOUT, 30L);
	lease = grant(client);
	snprintf(name, sizeof(name), "/floor/%d/%llx", index, lease);
	encode(name, key);
	snprintf(client->put, sizeof(client->put),
		"{\"key\":\"%s\",\"value\":\"\",\"lease\":\"%lld\"}", key, lease);
	snprintf(client->delete, sizeof(client->delete), "{\"key\":\"%s\"}", key);
	return client;
}

static void take(void *self)
{
	struct client *client = self;

	call(client, "/v3/kv/put", client->put);
}

static void give(void *self)
{
	struct client *client = self;

	call(client, "/v3/kv/deleterange", client->delete);
}

int main(int argc, char **argv)
{
	struct load load = {.begin = begin, .take = take, .give = give};

	if (argc < 2) {
		fprintf(stderr, "usage: floor URL [PROCESSES [SECONDS [WARMUP]]]\n");
		return 2;
	}
	url = argv[1];
	load.processes = argc > 2 ? atoi(argv[2]) : 1;
	load.seconds = argc > 3 ? atof(argv[3]) : 2;
	load.warmup = argc > 4 ? atof(argv[4]) : 0.5;
	return load_run(&load);
}
