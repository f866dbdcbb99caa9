// SPDX-License-Identifier: GPL-2.0

#include "shim.h"

#include <asm/xen/hypercall.h>
#include <xen/interface/hvm/dm_op.h>
#include <xen/xen.h>

bool shim_xen_domain(void)
{
	return xen_domain();
}

bool shim_xen_initial_domain(void)
{
	return xen_initial_domain();
}

bool shim_xen_pv_domain(void)
{
	return xen_pv_domain();
}

int shim_dm_op(domid_t domain, unsigned int count, struct xen_dm_op_buf *buffers)
{
	return HYPERVISOR_dm_op(domain, count, buffers);
}

int shim_memory_op(unsigned int command, void *argument)
{
	return HYPERVISOR_memory_op(command, argument);
}

int shim_event_channel_op(int command, void *argument)
{
	return HYPERVISOR_event_channel_op(command, argument);
}
