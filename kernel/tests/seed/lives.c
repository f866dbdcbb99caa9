// SPDX-License-Identifier: GPL-2.0
/* Ends amid kicks: the file is closed, its process is killed. */

#include "check.h"
#include "tests.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 10

static char key[4096] __attribute__((aligned(4096)));

static void quiet(int eventfd)
{
	struct pollfd fd = { .fd = eventfd, .events = POLLIN };

	taken(eventfd);
	holds("then nothing more comes, and the guest rings on", poll(&fd, 1, 100) == 0);
}

void test_close(const struct guest *guest)
{
	int eventfd = new_eventfd();
	struct privcmd_ioeventfd call = registration(guest, key, BASE, 0, eventfd);

	for (int round = 0; round < ROUNDS; round++) {
		int node = open_node();

		must("assign", assign(node, &call));
		await_count("amid kicks", 2, eventfd);
		close(node);
		quiet(eventfd);
	}
	guest_round(guest);
	holds("the guest is alive", true);
}

/* A frontend that serves until it is killed. */
static pid_t serve(const struct privcmd_ioeventfd *call)
{
	pid_t child = fork();

	must("fork", child);
	if (child == 0) {
		must("assign", assign(open_node(), call));
		for (;;)
			pause();
	}
	return child;
}

void test_killed(const struct guest *guest)
{
	int eventfd = new_eventfd();
	struct privcmd_ioeventfd call = registration(guest, key, BASE, 0, eventfd);

	for (int round = 0; round < ROUNDS; round++) {
		pid_t child = serve(&call);

		await_count("amid kicks", 2, eventfd);
		must("SIGKILL", kill(child, SIGKILL));
		must("its end", waitpid(child, NULL, 0));
		quiet(eventfd);
	}
	guest_round(guest);
	holds("the guest is alive", true);
}
