// SPDX-License-Identifier: MIT OR Apache-2.0
/* xen-eventfd.h is self-contained, in C and in C++, and its structs have no hidden padding. */

#include "xen-eventfd.h"

#include <assert.h>
#include <stddef.h>

#define SIZE(type, size) static_assert(sizeof(struct type) == (size), #type)
#define AT(type, field, offset) \
	static_assert(offsetof(struct type, field) == (offset), #type "." #field)

SIZE(xen_eventfd_query, 32);
AT(xen_eventfd_query, abi, 4);
AT(xen_eventfd_query, features, 8);
AT(xen_eventfd_query, max_doorbells, 16);
AT(xen_eventfd_query, max_held, 20);
AT(xen_eventfd_query, max_missed, 24);
AT(xen_eventfd_query, max_irqs, 28);

SIZE(xen_eventfd_create, 16);
AT(xen_eventfd_create, flags, 4);
AT(xen_eventfd_create, dom, 8);
AT(xen_eventfd_create, pad, 10);
AT(xen_eventfd_create, gone, 12);

SIZE(xen_eventfd_owner, 28);
AT(xen_eventfd_owner, dom, 4);
AT(xen_eventfd_owner, pad, 6);
AT(xen_eventfd_owner, pid, 8);
AT(xen_eventfd_owner, name, 12);

SIZE(xen_eventfd_memory, 32);
AT(xen_eventfd_memory, flags, 4);
AT(xen_eventfd_memory, dom, 8);
AT(xen_eventfd_memory, pad, 10);
AT(xen_eventfd_memory, guest_address, 16);
AT(xen_eventfd_memory, length, 24);

SIZE(xen_eventfd_doorbell, 48);
AT(xen_eventfd_doorbell, flags, 4);
AT(xen_eventfd_doorbell, space, 8);
AT(xen_eventfd_doorbell, kind, 12);
AT(xen_eventfd_doorbell, len, 16);
AT(xen_eventfd_doorbell, eventfd, 20);
AT(xen_eventfd_doorbell, addr, 24);
AT(xen_eventfd_doorbell, datamatch, 32);
AT(xen_eventfd_doorbell, datamask, 40);

SIZE(xen_eventfd_stats, 72);
AT(xen_eventfd_stats, server, 4);
AT(xen_eventfd_stats, doorbells, 6);
AT(xen_eventfd_stats, delivered, 8);
AT(xen_eventfd_stats, spurious, 64);

SIZE(xen_eventfd_entry, 64);
AT(xen_eventfd_entry, what, 4);
AT(xen_eventfd_entry, index, 8);
AT(xen_eventfd_entry, space, 12);
AT(xen_eventfd_entry, kind, 16);
AT(xen_eventfd_entry, len, 20);
AT(xen_eventfd_entry, addr, 24);
AT(xen_eventfd_entry, kicks, 48);
AT(xen_eventfd_entry, held, 56);

SIZE(xen_eventfd_missed, 56);
AT(xen_eventfd_missed, space, 4);
AT(xen_eventfd_missed, len, 8);
AT(xen_eventfd_missed, eventfd, 12);
AT(xen_eventfd_missed, addr, 16);
AT(xen_eventfd_missed, width, 24);
AT(xen_eventfd_missed, pad, 28);
AT(xen_eventfd_missed, value, 32);
AT(xen_eventfd_missed, kicks, 40);
AT(xen_eventfd_missed, overflowed, 48);

SIZE(xen_eventfd_irq, 56);
AT(xen_eventfd_irq, flags, 4);
AT(xen_eventfd_irq, kind, 8);
AT(xen_eventfd_irq, eventfd, 12);
AT(xen_eventfd_irq, trigger, 16);
AT(xen_eventfd_irq, number, 20);
AT(xen_eventfd_irq, pin, 24);
AT(xen_eventfd_irq, msi_data, 28);
AT(xen_eventfd_irq, msi_addr, 32);
AT(xen_eventfd_irq, raised, 40);
AT(xen_eventfd_irq, failed, 48);

SIZE(xen_eventfd_irq_change, 72);
AT(xen_eventfd_irq_change, kind, 8);
AT(xen_eventfd_irq_change, msi_addr, 32);
AT(xen_eventfd_irq_change, new_kind, 40);
AT(xen_eventfd_irq_change, new_trigger, 44);
AT(xen_eventfd_irq_change, new_number, 48);
AT(xen_eventfd_irq_change, new_pin, 52);
AT(xen_eventfd_irq_change, new_msi_data, 56);
AT(xen_eventfd_irq_change, pad, 60);
AT(xen_eventfd_irq_change, new_msi_addr, 64);

SIZE(xen_eventfd_irq_state, 48);
AT(xen_eventfd_irq_state, kind, 8);
AT(xen_eventfd_irq_state, msi_addr, 32);
AT(xen_eventfd_irq_state, masked, 40);
AT(xen_eventfd_irq_state, pending, 44);

SIZE(xen_eventfd_channel, 16);
AT(xen_eventfd_channel, flags, 4);
AT(xen_eventfd_channel, port, 8);
AT(xen_eventfd_channel, eventfd, 12);

SIZE(xen_eventfd_status, 56);
AT(xen_eventfd_status, flags, 4);
AT(xen_eventfd_status, kind, 8);
AT(xen_eventfd_status, trigger, 12);
AT(xen_eventfd_status, number, 16);
AT(xen_eventfd_status, pin, 20);
AT(xen_eventfd_status, msi_data, 24);
AT(xen_eventfd_status, pad, 28);
AT(xen_eventfd_status, msi_addr, 32);
AT(xen_eventfd_status, addr, 40);
AT(xen_eventfd_status, bits, 48);
AT(xen_eventfd_status, reserved, 52);

SIZE(xen_eventfd_status_change, 72);
AT(xen_eventfd_status_change, flags, 4);
AT(xen_eventfd_status_change, addr, 8);
AT(xen_eventfd_status_change, set, 16);
AT(xen_eventfd_status_change, clear, 20);
AT(xen_eventfd_status_change, bits, 24);
AT(xen_eventfd_status_change, reserved, 28);
AT(xen_eventfd_status_change, reads, 32);
AT(xen_eventfd_status_change, acks, 40);
AT(xen_eventfd_status_change, raised, 48);
AT(xen_eventfd_status_change, failed, 56);
AT(xen_eventfd_status_change, odd, 64);

static_assert(XEN_EVENTFD_QUERY == 0xEF00 && XEN_EVENTFD_CREATE == 0xEF01, "control file");
static_assert(XEN_EVENTFD_ASSIGN == 0xEF10 && XEN_EVENTFD_ASSIGN_IRQ == 0xEF20, "guest's file");
static_assert(XEN_EVENTFD_SET_IRQ == 0xEF24 && XEN_EVENTFD_IRQ_STATE == 0xEF27, "guest's file");
static_assert(XEN_EVENTFD_ASSIGN_CHANNEL == 0xEF30, "guest's file");
static_assert(XEN_EVENTFD_ASSIGN_STATUS == 0xEF40, "guest's file");
static_assert(XEN_EVENTFD_CHANGE_STATUS == 0xEF42 && XEN_EVENTFD_IRQ_STATUS == 5, "guest's file");
