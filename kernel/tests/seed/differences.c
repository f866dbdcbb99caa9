// SPDX-License-Identifier: MIT OR Apache-2.0
/* Where docs/seed-abi.md says that we differ from the patch, as far as no kick is needed. */

#include "check.h"
#include "privcmd.h"
#include "rows.h"
#include "tests.h"

#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

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

static void numbers(const struct guest *guest)
{
	static const uint64_t wrapping[] = { 0 - 0x53ULL, 0 - 0x50ULL, 0 - 5ULL };
	int node = open_node();
	struct privcmd_ioeventfd call = registration(guest, keys[0], BASE, 0, -1);

	for (size_t nth = 0; nth < COUNT(wrapping); nth++) {
		call.addr = wrapping[nth];
		ended("addr + 0x50 + addr_len wraps, before the eventfd is looked at", EINVAL,
		      assign(node, &call));
	}
	call.addr = BASE;
	call.vq = 0x10000;
	ended("a queue beyond 16 bits", EINVAL, assign(node, &call));
	call.vq = 0x100;
	call.addr_len = 1;
	ended("a queue beyond addr_len", EINVAL, assign(node, &call));
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

static int assign_irqfd(int node, const struct privcmd_irqfd *call)
{
	return ioctl(node, IOCTL_PRIVCMD_IRQFD, call);
}

static bool is_interrupt(uint32_t op)
{
	return op == XEN_DMOP_set_pci_intx_level || op == XEN_DMOP_set_isa_irq_level ||
	       op == XEN_DMOP_inject_msi || op == XEN_DMOP_set_irq_level;
}

static void operations(const struct guest *guest)
{
	static const uint32_t large[] = { 4096, 1 << 16, 1 << 20, ~0U };
	static union {
		struct dm_op op;
		char room[1 << 20];
	} buffer;
	struct privcmd_irqfd call = {
		.dm_op = (uintptr_t)&buffer,
		.size = sizeof(buffer.op),
		.fd = new_eventfd(),
		.dom = guest->dom,
	};
	int node = open_node();

	for (uint32_t op = 0; op < 64; op++) {
		char line[64];

		if (is_interrupt(op))
			continue;
		buffer.op.op = op;
		snprintf(line, sizeof(line), "dm_op %u is no interrupt", op);
		ended(line, EINVAL, assign_irqfd(node, &call));
	}
	buffer.op.op = ~0U;
	ended("dm_op ~0 is no interrupt", EINVAL, assign_irqfd(node, &call));

	buffer.op.op = XEN_DMOP_inject_msi;
	buffer.op.msi.addr = 0xfee00000;
	buffer.op.msi.data = 0x41;
	for (size_t nth = 0; nth < COUNT(large); nth++) {
		call.size = large[nth];
		ended("a dm_op that is oversized", EINVAL, assign_irqfd(node, &call));
	}
	for (call.size = 0; call.size < DM_OP_SIZE(msi); call.size += 4)
		ended("a dm_op cut short", EINVAL, assign_irqfd(node, &call));
	ended("a whole one", 0, assign_irqfd(node, &call));
	close(node);
}

static void irqfds(const struct guest *guest)
{
	struct dm_op op = { .op = XEN_DMOP_inject_msi };
	struct privcmd_irqfd call = {
		.dm_op = (uintptr_t)&op,
		.size = DM_OP_SIZE(msi),
		.fd = new_eventfd(),
		.dom = 0x7000,
	}, end;
	int node = open_node(), other = open_node();

	op.msi.addr = 0xfee00000;
	op.msi.data = 0x41;
	ended("an irqfd for a domain that does not exist", ENODEV, assign_irqfd(node, &call));
	call.dom = guest->dom;
	ended("an irqfd", 0, assign_irqfd(node, &call));
	end = call;
	end.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	ended("its end through another file", 0, assign_irqfd(other, &end));
	ended("that was none: it is still there", EBUSY, assign_irqfd(node, &call));
	close(node);
	ended("close is one", 0, assign_irqfd(other, &call));
	close(other);
}

void test_differences(const struct guest *guest)
{
	twins(guest);
	numbers(guest);
	guests(guest);
	operations(guest);
	irqfds(guest);
}
