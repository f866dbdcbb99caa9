// SPDX-License-Identifier: MIT OR Apache-2.0
/* Which kick signals which eventfd, and who may serve a guest beside whom. */

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
	int heir = new_eventfd();
	struct privcmd_ioeventfd of_third = registration(guest, keys[0], BASE, 3, third);
	struct privcmd_ioeventfd of_fourth = registration(guest, keys[0], BASE, 4, fourth);
	struct privcmd_ioeventfd of_narrow = registration(guest, keys[0], BASE, 3, narrow);
	struct privcmd_ioeventfd of_heir = registration(guest, keys[1], BASE, 3, heir);

	of_narrow.addr_len = 2;
	ended("assign queue 3", 0, assign(node, &of_third));
	guest_round(guest);
	counted("addr + 0x50, addr_len, and the low 16 bits are the queue", 2, third);

	ended("assign queue 4", 0, assign(node, &of_fourth));
	counted("a kick of it was held", 1, fourth);
	ended("assign queue 3 of another width", 0, assign(node, &of_narrow));
	counted("a kick of it was held, too", 1, narrow);
	counted("nothing of that came to the first", 0, third);

	guest_round(guest);
	counted("each has its own: queue 3", 2, third);
	counted("each has its own: queue 4", 1, fourth);
	counted("each has its own: the narrow one", 1, narrow);

	ended("deassign queue 3", 0, deassign(node, &of_third));
	guest_round(guest);
	counted("it is over for queue 3", 0, third);
	counted("it is not for queue 4", 1, fourth);
	counted("nor for the narrow one", 1, narrow);
	ended("another eventfd and key for queue 3", 0, assign(node, &of_heir));
	counted("what was held meanwhile is one signal", 1, heir);
	guest_round(guest);
	counted("the heir has the kicks", 2, heir);
	counted("the others have theirs: queue 4", 1, fourth);
	counted("the others have theirs: the narrow one", 1, narrow);

	close(node);
	guest_round(guest);
	counted("after close nothing comes: queue 3", 0, heir);
	counted("after close nothing comes: queue 4", 0, fourth);
	counted("after close nothing comes: the narrow one", 0, narrow);
}

void test_two_files(const struct guest *guest)
{
	int nodes[] = { open_node(), open_node() };
	int eventfds[] = { new_eventfd(), new_eventfd() };
	/* The key is the same: it says nothing about another file. */
	struct privcmd_ioeventfd calls[] = {
		registration(guest, keys[0], BASE, 3, eventfds[0]),
		registration(guest, keys[0], OTHER_BASE, 3, eventfds[1]),
	};

	ended("one frontend", 0, assign(nodes[0], &calls[0]));
	ended("another one of the same guest", 0, assign(nodes[1], &calls[1]));
	guest_round(guest);
	counted("the one's kicks", 2, eventfds[0]);
	counted("the other's kicks", 1, eventfds[1]);
	close(nodes[0]);
	guest_round(guest);
	counted("nothing for the one that closed", 0, eventfds[0]);
	counted("everything for the one that did not", 1, eventfds[1]);
	nodes[0] = open_node();
	ended("the one again", 0, assign(nodes[0], &calls[0]));
	counted("its kicks from before went to the device model", 0, eventfds[0]);
	guest_round(guest);
	counted("the one's kicks again", 2, eventfds[0]);
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

/* While somebody else has the guest, and once he has let go of it. */
static void test_beside(const struct guest *guest, const char *who, uint32_t flags)
{
	struct dm_op op = { .op = XEN_DMOP_inject_msi, .msi = { .addr = 0xfee00000 } };
	struct privcmd_ioeventfd again = registration(guest, keys[0], BASE, 3, new_eventfd());
	struct privcmd_irqfd irq = {
		.dm_op = (uintptr_t)&op,
		.size = DM_OP_SIZE(msi),
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

	ended("an eventfd when that is closed", 0, assign(node, &again));
	ended("he is refused then", EBUSY, create(guest, flags));
	ended("an interrupt beside it", 0, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	ended("deassign of the eventfd", 0, deassign(node, &again));
	ended("he is refused for the interrupt's sake", EBUSY, create(guest, flags));
	irq.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	ended("deassign of the interrupt", 0, ioctl(node, IOCTL_PRIVCMD_IRQFD, &irq));
	file = create(guest, flags);
	ended("he is not when nothing is assigned", 0, file);
	close(file);

	ended("assign again", 0, assign(node, &again));
	close(node);
	file = create(guest, flags);
	ended("nor when this file is closed", 0, file);
	close(file);
}

void test_native(const struct guest *guest)
{
	test_beside(guest, "has a native file", 0);
	test_beside(guest, "is kept for an engine in userspace", XEN_EVENTFD_CREATE_RESERVE);
}
