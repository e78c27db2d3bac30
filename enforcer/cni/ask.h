/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks the agent: environment, text and the pod's network namespace go to its socket, and the
 * answer is what it sends up to the end of the connection (enforcer/cni/server.py is the other
 * side).
 */
#ifndef RINGFENCE_CNI_ASK_H
#define RINGFENCE_CNI_ASK_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ASK_PATH sizeof(((struct sockaddr_un *)0)->sun_path)
#define ASK_GRACE 5 /* seconds that an agent has beyond the time that it was given to wait */
#define ASK_RETRY_MS 50
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const PASSED_ON[] = { "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS",
					 "CNI_IFNAME", "CNI_ARGS" };

struct request {
	const char *socket;
	const char *text;
	size_t length;
	char *answer; /* ends with a zero byte */
	size_t room;
};

static inline const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

static inline long long ask_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static inline int ask_send_all(int connection, const char *text, size_t length)
{
	while (length) {
		ssize_t sent = send(connection, text, length, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return 0;
		text += sent;
		length -= sent;
	}
	return 1;
}

/* The first byte, with the descriptor of the pod's network namespace where there is one. */
static inline int ask_greet(int connection)
{
	const char *path = variable("CNI_NETNS");
	int netns = *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec greeting = { .iov_base = "1", .iov_len = 1 };
	struct msghdr message = { .msg_iov = &greeting, .msg_iovlen = 1 };
	ssize_t sent;

	if (netns >= 0) {
		message.msg_control = control.room;
		message.msg_controllen = sizeof(control.room);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &netns, sizeof(int));
	}
	sent = sendmsg(connection, &message, MSG_NOSIGNAL);
	if (netns >= 0)
		close(netns);
	return sent == 1;
}

static inline int ask_send(int connection, const struct request *request)
{
	if (!ask_greet(connection))
		return 0;
	for (size_t i = 0; i < COUNT(PASSED_ON); i++) {
		const char *value = variable(PASSED_ON[i]);

		if (!ask_send_all(connection, PASSED_ON[i], strlen(PASSED_ON[i])) ||
		    !ask_send_all(connection, "=", 1) ||
		    !ask_send_all(connection, value, strlen(value)) ||
		    !ask_send_all(connection, "\n", 1))
			return 0;
	}
	return ask_send_all(connection, "\n", 1) &&
	       ask_send_all(connection, request->text, request->length) &&
	       !shutdown(connection, SHUT_WR);
}

/* Everything up to the end of the connection; 0 if it does not come before the deadline. */
static inline int ask_read(int connection, const struct request *request, long long deadline)
{
	size_t answered = 0;

	while (answered < request->room - 1) {
		struct pollfd waiting = { .fd = connection, .events = POLLIN };
		long long left = deadline - ask_now_ms();
		ssize_t got;

		if (left <= 0 || poll(&waiting, 1, (int)left) <= 0)
			return 0;
		got = read(connection, request->answer + answered, request->room - 1 - answered);
		if (got < 0 && errno != EINTR)
			return 0;
		if (got == 0)
			break;
		answered += got > 0 ? got : 0;
	}
	request->answer[answered] = 0;
	return answered > 0;
}

static inline int ask_once(const struct request *request, long long deadline)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int answered;

	memcpy(address.sun_path, request->socket, strlen(request->socket) + 1);
	if (connection < 0)
		return 0;
	answered = !connect(connection, (struct sockaddr *)&address, sizeof(address)) &&
		   ask_send(connection, request) && ask_read(connection, request, deadline);
	close(connection);
	return answered;
}

/* 1 if an agent answered; one that goes away in the middle is asked again. */
static inline int ask(const struct request *request, int patience)
{
	long long start = ask_now_ms(), last = start + (patience + ASK_GRACE) * 1000LL;
	struct timespec pause = { .tv_nsec = ASK_RETRY_MS * 1000000L };

	do {
		if (ask_once(request, last))
			return 1;
		if (patience)
			nanosleep(&pause, NULL);
	} while (ask_now_ms() - start < patience * 1000LL);
	return 0;
}

#endif
