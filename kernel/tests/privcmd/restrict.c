// SPDX-License-Identifier: MIT OR Apache-2.0
/* IOCTL_PRIVCMD_RESTRICT. The tables of the other tests check EPERM for other domains. */

#include "check.h"
#include "rows.h"
#include "tests.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

void test_restrict(const struct guest *guest)
{
	domid_t own = guest->dom, other = guest->dom + 1;
	int node = open_node();

	ended("no domain", EFAULT, ioctl(node, IOCTL_PRIVCMD_RESTRICT, nowhere()));
	ended("a domain in the kernel", EFAULT, ioctl(node, IOCTL_PRIVCMD_RESTRICT, kernel_address()));
	ended("a domain cut off", EFAULT, ioctl(node, IOCTL_PRIVCMD_RESTRICT, end_of_page()));
	ended("to a domain", 0, ioctl(node, IOCTL_PRIVCMD_RESTRICT, &own));
	ended("to another", EINVAL, ioctl(node, IOCTL_PRIVCMD_RESTRICT, &other));
	ended("to the same again", 0, ioctl(node, IOCTL_PRIVCMD_RESTRICT, &own));
	close(node);
	node = open_node();
	ended("another file is not restricted", 0, ioctl(node, IOCTL_PRIVCMD_RESTRICT, &other));
	close(node);
}
