// SPDX-License-Identifier: GPL-2.0

#include "shim.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void shim_trace_kick(u16 dom, u32 vcpu, bool pio, u64 addr, u8 len, u64 value, u8 end)
{
	trace_xen_eventfd_kick(dom, vcpu, pio, addr, len, value, end);
}

void shim_trace_irq(u16 dom, u8 kind, u64 number, u32 data, int error)
{
	trace_xen_eventfd_irq(dom, kind, number, data, error);
}
