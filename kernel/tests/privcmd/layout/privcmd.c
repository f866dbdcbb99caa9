// SPDX-License-Identifier: MIT OR Apache-2.0
/* The privcmd ABI in numbers, as programs were built with it. */

#include <assert.h>
#include <stddef.h>

#include <linux/ioctl.h>
#include <xen/privcmd.h>

#define SIZE(type, size) static_assert(sizeof(struct type) == (size), #type)
#define AT(type, field, offset) \
	static_assert(offsetof(struct type, field) == (offset), #type "." #field)

SIZE(privcmd_ioeventfd, 48);
AT(privcmd_ioeventfd, ioreq, 0);
AT(privcmd_ioeventfd, ports, 8);
AT(privcmd_ioeventfd, addr, 16);
AT(privcmd_ioeventfd, addr_len, 24);
AT(privcmd_ioeventfd, event_fd, 28);
AT(privcmd_ioeventfd, vcpus, 32);
AT(privcmd_ioeventfd, vq, 36);
AT(privcmd_ioeventfd, flags, 40);
AT(privcmd_ioeventfd, dom, 44);
AT(privcmd_ioeventfd, pad, 46);

SIZE(privcmd_irqfd, 24);
AT(privcmd_irqfd, dm_op, 0);
AT(privcmd_irqfd, size, 8);
AT(privcmd_irqfd, fd, 12);
AT(privcmd_irqfd, flags, 16);
AT(privcmd_irqfd, dom, 20);
AT(privcmd_irqfd, pad, 22);

static_assert(IOCTL_PRIVCMD_IOEVENTFD == 0x40305009, "IOEVENTFD");
static_assert(IOCTL_PRIVCMD_IRQFD == 0x40185008, "IRQFD");
static_assert(IOCTL_PRIVCMD_RESTRICT == 0x00025006, "RESTRICT");
static_assert(PRIVCMD_IOEVENTFD_FLAG_DEASSIGN == 1, "a flag");
static_assert(PRIVCMD_IRQFD_FLAG_DEASSIGN == 1, "a flag");
