/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints: /sys/kernel/tracing/events/xen_eventfd. */

#undef TRACE_SYSTEM
#define TRACE_SYSTEM xen_eventfd

#if !defined(XEN_EVENTFD_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define XEN_EVENTFD_TRACE_H

#include <linux/tracepoint.h>

#define show_kick_end(end) \
	__print_symbolic(end, { 0, "delivered" }, { 1, "held" }, { 2, "late" })

/* A guest's write to a doorbell, once it was acted on and before it is answered. */
TRACE_EVENT(xen_eventfd_kick,
	TP_PROTO(u16 dom, u32 vcpu, bool pio, u64 addr, u8 len, u64 value, u8 end),
	TP_ARGS(dom, vcpu, pio, addr, len, value, end),
	TP_STRUCT__entry(
		__field(u64, addr)
		__field(u64, value)
		__field(u32, vcpu)
		__field(u16, dom)
		__field(bool, pio)
		__field(u8, len)
		__field(u8, end)
	),
	TP_fast_assign(
		__entry->addr = addr;
		__entry->value = value;
		__entry->vcpu = vcpu;
		__entry->dom = dom;
		__entry->pio = pio;
		__entry->len = len;
		__entry->end = end;
	),
	TP_printk("dom=%u vcpu=%u %s=0x%llx len=%u value=0x%llx %s",
		  __entry->dom, __entry->vcpu, __entry->pio ? "pio" : "mmio", __entry->addr,
		  __entry->len, __entry->value, show_kick_end(__entry->end))
);

#define show_irq_kind(kind) \
	__print_symbolic(kind, { 0, "channel" }, { 1, "msi" }, { 2, "isa" }, { 3, "intx" }, { 4, "spi" }, \
			 { 5, "status" })

/*
 * An eventfd's signal that raised, or set, an interrupt; error is 0 or Xen's errno. Bits of an InterruptStatus
 * (status: its address, and the bits) come after the device's interrupt, if that was raised for them.
 */
TRACE_EVENT(xen_eventfd_irq,
	TP_PROTO(u16 dom, u8 kind, u64 number, u32 data, int error),
	TP_ARGS(dom, kind, number, data, error),
	TP_STRUCT__entry(
		__field(u64, number)
		__field(u32, data)
		__field(int, error)
		__field(u16, dom)
		__field(u8, kind)
	),
	TP_fast_assign(
		__entry->number = number;
		__entry->data = data;
		__entry->error = error;
		__entry->dom = dom;
		__entry->kind = kind;
	),
	TP_printk("dom=%u %s 0x%llx data=0x%x error=%d",
		  __entry->dom, show_irq_kind(__entry->kind), __entry->number, __entry->data,
		  __entry->error)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
