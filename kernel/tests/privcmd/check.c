// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "check.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const char *subject = "?";
static unsigned int failures;

void begin(const char *test)
{
	subject = test;
	/* A child must not print a buffered line again. */
	setlinebuf(stdout);
}

int status(void)
{
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void good(const char *what)
{
	printf("ok      %s: %s\n", subject, what);
}

static void bad(const char *what, const char *why)
{
	failures++;
	printf("FAILED  %s: %s: %s\n", subject, what, why);
}

static const char *name_of(int error)
{
	return error ? strerrorname_np(error) : "success";
}

void ended(const char *what, int wanted, int result)
{
	int found = result < 0 ? errno : 0;
	char why[64];

	if (found == wanted)
		return good(what);
	snprintf(why, sizeof(why), "%s instead of %s", name_of(found), name_of(wanted));
	bad(what, why);
}

void refused(const char *what, int wanted, int alone, int among_others)
{
	char why[96];

	if (alone == wanted && among_others == wanted)
		return good(what);
	snprintf(why, sizeof(why), "%s alone, %s before others, instead of %s", name_of(alone),
		 name_of(among_others), name_of(wanted));
	bad(what, why);
}

void counted(const char *what, uint64_t wanted, int eventfd)
{
	uint64_t found = taken(eventfd);
	char why[64];

	if (found == wanted)
		return good(what);
	snprintf(why, sizeof(why), "%" PRIu64 " instead of %" PRIu64, found, wanted);
	bad(what, why);
}

void holds(const char *what, bool true_or_not)
{
	if (true_or_not)
		good(what);
	else
		bad(what, "it is false");
}

int must(const char *what, int result)
{
	if (result >= 0)
		return result;
	bad(what, name_of(errno));
	exit(EXIT_FAILURE);
}

int new_eventfd(void)
{
	return must("a new eventfd", eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

uint64_t taken(int eventfd)
{
	uint64_t count;

	if (read(eventfd, &count, sizeof(count)) == sizeof(count))
		return count;
	if (errno != EAGAIN)
		must("reading an eventfd", -1);
	return 0;
}

void await_count(uint64_t wanted, int eventfd)
{
	struct pollfd poll_fd = { .fd = eventfd, .events = POLLIN };
	uint64_t count = 0;

	while (count < wanted && poll(&poll_fd, 1, PATIENCE) == 1)
		count += taken(eventfd);
	if (count < wanted) {
		errno = ETIME;
		must("kicks of the guest", -1);
	}
}

void signal_eventfd(int eventfd)
{
	const uint64_t one = 1;

	must("signalling an eventfd", write(eventfd, &one, sizeof(one)) == sizeof(one) ? 0 : -1);
}
