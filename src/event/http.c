/* SPDX-License-Identifier: MIT */
#include "event/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/util.h"
#include "event/loop.h"

/* etcd's headers have about two hundred bytes. */
enum { MAX_HEADERS = 64 * 1024 };
/* Connections that a pool keeps, used or not: their number is what bounds its descriptors. */
enum { MAX_CONNECTIONS = 8 };

struct http_pool {
	struct loop *loop;
	CURLM *multi;
	unsigned int spared;      /* descriptors that it leaves to others */
	struct loop_timer timer;  /* libcurl's own deadline */
	struct loop_task harvest; /* looks for finished transfers, outside of libcurl */
	struct http_request *requests;
	struct http_request *spares; /* ended, and to be used again */
	struct http_socket *sockets;
	uint64_t opened; /* sockets, so far */
	char *ca_file, *cert_file, *key_file;
};

/* One of libcurl's sockets, between its CURL_POLL_IN and its CURL_POLL_REMOVE. */
struct http_socket {
	struct loop_fd watch;
	struct http_pool *pool;
	struct http_socket *prev, *next;
};

struct http_request {
	struct http_pool *pool;
	CURL *easy;
	struct curl_slist *headers;
	struct buffer received;
	size_t max_size, header_size;
	unsigned int sent; /* how often, as libcurl repeats it if a kept connection ends */
	int fault;         /* -errno of what we could not put up with, and why in words */
	const char *fault_reason;
	int shortage; /* -errno, if no socket could be opened */
	http_data_fn *on_data;
	http_done_fn *on_done;
	void *user;
	char reason[CURL_ERROR_SIZE];
	struct http_request *prev, *next;
};

/* --- what libcurl calls: it may not be called back from here, so these only take notes --- */

/* Ends the transfer. */
static size_t refuse(struct http_request *request, int fault, const char *reason)
{
	request->fault = fault;
	request->fault_reason = reason;
	return 0;
}

static const char too_large[] = "the answer is too large";

static size_t on_write(char *data, size_t size, size_t count, void *user)
{
	struct http_request *request = user;

	size *= count;
	if (request->received.size + size > request->max_size)
		return refuse(request, -EFBIG, too_large);
	buffer_add(&request->received, data, size);
	return size;
}

/* There may be any number of them, before and behind the answer, and libcurl keeps them all. */
static size_t on_header(char *data, size_t size, size_t count, void *user)
{
	struct http_request *request = user;

	request->header_size += size * count;
	if (request->header_size > MAX_HEADERS)
		return refuse(request, -EPROTO, "the answer's header is too large");
	return size * count;
}

/* There is a connection, by which the request goes out next. */
static int on_sending(void *user, char *address, char *own_address, int port, int own_port)
{
	struct http_request *request = user;

	request->sent++;
	return CURL_PREREQFUNC_OK;
}

static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct http_request *request = user;
	int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

	if (fd >= 0 && limits_is_spared(fd, request->pool->spared)) {
		close(fd);
		fd = -1;
		errno = EMFILE;
	}
	request->pool->opened += fd >= 0;
	if (fd < 0 && http_is_shortage(-errno))
		request->shortage = -errno;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static int on_timer(CURLM *multi, long timeout, void *user)
{
	struct http_pool *pool = user;

	if (timeout < 0)
		loop_timer_disarm(&pool->timer);
	else
		loop_timer_arm(pool->loop, &pool->timer, loop_clock() + timeout);
	return 0;
}

static void on_socket_ready(struct loop_fd *watch, unsigned int events);

static void socket_free(struct http_socket *s)
{
	loop_fd_remove(&s->watch);
	DL_DELETE(s->pool->sockets, s);
	free(s);
}

static struct http_socket *socket_new(struct http_pool *pool, curl_socket_t fd)
{
	struct http_socket *s = xzalloc(sizeof(*s));

	s->pool = pool;
	s->watch.fd = fd;
	s->watch.fn = on_socket_ready;
	DL_APPEND(pool->sockets, s);
	curl_multi_assign(pool->multi, fd, s);
	return s;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
	struct http_pool *pool = user;
	struct http_socket *s = socket_user;

	if (what == CURL_POLL_REMOVE) {
		if (s)
			socket_free(s);
		return 0;
	}
	unsigned int events =
		(what & CURL_POLL_IN ? LOOP_READ : 0u) | (what & CURL_POLL_OUT ? LOOP_WRITE : 0u);
	int error;
	if (s) {
		error = loop_fd_change(&s->watch, events);
	} else {
		s = socket_new(pool, fd);
		error = loop_fd_add(pool->loop, &s->watch, events);
	}
	/* A socket nobody watches ends by its transfer's timeout. */
	if (error)
		log_warning("a connection can't be watched: %s", strerror(-error));
	return 0;
}

