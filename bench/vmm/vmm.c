// SPDX-License-Identifier: GPL-2.0
/*
 * A minimal device model of one device, in C.
 *
 *	bench-vmm alone DOM			decodes kicks and writes the eventfd itself
 *	bench-vmm upstream DOM REGISTRATIONS	uses Linux's own ioeventfd, for the last queue of
 *						that many
 *	bench-vmm irqfd DOM			uses Linux's own irqfd to raise an MSI, on Arm an SPI
 *
 * Standard input is the eventfd. Prints `ready`, and ends cleanly on SIGTERM.
 */

#include "check.h"
#include "device.h"
#include "privcmd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xen/privcmd.h>

#define BASE 0xfe000000ULL
#define SIZE 0x1000
#define DOORBELL (BASE + 0x50)
/* Descriptors besides those of the queues. */
#define SPARE 64

static struct device device;
static int node;
static unsigned int queues;

static void carry_out(struct access *access)
{
	if (!access->write)
		access->data = 0;
	/* Beside Linux's own ioeventfd too: what is seen here before it is seen there it does not signal. */
	else if (access->addr == DOORBELL)
		signal_eventfd(STDIN_FILENO);
}

static int registration(unsigned int queue, int eventfd, uint32_t flags)
{
	struct privcmd_ioeventfd call = {
		.ioreq = (uintptr_t)device.page,
		.ports = (uintptr_t)device.ports,
		.addr = BASE,
		.addr_len = 4,
		.event_fd = eventfd,
		.vcpus = device.vcpus,
		.vq = queue,
		.flags = flags,
		.dom = device.dom,
	};

	return ioctl(node, IOCTL_PRIVCMD_IOEVENTFD, &call);
}

static int *eventfds;

static void register_all(void)
{
	struct rlimit limit = { queues + SPARE, queues + SPARE };

	must("a limit of descriptors", setrlimit(RLIMIT_NOFILE, &limit));
	eventfds = calloc(queues, sizeof(*eventfds));
	node = must("/dev/xen/privcmd", open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC));
	for (unsigned int queue = 0; queue < queues; queue++) {
		eventfds[queue] = queue + 1 < queues ? new_eventfd() : STDIN_FILENO;
		must("IOCTL_PRIVCMD_IOEVENTFD", registration(queue, eventfds[queue], 0));
	}
}

/* When this signal arrives the guest is idle and the loop sleeps in read(). */
static void leave(int signal)
{
	(void)signal;
	for (unsigned int queue = 0; queue < queues; queue++)
		registration(queue, eventfds[queue], PRIVCMD_IOEVENTFD_FLAG_DEASSIGN);
	device_close(&device);
	_exit(EXIT_SUCCESS);
}

static struct dm_op message = OWN;
static struct privcmd_irqfd irqfd = { .fd = STDIN_FILENO };

static void leave_irqfd(int signal)
{
	(void)signal;
	irqfd.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	ioctl(node, IOCTL_PRIVCMD_IRQFD, &irqfd);
	_exit(EXIT_SUCCESS);
}

static void send_messages(domid_t dom)
{
	irqfd.dm_op = (uintptr_t)&message;
	irqfd.size = OWN_SIZE;
	irqfd.dom = dom;
	node = must("/dev/xen/privcmd", open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC));
	must("IOCTL_PRIVCMD_IRQFD", ioctl(node, IOCTL_PRIVCMD_IRQFD, &irqfd));
	signal(SIGTERM, leave_irqfd);
	puts("ready");
	for (;;)
		pause();
}

int main(int count, char *words[])
{
	if (count < 3) {
		fputs("usage: bench-vmm (alone DOM | upstream DOM REGISTRATIONS | irqfd DOM)\n", stderr);
		return EXIT_FAILURE;
	}
	begin("bench-vmm");
	if (!strcmp(words[1], "irqfd"))
		send_messages(strtoul(words[2], NULL, 10));
	device_open(&device, strtoul(words[2], NULL, 10), BASE, SIZE);
	if (count > 3) {
		queues = strtoul(words[3], NULL, 10);
		register_all();
	}
	signal(SIGTERM, leave);
	puts("ready");
	for (;;)
		device_serve(&device, carry_out);
}
