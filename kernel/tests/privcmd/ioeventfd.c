// SPDX-License-Identifier: MIT OR Apache-2.0
/* The error table of IOCTL_PRIVCMD_IOEVENTFD. */

#include "check.h"
#include "device.h"
#include "rows.h"
#include "tests.h"

#include <errno.h>
#include <unistd.h>

#define COUNT(rows) (sizeof(rows) / sizeof(*(rows)))

/* What the rows need for their errors. */
static struct {
	int restricted;		/* a file restricted to another domain */
	int assigned;		/* an eventfd that has a registration */
} there;

static void struct_nowhere(struct call *call)
{
	call->argument = nowhere();
}

static void struct_in_kernel(struct call *call)
{
	call->argument = kernel_address();
}

static void struct_cut_off(struct call *call)
{
	call->argument = end_of_page();
}

static void unknown_flag(struct call *call)
{
	call->ioeventfd.flags |= 2;
}

static void all_flags(struct call *call)
{
	call->ioeventfd.flags = ~0U;
}

static void restricted(struct call *call)
{
	call->fd = there.restricted;
}

static void address_wraps(struct call *call)
{
	call->ioeventfd.addr = ~0ULL - 2;
}

static void address_wraps_to_0(struct call *call)
{
	call->ioeventfd.addr = ~0ULL - call->ioeventfd.addr_len + 1;
}

#define LENGTH(number) \
	static void length_##number(struct call *call) \
	{ \
		call->ioeventfd.addr_len = number; \
	}
LENGTH(0)
LENGTH(3)
LENGTH(16)

static void no_vcpu(struct call *call)
{
	call->ioeventfd.vcpus = 0;
}

static void too_many_vcpus(struct call *call)
{
	call->ioeventfd.vcpus = 4097;
}

static void not_open(struct call *call)
{
	call->ioeventfd.event_fd = 1000000;
}

static void negative(struct call *call)
{
	call->ioeventfd.event_fd = -1;
}

static void not_an_eventfd(struct call *call)
{
	call->ioeventfd.event_fd = STDIN_FILENO;
}

static void ports_nowhere(struct call *call)
{
	call->ioeventfd.ports = (uintptr_t)nowhere();
}

static void ports_in_kernel(struct call *call)
{
	call->ioeventfd.ports = (uintptr_t)kernel_address();
}

static void ports_cut_off(struct call *call)
{
	call->ioeventfd.ports = (uintptr_t)end_of_page();
}

static void other_domain(struct call *call)
{
	call->ioeventfd.dom = 0x7000;
}

static void fewer_vcpus(struct call *call)
{
	call->ioeventfd.vcpus = 1;
}

static void assigned_eventfd(struct call *call)
{
	call->ioeventfd.event_fd = there.assigned;
}

static void unassigned_eventfd(struct call *call)
{
	call->ioeventfd.event_fd = new_eventfd();
}

static void other_key(struct call *call)
{
	call->ioeventfd.ioreq += sizeof(struct ioreq);
}

#define BEFORE_THE_ADDRESS \
	{ "no struct", EFAULT, struct_nowhere }, \
	{ "a struct in the kernel", EFAULT, struct_in_kernel }, \
	{ "a struct cut off", EFAULT, struct_cut_off }, \
	{ "an unknown flag", EINVAL, unknown_flag }, \
	{ "all flags", EINVAL, all_flags }, \
	{ "a file for another domain", EPERM, restricted }
#define THE_EVENTFD \
	{ "no open file", EBADF, not_open }, \
	{ "a negative file", EBADF, negative }, \
	{ "not an eventfd", EINVAL, not_an_eventfd }

static const struct row new_key[] = {
	BEFORE_THE_ADDRESS,
	{ "addr + addr_len wraps", EINVAL, address_wraps },
	{ "addr + addr_len wraps to 0", EINVAL, address_wraps_to_0 },
	{ "addr_len 0", EINVAL, length_0 },
	{ "addr_len 3", EINVAL, length_3 },
	{ "addr_len 16", EINVAL, length_16 },
	{ "vcpus 0", EINVAL, no_vcpu },
	{ "vcpus 4097", EINVAL, too_many_vcpus },
	THE_EVENTFD,
	{ "no ports", EFAULT, ports_nowhere },
	{ "ports in the kernel", EFAULT, ports_in_kernel },
	{ "ports cut off", EFAULT, ports_cut_off },
};

static const struct row known_key[] = {
	BEFORE_THE_ADDRESS,
	{ "addr_len 3", EINVAL, length_3 },
	THE_EVENTFD,
	{ "another domain", EINVAL, other_domain },
	{ "another number of vCPUs", EINVAL, fewer_vcpus },
	{ "an eventfd that is registered already", EBUSY, assigned_eventfd },
};

static const struct row not_assigned[] = {
	BEFORE_THE_ADDRESS,
	THE_EVENTFD,
	{ "another key", ENODEV, other_key },
	{ "another domain", ENODEV, other_domain },
	{ "another number of vCPUs", ENODEV, fewer_vcpus },
	{ "another eventfd", ENODEV, unassigned_eventfd },
};

void test_ioeventfd(const struct guest *guest)
{
	struct device device;
	struct call call, end;

	device_open(&device, guest->dom, BASE, 0x1000);
	there.restricted = open_restricted(guest->dom + 1);
	there.assigned = new_eventfd();
	call = (struct call){
		.fd = open_node(),
		.request = IOCTL_PRIVCMD_IOEVENTFD,
		.ioeventfd = {
			.ioreq = (uintptr_t)device.page,
			.ports = (uintptr_t)device.ports,
			.addr = BASE,
			.addr_len = 4,
			.event_fd = there.assigned,
			.vcpus = device.vcpus,
			.vq = 0,
			.dom = guest->dom,
		},
	};
	end = call;
	end.ioeventfd.flags = PRIVCMD_IOEVENTFD_FLAG_DEASSIGN;

	rows("assign, new key", &call, new_key, COUNT(new_key));
	ended("deassign before any assign", ENODEV, make_call(&end));
	ended("assign", 0, make_call(&call));

	call.ioeventfd.event_fd = new_eventfd();
	call.ioeventfd.vq = 1;
	rows("assign, known key", &call, known_key, COUNT(known_key));
	ports_nowhere(&call);
	ended("assign, known key: its ports are not read again", 0, make_call(&call));

	rows("deassign", &end, not_assigned, COUNT(not_assigned));
	address_wraps(&end);
	length_3(&end);
	ports_nowhere(&end);
	end.ioeventfd.vq = 7;
	ended("deassign compares key, domain, vCPUs and eventfd alone", 0, make_call(&end));
	ended("deassign again", ENODEV, make_call(&end));
	end.ioeventfd.event_fd = call.ioeventfd.event_fd;
	ended("deassign the other", 0, make_call(&end));

	close(call.fd);
	close(there.restricted);
	device_close(&device);
}