/* --- what the loop calls --- */

static void curl_act(struct http_pool *pool, curl_socket_t fd, int what)
{
	int running;

	curl_multi_socket_action(pool->multi, fd, what, &running);
	loop_defer(pool->loop, &pool->harvest);
}

static void on_socket_ready(struct loop_fd *watch, unsigned int events)
{
	struct http_socket *s = container_of(watch, struct http_socket, watch);

	curl_act(s->pool, watch->fd,
		(events & LOOP_READ ? CURL_CSELECT_IN : 0) |
			(events & LOOP_WRITE ? CURL_CSELECT_OUT : 0));
}

static void on_timer_due(struct loop_timer *timer)
{
	curl_act(container_of(timer, struct http_pool, timer), CURL_SOCKET_TIMEOUT, 0);
}

/* What it costs to set a transfer up is paid once: the next one takes this one's place. */
static void request_end(struct http_request *request)
{
	struct http_pool *pool = request->pool;

	curl_multi_remove_handle(pool->multi, request->easy);
	curl_slist_free_all(take(request->headers));
	buffer_fini(&request->received);
	DL_DELETE(pool->requests, request);
	DL_PREPEND(pool->spares, request);
}

static long status_of(const struct http_request *request)
{
	long status = 0;

	curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

/* Streams: hands over what has arrived.  The callback may cancel any request of the pool. */
static void deliver_streams(struct http_pool *pool)
{
	struct http_request *request = pool->requests;

	while (request) {
		if (!request->on_data || !request->received.size || status_of(request) != 200) {
			request = request->next;
			continue;
		}
		struct buffer data = request->received;
		request->received = (struct buffer){0};
		request->on_data(request->user, data.data, data.size);
		buffer_fini(&data);
		request = pool->requests; /* the list may have changed */
	}
}

bool http_is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

static int to_errno(CURLcode code)
{
	switch ((int)code) {
	case CURLE_OK:
		return 0;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_COULDNT_RESOLVE_HOST:
		return -EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT:
		return -ECONNREFUSED;
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
		return -EPROTO;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return -EINVAL;
	default:
		return -ECONNRESET;
	}
}

static int connection_of(const struct http_request *request)
{
	curl_socket_t fd = CURL_SOCKET_BAD;

	curl_easy_getinfo(request->easy, CURLINFO_ACTIVESOCKET, &fd);
	return fd;
}

static void finish(struct http_request *request, CURLcode code)
{
	if (code == CURLE_FILESIZE_EXCEEDED)
		(void)refuse(request, -EFBIG, too_large);
	if (code == CURLE_COULDNT_CONNECT && request->shortage)
		(void)refuse(request, request->shortage, strerror(-request->shortage));
	struct http_result result = {
		.error = request->fault ? request->fault : to_errno(code),
		.status = (int)status_of(request),
		.body = request->received.data ? request->received.data : "",
		.size = request->received.size,
		.connection = connection_of(request),
		.sent = request->sent,
	};
	if (result.error) {
		result.reason = request->fault       ? request->fault_reason
				: request->reason[0] ? request->reason
						     : curl_easy_strerror(code);
	}
	http_done_fn *on_done = request->on_done;
	void *user = request->user;
	struct buffer body = request->received;
	char reason[CURL_ERROR_SIZE];
	copy_string(reason, sizeof(reason), result.reason ? result.reason : "");
	result.reason = reason;
	request->received = (struct buffer){0};
	request_end(request);
	on_done(user, &result);
	buffer_fini(&body);
}

static void on_harvest(struct loop_task *task)
{
	struct http_pool *pool = container_of(task, struct http_pool, harvest);
	CURLMsg *message;
	int left;

	deliver_streams(pool);
	while ((message = curl_multi_info_read(pool->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		struct http_request *request = NULL;
		CURLcode code = message->data.result;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
		finish(request, code);
	}
}

/* --- the interface --- */

struct http_pool *http_pool_new(struct loop *loop, const struct http_tls *tls, unsigned int spared)
{
	struct http_pool *pool = xzalloc(sizeof(*pool));

	pool->loop = loop;
	pool->spared = spared;
	pool->multi = curl_multi_init();
	if (!pool->multi) {
		free(pool);
		return NULL;
	}
	pool->timer.fn = on_timer_due;
	pool->harvest.fn = on_harvest;
	pool->ca_file = xstrdup(tls->ca_file);
	pool->cert_file = xstrdup(tls->cert_file);
	pool->key_file = xstrdup(tls->key_file);
	curl_multi_setopt(pool->multi, CURLMOPT_MAXCONNECTS, (long)MAX_CONNECTIONS);
	curl_multi_setopt(pool->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(pool->multi, CURLMOPT_SOCKETDATA, pool);
	curl_multi_setopt(pool->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(pool->multi, CURLMOPT_TIMERDATA, pool);
	return pool;
}

static void spare_free(struct http_request *request)
{
	curl_easy_cleanup(request->easy);
	DL_DELETE(request->pool->spares, request);
	free(request);
}

void http_pool_free(struct http_pool *pool)
{
	if (!pool)
		return;
	while (pool->requests)
		request_end(pool->requests);
	while (pool->spares)
		spare_free(pool->spares);
	curl_multi_cleanup(pool->multi);
	while (pool->sockets)
		socket_free(pool->sockets);
	loop_timer_disarm(&pool->timer);
	loop_undefer(pool->loop, &pool->harvest);
	free(pool->ca_file);
	free(pool->cert_file);
	free(pool->key_file);
	free(pool);
}

static void set_tls(CURL *easy, const struct http_pool *pool)
{
	/* Instead of all that the system trusts, of which libcurl may know a directory as well. */
	if (pool->ca_file) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, pool->ca_file);
		curl_easy_setopt(easy, CURLOPT_CAPATH, (char *)NULL);
	}
	if (pool->cert_file)
		curl_easy_setopt(easy, CURLOPT_SSLCERT, pool->cert_file);
	if (pool->key_file)
		curl_easy_setopt(easy, CURLOPT_SSLKEY, pool->key_file);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
}

static void set_headers(struct http_request *request, const struct http_call *call)
{
	/* libcurl would wait a second for "100 Continue" before it sends a large body. */
	request->headers = curl_slist_append(NULL, "Expect:");
	request->headers = curl_slist_append(request->headers, "Content-Type: application/json");
	for (size_t i = 0; call->headers && call->headers[i]; i++)
		request->headers = curl_slist_append(request->headers, call->headers[i]);
	curl_easy_setopt(request->easy, CURLOPT_HTTPHEADER, request->headers);
}

/* With all that is the same for every request of the pool. */
static struct http_request *request_new(struct http_pool *pool)
{
	struct http_request *request = xzalloc(sizeof(*request));
	CURL *easy = request->easy = curl_easy_init();

	if (!easy) {
		log_error("libcurl is out of memory");
		abort();
	}
	request->pool = pool;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Else the end of a request waits, in this thread, for the one that resolves a name. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
	/* No proxy from the environment may stand between a lock and its store. */
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	/* A stream may be silent for long: the kernel finds out about a peer that is gone. */
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 5L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 2L);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, request);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_sending);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, request);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->reason);
	set_tls(easy, pool);
	return request;
}

