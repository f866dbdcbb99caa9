// SPDX-License-Identifier: MIT OR Apache-2.0
/* Ends during kicks: the file is closed, its process is killed, the guest is destroyed. */

#include "check.h"
#include "privcmd.h"
#include "tests.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 10

static char key[4096] __attribute__((aligned(4096)));

/* Signals that arrive for a while at an eventfd without a registration. */
static uint64_t strays(int eventfd)
{
	struct pollfd fd = { .fd = eventfd, .events = POLLIN };

	taken(eventfd);
	poll(&fd, 1, 50);
	return taken(eventfd);
}

void test_close(const struct guest *guest)
{
	int eventfd = new_eventfd();
	struct privcmd_ioeventfd call = registration(guest, key, BASE, 0, eventfd);
	uint64_t stray = 0;

	for (int round = 0; round < ROUNDS; round++) {
		int node = open_node();

		must("assign", assign(node, &call));
		await_count(2, eventfd);
		close(node);
		stray += strays(eventfd);
	}
	/* It keeps kicking, or it would not report back. */
	guest_round(guest);
	holds("no signal after close, and the guest keeps kicking", stray == 0);
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
	uint64_t stray = 0;

	for (int round = 0; round < ROUNDS; round++) {
		pid_t child = serve(&call);

		await_count(2, eventfd);
		must("SIGKILL", kill(child, SIGKILL));
		must("its end", waitpid(child, NULL, 0));
		stray += strays(eventfd);
	}
	guest_round(guest);
	holds("no signal after SIGKILL, and the guest keeps kicking", stray == 0);
}

void test_death(const struct guest *guest)
{
	int node = open_node(), eventfd = new_eventfd();
	struct privcmd_ioeventfd call = registration(guest, key, BASE, 0, eventfd);
	struct privcmd_ioeventfd later = registration(guest, key, BASE, 1, new_eventfd());
	struct dm_op op = OWN;
	struct privcmd_irqfd irq = {
		.dm_op = (uintptr_t)&op,
		.size = OWN_SIZE,
		.fd = new_eventfd(),
		.dom = guest->dom,
	};
	char command[32];
	int waited = 0;

	ended("assign", 0, assign(node, &call));
	ended("assign an interrupt", 0, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	await_count(2, eventfd);
	snprintf(command, sizeof(command), "xl destroy %u", guest->dom);
	must(command, system(command) == 0 ? 0 : -1);
	/* The module learns it from xenstore. */
	while (assign(node, &later) == 0 && waited++ < PATIENCE) {
		must("deassign", deassign(node, &later));
		usleep(1000);
	}
	ended("assign for a guest that died", ENODEV, assign(node, &later));
	ended("deassign of a registration that ended with it", ENODEV, deassign(node, &call));
	signal_eventfd(irq.fd);
	counted("its interrupt ended: a signal stays in the counter", 1, irq.fd);
	ended("an interrupt for a guest that died", ENODEV, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	irq.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	ended("deassign of an irqfd returns 0", 0, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	close(node);
}
