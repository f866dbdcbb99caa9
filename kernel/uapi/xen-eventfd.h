/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/xen/eventfd: a guest's doorbells become eventfd signals.
 *
 * An open file serves one guest, once it is bound to it; closing it undoes all that it did.
 *
 * Each struct begins with its size in bytes, as the caller knows it, so that structs can grow. A
 * smaller size than that of the first version is EINVAL. A larger one than the module knows is
 * accepted if the bytes beyond are zero, else it is E2BIG. Unknown flags, and padding or unused
 * fields that are not zero, are EINVAL. A struct that cannot be read or written is EFAULT.
 */

#ifndef _UAPI_XEN_EVENTFD_H
#define _UAPI_XEN_EVENTFD_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define XEN_EVENTFD_ABI 1

/* Features. */
/* XEN_EVENTFD_ASSIGN and XEN_EVENTFD_DEASSIGN. */
#define XEN_EVENTFD_FEATURE_DOORBELLS (1ULL << 0)

/* What this module is. Works on every open file. */
struct xen_eventfd_query {
	__u32 size;
	__u32 abi;		/* out: XEN_EVENTFD_ABI */
	__u64 features;		/* out: XEN_EVENTFD_FEATURE_* */
	__u32 max_doorbells;	/* out: of one guest */
	__u32 max_held;		/* out: distinct kicks that are kept for one guest */
};

/*
 * Binds the file to a guest and sets a doorbell server up in it.
 *
 * EBUSY: the file is bound already, or another file is bound to this guest. ENODEV: there is no such
 * guest, or it is dying. EOPNOTSUPP: it is a PV guest, or it has more than 128 vCPUs. EPERM: Xen
 * does not let this domain serve it. ENOSPC: all of its ioreq servers are taken.
 */
struct xen_eventfd_bind {
	__u32 size;
	__u16 dom;
	__u16 pad;
};

enum xen_eventfd_space {
	XEN_EVENTFD_MMIO = 0,
	XEN_EVENTFD_PIO = 1,
};

/* At one address, a write goes to the first of these that takes it. */
enum xen_eventfd_kind {
	/* Writes of len (1, 2, 4, 8) bytes whose value, under datamask, is datamatch. */
	XEN_EVENTFD_VALUE = 0,
	/* All writes of len (1, 2, 4, 8) bytes. */
	XEN_EVENTFD_WIDTH = 1,
	/* All writes that begin at addr and end within len (1 to 8) bytes. */
	XEN_EVENTFD_ANY = 2,
};

/*
 * One doorbell. A guest's write that it takes is answered and signals the eventfd; the device model
 * does not see it. Bytes that are claimed by a doorbell reach the device model under no
 * circumstances: a write to them that no doorbell takes is held, and signals the eventfd that comes
 * for it; a read answers 0.
 *
 * All values at one address and len share one datamask.
 *
 * To assign, EEXIST: the same writes are taken by another doorbell, or values at this address have
 * another datamask. ENOSPC: max_doorbells are there. ENOMEM: out of memory, here or in Xen, which
 * knows 256 separate ranges for each space.
 * To deassign, every field is as it was at the assignment; ENOENT: there is no such doorbell. When it
 * returns, the eventfd is not signalled again.
 * To both, EBADF: not an open file; EINVAL: not an eventfd, or a doorbell that cannot be; ENOTCONN:
 * the file is not bound; ENODEV: the guest is dead.
 */
struct xen_eventfd_doorbell {
	__u32 size;
	__u32 flags;		/* 0 */
	__u32 space;		/* enum xen_eventfd_space */
	__u32 kind;		/* enum xen_eventfd_kind */
	__u32 len;
	__s32 eventfd;
	__u64 addr;
	__u64 datamatch;	/* for XEN_EVENTFD_VALUE, without bits outside datamask; else 0 */
	__u64 datamask;		/* for XEN_EVENTFD_VALUE, not 0 and within len; else 0 */
};

/* What the doorbells have seen since the file was bound. ENOTCONN, ENODEV: as above. */
struct xen_eventfd_stats {
	__u32 size;
	__u16 server;		/* out: id of the ioreq server */
	__u16 doorbells;	/* out: how many are assigned */
	__u64 delivered;	/* out: kicks that signalled an eventfd */
	__u64 held;		/* out: kicks that no doorbell took */
	__u64 redelivered;	/* out: signals at assignment, for what was held */
	__u64 late;		/* out: kicks that came after their doorbell was gone */
	__u64 reads;		/* out: reads, answered with 0 */
	__u64 broadcasts;	/* out: Xen's messages to every ioreq server */
	__u64 odd;		/* out: requests that no doorbell serves, answered */
	__u64 spurious;		/* out: events without a request */
};

#define XEN_EVENTFD_IOCTL 0xEF

/* _IO, as the size of a struct is in the struct. Any other request is ENOTTY. */
#define XEN_EVENTFD_QUERY _IO(XEN_EVENTFD_IOCTL, 0x00)
#define XEN_EVENTFD_BIND _IO(XEN_EVENTFD_IOCTL, 0x01)
#define XEN_EVENTFD_ASSIGN _IO(XEN_EVENTFD_IOCTL, 0x02)
#define XEN_EVENTFD_DEASSIGN _IO(XEN_EVENTFD_IOCTL, 0x03)
#define XEN_EVENTFD_STATS _IO(XEN_EVENTFD_IOCTL, 0x04)

#endif