uint64_t http_pool_opened(const struct http_pool *pool)
{
	return pool->opened;
}

struct http_request *http_start(struct http_pool *pool, const struct http_call *call)
{
	struct http_request *request = pool->spares;

	if (request)
		DL_DELETE(pool->spares, request);
	else
		request = request_new(pool);
	DL_APPEND(pool->requests, request);
	request->max_size = call->max_size;
	request->header_size = 0;
	request->sent = 0;
	request->fault = 0;
	request->shortage = 0;
	request->on_data = call->on_data;
	request->on_done = call->on_done;
	request->user = call->user;
	request->reason[0] = '\0';
	CURL *easy = request->easy;
	curl_easy_setopt(easy, CURLOPT_URL, call->url);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)call->body_size);
	curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, call->body);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)call->connect_timeout);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)call->timeout);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, call->idle_timeout ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (call->idle_timeout + 999) / 1000L);
	/* Of one that says beforehand how large it is nothing is read. */
	curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE,
		call->on_data ? (curl_off_t)0 : (curl_off_t)call->max_size);
	set_headers(request, call);
	/* The timer callback that this provokes starts the transfer from the loop. */
	curl_multi_add_handle(pool->multi, easy);
	return request;
}

void http_cancel(struct http_request *request)
{
	if (request)
		request_end(request);
}

/* libcurl looks at a connection before it uses it again, and closes one that the peer has ended. */
void http_hang_up(const struct http_result *result)
{
	if (result->connection >= 0)
		shutdown(result->connection, SHUT_RDWR);
}
