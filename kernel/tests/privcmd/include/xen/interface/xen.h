/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * <xen/privcmd.h> and <xen/evtchn.h> use types of a Xen header that Linux does not export.
 */

#ifndef PRIVCMD_XEN_INTERFACE_XEN_H
#define PRIVCMD_XEN_INTERFACE_XEN_H

#include <stddef.h>
#include <stdint.h>

typedef uint16_t domid_t;
typedef unsigned long xen_pfn_t;

#endif
