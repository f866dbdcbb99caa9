// SPDX-License-Identifier: GPL-2.0
/* Where docs/seed-abi.md says that we differ from the patch, as far as no kick is needed. */

#include "check.h"
#include "privcmd.h"
#include "rows.h"
#include "tests.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char keys[2][4096] __attribute__((aligned(4096)));

static void twins(const struct guest *guest)
{
	int node = open_node(), other = open_node();
	struct privcmd_ioeventfd first = registration(guest, keys[0], BASE, 3, new_eventfd());
	struct privcmd_ioeventfd twin = registration(guest, keys[0], BASE, 3, new_eventfd());

	ended("a key that no device model mapped", 0, assign(node, &first));
	ended("a twin", EEXIST, assign(node, &twin));
	twin.ioreq = (uintptr_t)keys[1];
	ended("a twin under another key", EEXIST, assign(node, &twin));
	ended("a twin in another file", EEXIST, assign(other, &twin));
	twin.vq = 4;
	ended("no twin: another queue", 0, assign(node, &twin));
	twin.event_fd = new_eventfd();
	twin.vq = 3;
	twin.addr_len = 2;
	ended("no twin: another width", 0, assign(node, &twin));

	ended("deassign through another file", ENODEV, deassign(other, &first));
	ended("deassign through its own file", 0, deassign(node, &first));
	first.event_fd = new_eventfd();
	ended("the place is free again", 0, assign(other, &first));
	close(node);
	close(other);
}

static void addresses(const struct guest *guest)
{
	int node = open_node();
	struct privcmd_ioeventfd call = registration(guest, keys[0], 0, 0, new_eventfd());

	for (uint64_t addr = 0 - 0x53ULL; addr != 0 - 4ULL; addr += 0x4f) {
		call.addr = addr;
		ended("addr + 0x50 + addr_len wraps", EINVAL, assign(node, &call));
	}
	call.event_fd = -1;
	call.addr = 0 - 0x53ULL;
	ended("that comes before the eventfd", EINVAL, assign(node, &call));
	close(node);
}

static void guests(const struct guest *guest)
{
	int node = open_node();
	struct privcmd_ioeventfd call = registration(guest, keys[0], BASE, 0, new_eventfd());
	unsigned int own = call.vcpus;

	for (unsigned int vcpus = own + 1; vcpus <= 4096; vcpus *= 2) {
		call.vcpus = vcpus;
		ended("vCPUs beyond the guest's own", EINVAL, assign(node, &call));
	}
	call.vcpus = own;
	call.dom = 0x7000;
	ended("a domain that does not exist", ENODEV, assign(node, &call));
	call.ports = (uintptr_t)nowhere();
	ended("its ports come first", EFAULT, assign(node, &call));
	call = registration(guest, nowhere(), BASE, 0, call.event_fd);
	ended("an ioreq page that cannot be read", EFAULT, assign(node, &call));
	call = registration(guest, kernel_address(), BASE, 0, call.event_fd);
	ended("an ioreq page in the kernel", EFAULT, assign(node, &call));
	close(node);
}

static bool is_interrupt(uint32_t op)
{
	return op == XEN_DMOP_set_pci_intx_level || op == XEN_DMOP_set_isa_irq_level ||
	       op == XEN_DMOP_inject_msi || op == XEN_DMOP_set_irq_level;
}

static void operations(const struct guest *guest)
{
	static char large[1 << 20];
	struct dm_op op = { .op = XEN_DMOP_inject_msi };
	struct privcmd_irqfd call = {
		.dm_op = (uintptr_t)&op,
		.size = sizeof(op),
		.fd = new_eventfd(),
		.dom = guest->dom,
	};
	int node = open_node();

	for (op.op = 0; op.op < 64; op.op++) {
		char line[64];

		if (is_interrupt(op.op))
			continue;
		snprintf(line, sizeof(line), "dm_op %u is no interrupt", op.op);
		ended(line, EINVAL, ioctl(node, IOCTL_PRIVCMD_IRQFD, &call));
	}
	op.op = ~0U;
	ended("dm_op ~0 is no interrupt", EINVAL, ioctl(node, IOCTL_PRIVCMD_IRQFD, &call));

	memcpy(large, &op, sizeof(op));
	call.dm_op = (uintptr_t)large;
	for (call.size = 128; call.size <= sizeof(large); call.size *= 16)
		ended("a large dm_op", EINVAL, ioctl(node, IOCTL_PRIVCMD_IRQFD, &call));
	call.size = ~0U;
	ended("a dm_op of 4 GiB", EINVAL, ioctl(node, IOCTL_PRIVCMD_IRQFD, &call));

	op.op = XEN_DMOP_inject_msi;
	call.dm_op = (uintptr_t)&op;
	for (call.size = 0; call.size < DM_OP_SIZE(msi); call.size += 4)
		ended("a dm_op cut short", EINVAL, ioctl(node, IOCTL_PRIVCMD_IRQFD, &call));
	ended("a whole one", 0, ioctl(node, IOCTL_PRIVCMD_IRQFD, &call));
	close(node);
}

void test_differences(const struct guest *guest)
{
	twins(guest);
	addresses(guest);
	guests(guest);
	operations(guest);
}
