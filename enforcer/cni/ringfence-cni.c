/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chained CNI plugin (CNI 0.1.0 to 1.1.0): what the container runtime runs, last in the chain,
 * when it makes or removes a pod. It hands environment, configuration and the pod's network
 * namespace to the agent's socket and prints the answer; every decision is the agent's. Only when
 * no agent answers in time it decides itself: pods of namespaces that the agent has recorded as
 * strict are refused, all others pass as if the plugin were absent. DEL and GC never fail: errors
 * go to stderr, because a pod that cannot be deleted helps nobody.
 *
 * It is C because nodes have no Python, and static because they have no common C library. The
 * runtime starts it for each pod: it reads, asks, prints and ends.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "scan.h"

#define INPUT_LIMIT (1 << 20)
#define ANSWER_LIMIT (1 << 20)
#define DEFAULT_SOCKET "/run/ringfence/cni.sock"
#define DEFAULT_NAMESPACES "/etc/cni/net.d/ringfence-namespaces"
#define NEWEST "1.1.0"
#define DEFAULT_TIMEOUT 10
#define LONGEST_TIMEOUT 300
#define LEAVING ".leaving" /* behind the program's own path, see is_leaving() */

/* Error codes of the CNI specification. */
enum code {
	BAD_VERSION = 1,
	BAD_ENVIRONMENT = 4,
	IO_FAILURE = 5,
	BAD_CONTENT = 6,
	BAD_CONFIG = 7,
	TRY_AGAIN = 11,
	NOT_AVAILABLE = 50,
};

static const char *const SUPPORTED[] = { "0.1.0", "0.2.0", "0.3.0", "0.3.1",
					 "0.4.0", "1.0.0", "1.1.0" };
#define OLDEST SUPPORTED[0] /* also what configurations without a version mean */

static struct {
	char input[INPUT_LIMIT];
	size_t length;
	char answer[ANSWER_LIMIT];
	char socket[ASK_PATH];
	char namespaces[4096];
	int timeout;
} plugin;

static char spoken[16] = NEWEST; /* the version of our answers */
static int is_cleanup; /* DEL or GC */

static void print_escaped(const char *text)
{
	for (; *text; text++) {
		unsigned char now = *text;

		if (now == '"' || now == '\\')
			printf("\\%c", now);
		else if (now < 0x20 || now == 0x7f)
			printf("\\u%04x", now);
		else
			putchar(now);
	}
}

/* Prints an error in the specification's format, and exits. */
static void __attribute__((noreturn, format(printf, 3, 4))) fail(enum code code,
								 const char *message,
								 const char *format, ...)
{
	char details[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(details, sizeof(details), format, arguments);
	va_end(arguments);
	if (is_cleanup) {
		fprintf(stderr, "%s: %s\n", message, details);
		_exit(0);
	}
	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"", spoken, code);
	print_escaped(message);
	printf("\",\"details\":\"");
	print_escaped(details);
	printf("\"}\n");
	fflush(stdout);
	_exit(1);
}

