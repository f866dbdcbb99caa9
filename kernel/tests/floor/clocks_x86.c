// SPDX-License-Identifier: GPL-2.0
/* x86: the time stamp counter, and Xen's own clock, which a guest finds in its shared page. */

#include "clocks.h"

#include <linux/mutex.h>
#include <asm/xen/hypercall.h>
#include <xen/interface/vcpu.h>

/*
 * The area to which Xen writes the time on request. Linux registers none of its own unless all
 * TSCs of the machine are synchronised, which QEMU does not claim.
 */
static struct pvclock_vcpu_time_info clock;
static DEFINE_MUTEX(clock_lock);

static int read_clock(u64 *ticks, u64 *time)
{
	struct vcpu_register_time_memory_area area = { .addr.v = &clock };
	int error;

	mutex_lock(&clock_lock);
	error = HYPERVISOR_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area);
	area.addr.v = NULL;
	if (!error)
		error = HYPERVISOR_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area);
	*ticks = clock.tsc_timestamp;
	*time = clock.system_time;
	mutex_unlock(&clock_lock);
	return error;
}

int clocks_read(struct clocks *clocks)
{
	struct vcpu_runstate_info runstate;
	int error = HYPERVISOR_vcpu_op(VCPUOP_get_runstate_info, 0, &runstate);

	if (error)
		return error;
	clocks->running = runstate.time[RUNSTATE_running];
	return read_clock(&clocks->ticks, &clocks->time);
}
