/* SPDX-License-Identifier: GPL-2.0 */
/* What is inline in C, for Rust. The rules of each are those of the function that it names. */

#ifndef XEN_EVENTFD_SHIM_H
#define XEN_EVENTFD_SHIM_H

#include <linux/types.h>
#include <xen/interface/xen.h>

struct xen_dm_op_buf;

/* xen_domain(), xen_initial_domain(), xen_pv_domain() */
bool shim_xen_domain(void);
bool shim_xen_initial_domain(void);
bool shim_xen_pv_domain(void);

/* HYPERVISOR_*(): zero or more, or a negative errno, which is Xen's. */
int shim_dm_op(domid_t domain, unsigned int count, struct xen_dm_op_buf *buffers);
int shim_memory_op(unsigned int command, void *argument);
int shim_event_channel_op(int command, void *argument);

#endif
