// SPDX-License-Identifier: MIT OR Apache-2.0
#include "privcmd.h"
#include "check.h"

#include <fcntl.h>
#include <sys/ioctl.h>

int privcmd_open(void)
{
	return must("/dev/xen/privcmd", open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC));
}

int privcmd_dm_op(int privcmd, domid_t dom, struct dm_op *op, size_t size)
{
	struct privcmd_dm_op_buf buf = { .uptr = op, .size = size };
	struct privcmd_dm_op call = { .dom = dom, .num = 1, .ubufs = &buf };

	return ioctl(privcmd, IOCTL_PRIVCMD_DM_OP, &call);
}

unsigned int privcmd_vcpus(int privcmd, domid_t dom)
{
	struct dm_op op = { .op = XEN_DMOP_nr_vcpus };

	must("XEN_DMOP_nr_vcpus", privcmd_dm_op(privcmd, dom, &op, DM_OP_SIZE(nr_vcpus)));
	return op.nr_vcpus.vcpus;
}
