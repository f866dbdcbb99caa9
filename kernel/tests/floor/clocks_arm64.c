// SPDX-License-Identifier: GPL-2.0
/*
 * 64-bit Arm: the virtual counter, and the physical one, which Xen lets every domain read and gives no
 * offset. VCPUOP_get_runstate_info is not there (Xen's arch/arm/domain.c); what a toolstack asks is.
 */

#include "clocks.h"

#include <linux/errno.h>
#include <linux/time64.h>
#include <asm/barrier.h>
#include <asm/sysreg.h>
#include <asm/xen/hypercall.h>
#include <xen/interface/xen.h>

/* Xen's public/domctl.h, as far as it is used: of Xen 4.20. Another version answers EACCES. */
#define DOMCTL_VERSION 0x17
#define DOMCTL_GETVCPUINFO 14

struct domctl {
	u32 command;
	u32 version;
	u16 domain;
	u16 pad[3];
	union {
		struct {
			u32 vcpu;
			u8 online;
			u8 blocked;
			u8 running;
			u64 time __aligned(8);	/* in nanoseconds */
			u32 cpu;
		} vcpu;
		u8 pad2[128];
	};
};

int clocks_read(struct clocks *clocks)
{
	/* By the number that this domain has: domain 0's. */
	struct domctl domctl = { .command = DOMCTL_GETVCPUINFO, .version = DOMCTL_VERSION };
	long error = privcmd_call(__HYPERVISOR_domctl, (unsigned long)&domctl, 0, 0, 0, 0);

	if (error)
		return error;
	/* Else a tick is no nanosecond, and figures in ticks are not what they are said to be. */
	if (read_sysreg(cntfrq_el0) != NSEC_PER_SEC)
		return -EOPNOTSUPP;
	clocks->running = domctl.vcpu.time;
	isb();
	clocks->ticks = read_sysreg(cntvct_el0);
	clocks->time = read_sysreg(cntpct_el0);
	return 0;
}
