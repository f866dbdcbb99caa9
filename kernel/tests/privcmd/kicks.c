// SPDX-License-Identifier: MIT OR Apache-2.0
/* Which kick signals which eventfd, and which files can serve a guest together. */

#include "check.h"
#include "privcmd.h"
#include "tests.h"
#include "xen-eventfd.h"

#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char keys[2][4096] __attribute__((aligned(4096)));

void test_kicks(const struct guest *guest)
{
	int node = open_node();
	int third = new_eventfd(), fourth = new_eventfd(), narrow = new_eventfd();
	int successor = new_eventfd();
	struct privcmd_ioeventfd of_third = registration(guest, keys[0], BASE, 3, third);
	struct privcmd_ioeventfd of_fourth = registration(guest, keys[0], BASE, 4, fourth);
	struct privcmd_ioeventfd of_narrow = registration(guest, keys[0], BASE, 3, narrow);
	struct privcmd_ioeventfd of_successor = registration(guest, keys[1], BASE, 3, successor);

	of_narrow.addr_len = 2;
	ended("assign queue 3", 0, assign(node, &of_third));
	guest_round(guest);
	counted("addr + 0x50, addr_len, and the low 16 bits are the queue", 2, third);

	ended("assign queue 4", 0, assign(node, &of_fourth));
	counted("a kick of it was held", 1, fourth);
	ended("assign queue 3 of another width", 0, assign(node, &of_narrow));
	counted("a kick of it was held, too", 1, narrow);
	counted("the first eventfd got none of that", 0, third);

	guest_round(guest);
	counted("each queue has its own kicks: queue 3", 2, third);
	counted("each queue has its own kicks: queue 4", 1, fourth);
	counted("each queue has its own kicks: the narrow one", 1, narrow);

	ended("deassign queue 3", 0, deassign(node, &of_third));
	guest_round(guest);
	counted("no more kicks for queue 3", 0, third);
	counted("still kicks for queue 4", 1, fourth);
	counted("still kicks for the narrow one", 1, narrow);
	ended("another eventfd and key for queue 3", 0, assign(node, &of_successor));
	counted("the held kicks are one signal", 1, successor);
	guest_round(guest);
	counted("the successor gets the kicks", 2, successor);
	counted("the others get theirs: queue 4", 1, fourth);
	counted("the others get theirs: the narrow one", 1, narrow);

	close(node);
	guest_round(guest);
	counted("no signal after close: queue 3", 0, successor);
	counted("no signal after close: queue 4", 0, fourth);
	counted("no signal after close: the narrow one", 0, narrow);
}

void test_two_files(const struct guest *guest)
{
	int nodes[] = { open_node(), open_node() };
	int eventfds[] = { new_eventfd(), new_eventfd() };
	/* The same key in both files: a key belongs to its file. */
	struct privcmd_ioeventfd calls[] = {
		registration(guest, keys[0], BASE, 3, eventfds[0]),
		registration(guest, keys[0], OTHER_BASE, 3, eventfds[1]),
	};

	ended("a frontend", 0, assign(nodes[0], &calls[0]));
	ended("another frontend of the same guest", 0, assign(nodes[1], &calls[1]));
	guest_round(guest);
	counted("kicks of the first", 2, eventfds[0]);
	counted("kicks of the second", 1, eventfds[1]);
	close(nodes[0]);
	guest_round(guest);
	counted("nothing for the closed file", 0, eventfds[0]);
	counted("everything for the open file", 1, eventfds[1]);
	nodes[0] = open_node();
	ended("the first again", 0, assign(nodes[0], &calls[0]));
	counted("its earlier kicks went to the device model", 0, eventfds[0]);
	guest_round(guest);
	counted("kicks of the first again", 2, eventfds[0]);
	close(nodes[0]);
	close(nodes[1]);
}

/* The guest's file of the native ABI. */
static int create(const struct guest *guest, uint32_t flags)
{
	struct xen_eventfd_create create = {
		.size = sizeof(create),
		.flags = flags,
		.dom = guest->dom,
		.gone = -1,
	};
	int control = open_node();
	int result = ioctl(control, XEN_EVENTFD_CREATE, &create);
	int error = errno;

	close(control);
	errno = error;
	return result;
}

/* While another file holds the guest, and after it is closed. */
static void test_beside(const struct guest *guest, const char *who, uint32_t flags)
{
	struct dm_op op = OWN;
	struct privcmd_ioeventfd again = registration(guest, keys[0], BASE, 3, new_eventfd());
	struct privcmd_irqfd irq = {
		.dm_op = (uintptr_t)&op,
		.size = OWN_SIZE,
		.fd = new_eventfd(),
		.dom = guest->dom,
	};
	int node = open_node(), file = must("XEN_EVENTFD_CREATE", create(guest, flags));
	char line[96];

	snprintf(line, sizeof(line), "an eventfd for a guest that %s", who);
	ended(line, EBUSY, assign(node, &again));
	snprintf(line, sizeof(line), "an interrupt of a guest that %s", who);
	ended(line, EBUSY, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	close(file);

	ended("an eventfd after that file is closed", 0, assign(node, &again));
	ended("create is refused then", EBUSY, create(guest, flags));
	ended("an interrupt beside it", 0, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	ended("deassign of the eventfd", 0, deassign(node, &again));
	ended("create is refused because of the interrupt", EBUSY, create(guest, flags));
	irq.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	ended("deassign of the interrupt", 0, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	file = create(guest, flags);
	ended("create succeeds when nothing is assigned", 0, file);
	close(file);

	ended("assign again", 0, assign(node, &again));
	close(node);
	file = create(guest, flags);
	ended("create succeeds after this file is closed", 0, file);
	close(file);
}

void test_native(const struct guest *guest)
{
	test_beside(guest, "has a native file", 0);
	test_beside(guest, "is reserved for a userspace engine", XEN_EVENTFD_CREATE_RESERVE);
}
