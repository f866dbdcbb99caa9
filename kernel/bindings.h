/* SPDX-License-Identifier: GPL-2.0 */
/* Headers whose items bindings.list names. */

#include <linux/anon_inodes.h>
#include <xen/events.h>
#include <xen/interface/event_channel.h>
#include <xen/interface/hvm/dm_op.h>
#include <xen/interface/memory.h>
#include <xen/interface/xen.h>
#include <xen/xenbus.h>

#include "shim.h"