static void read_input(void)
{
	ssize_t got;

	while ((got = read(0, plugin.input + plugin.length, INPUT_LIMIT - plugin.length)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail(IO_FAILURE, "cannot read the network configuration", "%s",
			     strerror(errno));
		plugin.length += got;
		if (plugin.length == INPUT_LIMIT)
			fail(BAD_CONTENT, "the network configuration is too long",
			     "more than %d bytes", INPUT_LIMIT);
	}
}

static struct span member(const char *name)
{
	return scan_find(plugin.input, plugin.length, name);
}

static int is_supported(const char *version)
{
	for (size_t i = 0; i < COUNT(SUPPORTED); i++)
		if (!strcmp(version, SUPPORTED[i]))
			return 1;
	return 0;
}

static void print_version(void)
{
	printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[", spoken);
	for (size_t i = 0; i < COUNT(SUPPORTED); i++)
		printf("%s\"%s\"", i ? "," : "", SUPPORTED[i]);
	printf("]}\n");
}

/* The version that the runtime speaks: ours to answer in, or an error in the newest one. */
static void read_version(int is_question)
{
	struct span found = member("cniVersion");
	char version[sizeof(spoken)] = "";

	if (found.at && !scan_copy(found, version, sizeof(version)))
		fail(BAD_CONTENT, "cniVersion cannot be read", "%.*s", (int)found.length, found.at);
	if (!*version && !is_question)
		strcpy(version, OLDEST);
	if (is_supported(version))
		strcpy(spoken, version);
	else if (!is_question && !is_cleanup)
		fail(BAD_VERSION, "this CNI version is not supported",
		     "cniVersion %s; ringfence-cni speaks %s to " NEWEST, version, OLDEST);
}

static void read_settings(void)
{
	struct span timeout = member("timeoutSeconds");
	char number[8] = "";

	if (!scan_copy(member("socket"), plugin.socket, sizeof(plugin.socket)))
		strcpy(plugin.socket, DEFAULT_SOCKET);
	if (!scan_copy(member("namespaces"), plugin.namespaces, sizeof(plugin.namespaces)))
		strcpy(plugin.namespaces, DEFAULT_NAMESPACES);
	plugin.timeout = DEFAULT_TIMEOUT;
	if (!timeout.at)
		return;
	if (timeout.length < sizeof(number))
		memcpy(number, timeout.at, timeout.length);
	plugin.timeout = atoi(number);
	if (plugin.timeout < 1 || plugin.timeout > LONGEST_TIMEOUT)
		fail(BAD_CONFIG, "timeoutSeconds of ringfence-cni is not usable",
		     "%.*s; write a number from 1 to %d", (int)timeout.length, timeout.at,
		     LONGEST_TIMEOUT);
}

static struct span previous_result(void)
{
	struct span previous = member("prevResult");

	if (!previous.at)
		fail(BAD_CONFIG, "there is no prevResult",
		     "ringfence-cni makes no network: it has to come after a plugin that does");
	return previous;
}

static void print_previous(void)
{
	struct span previous = previous_result();

	fwrite(previous.at, 1, previous.length, stdout);
	putchar('\n');
}

/* "0 previous", "0 nothing", "1 text" and what is to be printed. */
static int repeat_answer(void)
{
	char *text = strchr(plugin.answer, '\n');

	if (!text || (plugin.answer[0] != '0' && plugin.answer[0] != '1') ||
	    plugin.answer[1] != ' ')
		fail(IO_FAILURE, "the agent's answer is not understood",
		     "are ringfence-cni and the agent of one version?");
	*text++ = 0;
	if (is_cleanup) {
		fputs(text, stderr);
		return 0;
	}
	if (!strcmp(plugin.answer + 2, "previous"))
		print_previous();
	else
		fputs(text, stdout);
	return plugin.answer[0] - '0';
}

/* The value of K8S_POD_NAMESPACE in CNI_ARGS (K=V;K=V); empty for what is no pod. */
static void pod_namespace(char *target, size_t size)
{
	static const char name[] = "K8S_POD_NAMESPACE=";
	const char *at = variable("CNI_ARGS");

	*target = 0;
	while (at) {
		size_t length = strcspn(at, ";");

		if (!strncmp(at, name, sizeof(name) - 1)) {
			length -= sizeof(name) - 1;
			if (length >= size)
				fail(BAD_ENVIRONMENT, "CNI_ARGS cannot be read",
				     "K8S_POD_NAMESPACE is longer than %zu bytes", size - 1);
			memcpy(target, at + sizeof(name) - 1, length);
			target[length] = 0;
		}
		at = strchr(at, ';');
		at = at ? at + 1 : NULL;
	}
}

/* What the agent wrote down: "NAMESPACE strict" or "NAMESPACE open" a line, "*" for all others. */
static int is_strict(const char *namespace)
{
	FILE *file = fopen(plugin.namespaces, "re");
	char line[512], name[256], word[16];
	int others = 1, strict = -1;

	if (!file)
		return 1; /* no agent has ever run: nothing passes */
	while (strict < 0 && fgets(line, sizeof(line), file)) {
		if (line[0] == '#' || sscanf(line, "%255s %15s", name, word) != 2)
			continue;
		if (!strcmp(name, "*"))
			others = strcmp(word, "open") != 0;
		else if (!strcmp(name, namespace))
			strict = strcmp(word, "open") != 0;
	}
	fclose(file);
	return strict < 0 ? others : strict;
}

/*
 * After `enforcer uninstall` the program stays for pods that know it: runtimes may delete them with
 * the configuration under which they were made. A directory beside it has a file for each of them.
 */
static int leaving_path(char *target, size_t size)
{
	ssize_t length = readlink("/proc/self/exe", target, size - sizeof(LEAVING));

	if (length <= 0)
		return 0;
	memcpy(target + length, LEAVING, sizeof(LEAVING));
	return 1;
}

static int is_leaving(void)
{
	char path[4096];

	return leaving_path(path, sizeof(path)) && !access(path, F_OK);
}

/* With the last of these pods the directory goes, and the program itself. */
static int delete_without_agent(const char *container)
{
	char path[4096], file[4096 + 256];
	int length;

	if (!leaving_path(path, sizeof(path)))
		return 0;
	length = snprintf(file, sizeof(file), "%s/%s", path, container);
	if (!strchr(container, '/') && length < (int)sizeof(file))
		unlink(file);
	if (!rmdir(path)) {
		path[strlen(path) - strlen(LEAVING)] = 0;
		unlink(path);
	}
	return 0;
}

/* ADD and CHECK: pods that may start without the agent pass. */
static int pass_without_agent(int is_add)
{
	char namespace[256];

	pod_namespace(namespace, sizeof(namespace));
	if (*namespace && !is_leaving() && is_strict(namespace))
		fail(TRY_AGAIN, "ringfence: no agent answers on this node",
		     "namespace %s has a strict tenant, or may have one (%s), and its pods start "
		     "only when their policy is in force; nothing answered on %s in %d s: is the "
		     "ringfence agent running?",
		     namespace, plugin.namespaces, plugin.socket, plugin.timeout);
	if (is_add)
		print_previous();
	return 0;
}

/* 1 for commands that a new pod waits for: the agent gets a moment to come back. */
static int is_urgent(const char *command)
{
	return !strcmp(command, "ADD") || !strcmp(command, "CHECK");
}

static int is_answered(const char *command)
{
	struct request request = {
		.socket = plugin.socket,
		.text = plugin.input,
		.length = plugin.length,
		.answer = plugin.answer,
		.room = ANSWER_LIMIT,
	};

	return ask(&request, is_urgent(command) ? plugin.timeout : 0);
}

static int without_agent(const char *command)
{
	if (is_cleanup) /* the agent notices that the interface is gone */
		return strcmp(command, "DEL") ? 0
					      : delete_without_agent(variable("CNI_CONTAINERID"));
	if (is_urgent(command))
		return pass_without_agent(!strcmp(command, "ADD"));
	fail(NOT_AVAILABLE, "ringfence: no agent answers on this node",
	     "nothing answered on %s: is the ringfence agent running?", plugin.socket);
}

static void check_environment(const char *command)
{
	static const char *const known[] = { "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION" };

	for (size_t i = 0; i < COUNT(PASSED_ON); i++)
		if (strchr(variable(PASSED_ON[i]), '\n'))
			fail(BAD_ENVIRONMENT, "the environment cannot be passed on",
			     "%s has more than one line", PASSED_ON[i]);
	for (size_t i = 0; i < COUNT(known); i++)
		if (!strcmp(command, known[i]))
			return;
	fail(BAD_ENVIRONMENT, "unknown CNI_COMMAND",
	     "\"%s\"; container runtimes run ringfence-cni with ADD, DEL, CHECK, GC, STATUS or "
	     "VERSION",
	     command);
}

int main(void)
{
	const char *command = variable("CNI_COMMAND");
	int is_question = !strcmp(command, "VERSION");

	is_cleanup = !strcmp(command, "DEL") || !strcmp(command, "GC");
	check_environment(command);
	read_input();
	read_version(is_question);
	if (is_question) {
		print_version();
		return 0;
	}
	read_settings();
	if (!strcmp(command, "ADD"))
		previous_result(); /* or there is nothing to wait for */
	if (is_answered(command))
		return repeat_answer();
	return without_agent(command);
}
