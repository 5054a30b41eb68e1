/* SPDX-License-Identifier: MIT */
/*
 * HTTP requests on the event loop: POST with a JSON body, which is all that etcd's gateway needs.
 *
 * The one rule: a callback never runs inside the call that started the request, nor inside libcurl;
 * on_done runs exactly once unless the request is cancelled, and then not at all.
 *
 * An http pool has connections of its own.  Nothing is queued here: the caller bounds what is in
 * flight, because libcurl's own queue is slow and unfair.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct http_pool;
struct http_request;

/* Borrowed strings, NULL where there is none: files in PEM form. */
struct http_tls {
	const char *ca_file;   /* whom to trust; NULL = the system's list */
	const char *cert_file; /* the client's certificate */
	const char *key_file;
};

struct http_result {
	int error;          /* 0, or -errno: no complete answer was received */
	const char *reason; /* in words, if error; borrowed until the callback returns */
	int status;         /* HTTP status */
	const char *body;   /* NUL-terminated; borrowed until the callback returns */
	size_t size;
	int connection; /* for http_hang_up; -1 if it is closed already */
	/*
	 * How often the request was sent: more than once if a connection ended under it, after
	 * which it is sent again by another; 0 if there was no connection.
	 */
	unsigned int sent;
};

/*
 * error: -ETIMEDOUT, -ECONNREFUSED, -EFBIG (over the limit), -EPROTO (TLS, endless headers),
 * -ECONNRESET, ...; or a shortage of this process or machine, see http_is_shortage.
 */
typedef void http_done_fn(void *user, const struct http_result *result);

/* True for -EMFILE and its like, which say nothing about the peer. */
bool http_is_shortage(int error);

/* Bytes of a streamed answer with status 200.  The request may be cancelled in here. */
typedef void http_data_fn(void *user, const char *data, size_t size);

struct http_call {
	const char *url;
	const char *body; /* copied */
	size_t body_size;
	const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
	int connect_timeout;        /* milliseconds */
	int timeout;                /* for the whole answer, milliseconds; 0 = none (a stream) */
	int idle_timeout;           /* without a byte received, milliseconds; 0 = none */
	size_t max_size;            /* of the answer (of one unread piece, for a stream) */
	http_data_fn *on_data;      /* NULL: the body is collected and given to on_done */
	http_done_fn *on_done;
	void *user;
};

/*
 * tls is copied.  spared: how many of the descriptors that the process may have open the pool
 * leaves to others, which need them more.  Returns NULL if libcurl can't be set up.
 */
struct http_pool *http_pool_new(struct loop *loop, const struct http_tls *tls, unsigned int spared);

/* Cancels what is in flight. */
void http_pool_free(struct http_pool *pool);

/* How many connections it has begun to open, so far. */
uint64_t http_pool_opened(const struct http_pool *pool);

/* Never fails at once: what goes wrong is told by on_done.  The request is borrowed: it is gone
 * after on_done or http_cancel. */
struct http_request *http_start(struct http_pool *pool, const struct http_call *call);
void http_cancel(struct http_request *request);

/*
 * To be called from on_done with what it was given: nothing more is asked by the connection that
 * this answer came by.  Nothing in HTTP/1.1 says which question an answer belongs to, so behind one
 * that was not meant for us all that follow may be another's.
 */
void http_hang_up(const struct http_result *result);
