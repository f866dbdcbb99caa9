// SPDX-License-Identifier: MIT OR Apache-2.0
/* The error table of IOCTL_PRIVCMD_IRQFD, and its interrupt in the guest. */

#include "check.h"
#include "privcmd.h"
#include "rows.h"
#include "tests.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define COUNT(rows) (sizeof(rows) / sizeof(*(rows)))

static struct {
	int restricted;		/* a file restricted to another domain */
	int assigned;		/* an eventfd that raises an interrupt */
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
	call->irqfd.flags |= 2;
}

static void all_flags(struct call *call)
{
	call->irqfd.flags = ~0U;
}

static void restricted(struct call *call)
{
	call->fd = there.restricted;
}

static void dm_op_nowhere(struct call *call)
{
	call->irqfd.dm_op = (uintptr_t)nowhere();
}

static void dm_op_in_kernel(struct call *call)
{
	call->irqfd.dm_op = (uintptr_t)kernel_address();
}

static void dm_op_cut_off(struct call *call)
{
	call->irqfd.dm_op = (uintptr_t)end_of_page();
}

static void not_open(struct call *call)
{
	call->irqfd.fd = 1000000;
}

static void negative(struct call *call)
{
	call->irqfd.fd = -1;
}

static void not_an_eventfd(struct call *call)
{
	call->irqfd.fd = STDIN_FILENO;
}

static void assigned_eventfd(struct call *call)
{
	call->irqfd.fd = there.assigned;
}

#define BEFORE_THE_DM_OP \
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

static const struct row to_assign[] = {
	BEFORE_THE_DM_OP,
	{ "no dm_op", EFAULT, dm_op_nowhere },
	{ "a dm_op in the kernel", EFAULT, dm_op_in_kernel },
	{ "a dm_op cut off", EFAULT, dm_op_cut_off },
	THE_EVENTFD,
	{ "an eventfd that raises an interrupt already", EBUSY, assigned_eventfd },
};

static const struct row to_deassign[] = {
	BEFORE_THE_DM_OP,
	THE_EVENTFD,
};

static struct call interrupt(const struct guest *guest, struct dm_op *op, int eventfd)
{
	*op = (struct dm_op)OWN;
	return (struct call){
		.fd = open_node(),
		.request = IOCTL_PRIVCMD_IRQFD,
		.irqfd = {
			.dm_op = (uintptr_t)op,
			.size = OWN_SIZE,
			.fd = eventfd,
			.dom = guest->dom,
		},
	};
}

void test_irqfd(const struct guest *guest)
{
	struct dm_op op;
	struct call call, other, end;

	there.restricted = open_restricted(guest->dom + 1);
	there.assigned = new_eventfd();
	call = interrupt(guest, &op, there.assigned);
	end = call;
	end.irqfd.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;

	ended("deassign before any assign", 0, make_call(&end));
	ended("assign", 0, make_call(&call));
	call.irqfd.fd = new_eventfd();
	rows("assign", &call, to_assign, COUNT(to_assign));
	ended("assign another", 0, make_call(&call));
	other = call;
	other.fd = open_node();
	ended("assign it in another file", EBUSY, make_call(&other));
	close(other.fd);

	rows("deassign", &end, to_deassign, COUNT(to_deassign));
	dm_op_nowhere(&end);
	ended("deassign compares the eventfd alone", 0, make_call(&end));
	ended("deassign again", 0, make_call(&end));
	end.irqfd.fd = call.irqfd.fd;
	ended("deassign the other", 0, make_call(&end));

	close(call.fd);
	close(there.restricted);
}

void test_interrupt(const struct guest *guest)
{
	int eventfd = new_eventfd();
	struct dm_op op;
	struct call call = interrupt(guest, &op, eventfd);

	signal_eventfd(eventfd);
	ended("assign", 0, make_call(&call));
	/* The kernel has its own copy. */
	memset(&op, 0xff, sizeof(op));
	guest_await(guest);
	counted("an earlier signal raises an interrupt at once, and is consumed", 0, eventfd);

	signal_eventfd(eventfd);
	guest_await(guest);
	counted("a signal raises an interrupt, and is consumed", 0, eventfd);

	call.irqfd.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	ended("deassign", 0, make_call(&call));
	signal_eventfd(eventfd);
	counted("after deassign a signal stays in the counter", 1, eventfd);

	call = interrupt(guest, &op, eventfd);
	ended("assign again", 0, make_call(&call));
	signal_eventfd(eventfd);
	guest_await(guest);
	counted("and a signal raises an interrupt again", 0, eventfd);
	close(eventfd);
	close(call.fd);
}
