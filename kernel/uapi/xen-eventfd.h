/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/xen/eventfd: a guest's doorbells become eventfd signals, and eventfd signals become a
 * guest's interrupts.
 *
 * Objects are file descriptors. An open of the device gives a control file; XEN_EVENTFD_CREATE on it
 * gives a guest's file, on which everything is assigned. Closing a file undoes all that was done
 * through it. A guest's file, and an assignment, outlive the control file.
 *
 * Each struct begins with its size in bytes, as the caller knows it, so that structs can grow. A
 * smaller size than that of the first version is EINVAL. A larger one than the module knows is
 * accepted if the bytes beyond are zero, else it is E2BIG. Unknown flags, and padding or unused
 * fields that are not zero, are EINVAL. A struct that cannot be read or written is EFAULT.
 *
 * The memory of an assignment is charged to its caller's memory cgroup; interrupt
 * descriptors, which are charged to none, are bounded. To take an assignment back needs no memory.
 *
 * The control file also takes the requests of <xen/privcmd.h> IOCTL_PRIVCMD_IOEVENTFD,
 * IOCTL_PRIVCMD_IRQFD and IOCTL_PRIVCMD_RESTRICT; xen-eventfd(4) says where they differ.
 */

#ifndef _UAPI_XEN_EVENTFD_H
#define _UAPI_XEN_EVENTFD_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define XEN_EVENTFD_ABI 1

/* Features. */
/* XEN_EVENTFD_ASSIGN, _DEASSIGN, _STATS, _LIST, _MISSED. */
#define XEN_EVENTFD_FEATURE_DOORBELLS (1ULL << 0)
/* XEN_EVENTFD_ASSIGN_IRQ, _DEASSIGN_IRQ, _IRQ_STATS, _LOWER. */
#define XEN_EVENTFD_FEATURE_IRQS (1ULL << 1)
/* XEN_EVENTFD_ASSIGN_CHANNEL, _DEASSIGN_CHANNEL. */
#define XEN_EVENTFD_FEATURE_CHANNELS (1ULL << 2)
/* The requests of <xen/privcmd.h>. */
#define XEN_EVENTFD_FEATURE_PRIVCMD (1ULL << 3)
/* XEN_EVENTFD_SET_IRQ, _MASK_IRQ, _UNMASK_IRQ, _IRQ_STATE. */
#define XEN_EVENTFD_FEATURE_IRQ_CHANGES (1ULL << 4)
/* XEN_EVENTFD_CREATE_SHARE. */
#define XEN_EVENTFD_FEATURE_SHARE (1ULL << 5)
/* XEN_EVENTFD_CREATE_OWN. */
#define XEN_EVENTFD_FEATURE_OWN (1ULL << 6)
/* XEN_EVENTFD_MEMORY. */
#define XEN_EVENTFD_FEATURE_MEMORY (1ULL << 7)
/* XEN_EVENTFD_ASSIGN_STATUS, _DEASSIGN_STATUS, _CHANGE_STATUS, XEN_EVENTFD_IRQ_STATUS. */
#define XEN_EVENTFD_FEATURE_STATUS (1ULL << 8)

/* What this module is. On a control file. */
struct xen_eventfd_query {
	__u32 size;
	__u32 abi;		/* out: XEN_EVENTFD_ABI */
	__u64 features;		/* out: XEN_EVENTFD_FEATURE_* */
	__u32 max_doorbells;	/* out: of one guest */
	__u32 max_held;		/* out: distinct kicks that are kept for one guest */
	__u32 max_missed;	/* out: distinct kicks that are kept for one fallback */
	__u32 max_irqs;		/* out: of one guest */
};

/* Only keeps the guest for the caller: it sets no server up, and every assignment is EOPNOTSUPP. */
#define XEN_EVENTFD_CREATE_RESERVE (1U << 0)
/*
 * Shares the guest with those who hold it by the requests of <xen/privcmd.h>, for the interrupts and
 * channels that these do not have. Any number of such files and of control files with such requests hold
 * a guest together, in any order; any control file that may serve the guest may ask for one.
 * Each file assigns, and takes back, its own alone: what was assigned through it ends with it, and the
 * guest is let go of with the last. max_irqs is for all of them together. Doorbells are assigned by
 * IOCTL_PRIVCMD_IOEVENTFD: XEN_EVENTFD_ASSIGN, _DEASSIGN and _MISSED are EOPNOTSUPP.
 */
#define XEN_EVENTFD_CREATE_SHARE (1U << 1)
/*
 * The file serves the calling process alone: it ends when that process closes a descriptor of it or ends,
 * as a POSIX record lock does, even if a forked child still has copies. Their requests are ENODEV then.
 * Without this flag the guest is held until the last copy is closed, so that a file can be handed over.
 */
#define XEN_EVENTFD_CREATE_OWN (1U << 2)

/*
 * Takes a guest, sets a doorbell server up in it, and returns a new file descriptor, close-on-exec:
 * the guest's file. On a control file.
 *
 * A guest that is about to be let go of is waited for, until a signal comes; so is xenstore, by every
 * request but XEN_EVENTFD_QUERY, if it has not started yet.
 *
 * EBUSY: another holds the guest, or shares it with others; XEN_EVENTFD_OWNER tells who took it. ENODEV:
 * there is no such guest, or it is dying. EOPNOTSUPP: it is a PV guest, or it has more than 128 vCPUs.
 * ENOSYS: this Xen has no ioreq servers, as one for Arm can be built. EPERM: the control file is restricted
 * to another guest, or Xen does not let this domain serve it. ENOSPC: all of its ioreq servers are taken. EBADF, EINVAL: `gone` is not open, not an eventfd. EMFILE: too many open files.
 *
 * A guest is gone when it dies, when it lives and has lost its ioreq server (destroyed by another process,
 * or by Xen up to 4.13 at a soft reset), and when this domain itself is suspended. Where xenstore does not
 * report an end, which is so for a lost server and for any outside the initial domain, it is found within
 * seconds. Every request on the guest's file is ENODEV then; a guest that lives can be taken again.
 */
struct xen_eventfd_create {
	__u32 size;
	__u32 flags;		/* XEN_EVENTFD_CREATE_* */
	__u16 dom;
	__u16 pad;
	__s32 gone;		/* an eventfd that is signalled once when the guest is gone, or -1 */
};

/*
 * Who holds a guest. On a control file. ENOENT: no process. EPERM: it is restricted to another guest.
 */
struct xen_eventfd_owner {
	__u32 size;
	__u16 dom;
	__u16 pad;
	/* out: the process that took it, in the caller's namespace; 0: it is not there, or has ended */
	__s32 pid;
	char name[16];		/* out: its name, with a zero at the end */
};

/*
 * Makes a part of a guest's memory an object, and returns a new file descriptor, close-on-exec, whose
 * mmap() maps it, for programs that know nothing of Xen. On a control file. The guest need not be taken, and
 * the object outlives the control file. It may be passed to any process: a process that has it can map it.
 *
 * Offset 0 of the object is guest_address. mmap() takes MAP_SHARED alone, and no more than the object has
 * (EINVAL); lseek() with SEEK_END tells its length. Nothing is mapped before it is touched, and then up to 2
 * MiB around it: what begins at a multiple of 2 MiB is mapped in the fewest steps. A page that the guest
 * does not have is SIGBUS, or EFAULT in a system call, and so is all of it once the guest is gone, or this
 * domain was suspended. A page that was mapped stays what it was until all mappings, and in a domain that is
 * not PV the files, are closed, even if the guest gives it back to Xen and gets another.
 *
 * In a domain that is not PV, I/O may go to the memory directly (O_DIRECT), and what it refers to is given
 * back only once it is over. In a PV domain there are no pages behind a mapping: such I/O is EFAULT, and a
 * mapping is not inherited by fork().
 *
 * EINVAL: guest_address or length is not a multiple of 4096, length is 0, or the part ends beyond the
 * guest's last page (XENMEM_maximum_gpfn). ENODEV: there is no such guest, or it is dying. EOPNOTSUPP: it is a
 * PV guest. EPERM: the control file is restricted to another guest, or Xen does not let this domain serve it.
 * ENOSPC: the guest has 32 such objects. EMFILE: too many open files.
 */
struct xen_eventfd_memory {
	__u32 size;
	__u32 flags;		/* 0 */
	__u16 dom;
	__u16 pad[3];
	__u64 guest_address;
	__u64 length;		/* in bytes */
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
	/* The same, and XEN_EVENTFD_MISSED tells what they were. */
	XEN_EVENTFD_FALLBACK = 3,
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
 * knows 256 separate ranges for each space. EOPNOTSUPP: an I/O port, on Arm.
 * To deassign, every field is as it was at the assignment; ENOENT: there is no such doorbell. When it
 * returns, the eventfd is not signalled again.
 * To both, EBADF: not an open file; EINVAL: not an eventfd, or a doorbell that cannot be; ENODEV: the
 * guest is dead.
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

/* What the doorbells have seen since the guest was taken. ENODEV: the guest is dead. */
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

enum xen_eventfd_list_what {
	XEN_EVENTFD_LIST_DOORBELLS = 0,	/* what is assigned, in the order of addresses */
	XEN_EVENTFD_LIST_HELD = 1,	/* kicks that wait for a doorbell */
};

/* One entry of a list, for people who look. ENOENT: the list ends before it. ENODEV: as above. */
struct xen_eventfd_entry {
	__u32 size;
	__u32 what;		/* enum xen_eventfd_list_what */
	__u32 index;
	__u32 space;		/* out, as in struct xen_eventfd_doorbell: */
	__u32 kind;
	__u32 len;
	__u64 addr;
	__u64 datamatch;
	__u64 datamask;
	__u64 kicks;		/* out: delivered to it */
	__u64 held;		/* out: kicks at its address that no doorbell took */
};

/*
 * Takes from a fallback one distinct kick that it received and that was not taken yet, in order. The
 * fields down to addr name the fallback as at its assignment. ENOENT: there is no such fallback.
 */
struct xen_eventfd_missed {
	__u32 size;
	__u32 space;
	__u32 len;
	__s32 eventfd;
	__u64 addr;
	__u32 width;		/* out: of the kick, in bytes */
	__u32 pad;
	__u64 value;		/* out: what was written */
	__u64 kicks;		/* out: how often; 0: nothing is left */
	__u64 overflowed;	/* out: kicks of which only the number is known; given out once */
};

enum xen_eventfd_irq_kind {
	XEN_EVENTFD_IRQ_CHANNEL = 0,	/* number: a port that the guest allocated for this domain */
	XEN_EVENTFD_IRQ_MSI = 1,	/* msi_addr, msi_data (x86) */
	XEN_EVENTFD_IRQ_ISA = 2,	/* number: 0 to 15 (x86 HVM) */
	XEN_EVENTFD_IRQ_INTX = 3,	/* number: PCI device 0 to 31; pin: 0 to 3 (x86 HVM) */
	XEN_EVENTFD_IRQ_SPI = 4,	/* number: 32 to 1019 (Arm) */
	/* msi_addr: an InterruptStatus that is assigned; number: the bits that are set there, not 0 */
	XEN_EVENTFD_IRQ_STATUS = 5,
};

/* Lines are test-and-set in Xen: raising one that is up does nothing. */
enum xen_eventfd_trigger {
	XEN_EVENTFD_PULSE = 0,		/* raise and lower at once */
	/* Raise; XEN_EVENTFD_LOWER lowers, and so does the end of the line's last assignment. */
	XEN_EVENTFD_LEVEL = 1,
};

/*
 * One eventfd that raises one interrupt. What it counted before raises one at once; a signal is
 * consumed by being passed on. Each write raises one interrupt, however much it adds: of an eventfd
 * with EFD_SEMAPHORE each takes 1, and the rest stays in the counter and raises none, as with KVM.
 * An eventfd that its last user closes ends its assignment.
 *
 * To assign, EOPNOTSUPP: an interrupt that no guest of this architecture has (an SPI on x86; an MSI, an
 * ISA or a PCI line on Arm), or an ISA or PCI line of a guest that is not known to have an interrupt
 * controller for it, as PVH guests have none: neither xenstore's /libxl/<dom>/type is "hvm", nor is
 * /local/domain/<dom>/hvmloader/bios there where that is missing.
 * EBUSY: the eventfd raises an interrupt already, of whichever guest; or the line is a device's with
 * InterruptStatus (XEN_EVENTFD_ASSIGN_STATUS), and one of the two is XEN_EVENTFD_LEVEL. EINVAL: no eventfd,
 * an interrupt that cannot be, or a port that the guest has not allocated for this domain, or that is
 * bound. ENOSPC: max_irqs are there, or too many event channels (struct xen_eventfd_channel).
 * To deassign, to ask and to lower, every in-field is as it was; ENOENT: there is no such assignment.
 * When deassign returns, the interrupt is not raised again.
 * ENODEV: the guest is dead.
 *
 * XEN_EVENTFD_MASK_IRQ and XEN_EVENTFD_UNMASK_IRQ name an assignment in the same way. When mask
 * returns, the interrupt is not raised again until it is unmasked. A signal that comes meanwhile is
 * pending: XEN_EVENTFD_IRQ_STATE tells, unmask raises the interrupt once for all of them, and deassign
 * gives the eventfd back a count of 1 for them. To mask what is masked, or to unmask what is not,
 * changes nothing. A new assignment is not masked.
 */
struct xen_eventfd_irq {
	__u32 size;
	__u32 flags;		/* 0 */
	__u32 kind;		/* enum xen_eventfd_irq_kind */
	__s32 eventfd;
	__u32 trigger;		/* of lines: enum xen_eventfd_trigger; else 0 */
	__u32 number;
	__u32 pin;
	__u32 msi_data;
	__u64 msi_addr;
	__u64 raised;		/* out of XEN_EVENTFD_IRQ_STATS: interrupts raised */
	__u64 failed;		/* out of XEN_EVENTFD_IRQ_STATS: refused by Xen */
};

/*
 * XEN_EVENTFD_SET_IRQ: has an assigned eventfd raise another interrupt, masked or not as it was. When
 * it returns, the interrupt before is not raised again. Each signal raises the one or the other.
 *
 * The fields down to msi_addr name the assignment as it is; ENOENT: there is none. The others are the
 * interrupt that it is to raise; errors are those of XEN_EVENTFD_ASSIGN_IRQ. If it fails, nothing has
 * changed.
 */
struct xen_eventfd_irq_change {
	__u32 size;
	__u32 flags;		/* 0 */
	__u32 kind;		/* as in struct xen_eventfd_irq, to msi_addr */
	__s32 eventfd;
	__u32 trigger;
	__u32 number;
	__u32 pin;
	__u32 msi_data;
	__u64 msi_addr;
	__u32 new_kind;
	__u32 new_trigger;
	__u32 new_number;
	__u32 new_pin;
	__u32 new_msi_data;
	__u32 pad;
	__u64 new_msi_addr;
};

/* XEN_EVENTFD_IRQ_STATE: how an assignment stands. ENOENT: there is none. ENODEV: the guest is dead. */
struct xen_eventfd_irq_state {
	__u32 size;
	__u32 flags;		/* 0 */
	__u32 kind;		/* as in struct xen_eventfd_irq, to msi_addr */
	__s32 eventfd;
	__u32 trigger;
	__u32 number;
	__u32 pin;
	__u32 msi_data;
	__u64 msi_addr;
	__u32 masked;		/* out: 1 if it is masked */
	__u32 pending;		/* out: 1 if it was signalled since it was masked */
};

/*
 * One event channel of the guest that signals an eventfd. While the eventfd is unread, further events
 * are slowed down. The port may be that of an XEN_EVENTFD_IRQ_CHANNEL as well.
 *
 * To assign, EBUSY: the port has an eventfd. EINVAL: as for an irq. ENOSPC: too many event channels are
 * bound, in either direction: 256 of this guest, or of all guests as many as the module's parameter
 * max_channels says (4,096 if it is not given).
 * To deassign, ENOENT: this port does not signal this eventfd. When it returns, the eventfd is not
 * signalled again. ENODEV: the guest is dead.
 */
struct xen_eventfd_channel {
	__u32 size;
	__u32 flags;		/* 0 */
	__u32 port;
	__s32 eventfd;
};

/*
 * InterruptStatus and InterruptACK of a virtio-mmio device, which its driver reads and writes for each
 * interrupt. Once they are assigned, the module answers them, and the device model is not woken.
 *
 * InterruptStatus is at addr, a multiple of 4, and InterruptACK 4 bytes behind it. A read gets those of their
 * bytes that it asks for: of the bits that are set, and zeros for InterruptACK. A write of the 4 bytes of
 * InterruptACK clears the bits that are set in it; any other changes nothing.
 *
 * Bits are set by eventfds (XEN_EVENTFD_ASSIGN_IRQ with XEN_EVENTFD_IRQ_STATUS) and by
 * XEN_EVENTFD_CHANGE_STATUS. Then the interrupt is raised that is given here, unless it was raised for
 * each of these bits since that was last cleared. What it has counted for an eventfd as raised is how often its
 * bits were set. A line that is XEN_EVENTFD_LEVEL is lowered once no bit is set, and at the end.
 *
 * To assign, EEXIST: one of the 8 bytes is a doorbell's, or another device's. EINVAL: addr, or an interrupt that
 * cannot be, XEN_EVENTFD_IRQ_STATUS among them. EBUSY: a line that has another user, of which one is
 * XEN_EVENTFD_LEVEL: each would take the other's interrupt back. ENOSPC: 256 are there. Else as XEN_EVENTFD_ASSIGN and
 * XEN_EVENTFD_ASSIGN_IRQ.
 * To deassign, every in-field is as it was; ENOENT: there is none. The assignments of the eventfds that set
 * its bits end first: what was signalled until then is in bits. If that is not 0, a device model that goes on sets
 * these bits in its own register and raises the interrupt again: a read meanwhile was answered 0, and a line lowered.
 * EOPNOTSUPP: the guest is shared (XEN_EVENTFD_CREATE_SHARE). ENODEV: the guest is dead.
 */
struct xen_eventfd_status {
	__u32 size;
	__u32 flags;		/* 0 */
	__u32 kind;		/* the interrupt, as in struct xen_eventfd_irq: */
	__u32 trigger;
	__u32 number;
	__u32 pin;
	__u32 msi_data;
	__u32 pad;
	__u64 msi_addr;
	__u64 addr;
	__u32 bits;		/* out of XEN_EVENTFD_DEASSIGN_STATUS: those that were set */
	__u32 reserved;		/* out: 0 */
};

/*
 * XEN_EVENTFD_CHANGE_STATUS: clears bits, as the driver would, as when the device is reset; sets others, as for
 * a change of the configuration, and raises the interrupt for them; and tells how it stands. ENOENT: no
 * InterruptStatus is assigned at addr. Xen's error, if it refuses to raise the interrupt (ERANGE of an MSI without a
 * vector): the bits are set then.
 */
struct xen_eventfd_status_change {
	__u32 size;
	__u32 flags;		/* 0 */
	__u64 addr;
	__u32 set;
	__u32 clear;		/* first */
	__u32 bits;		/* out: those that are set now */
	__u32 reserved;		/* out: 0 */
	__u64 reads;		/* out: reads that were answered */
	__u64 acks;		/* out: writes of InterruptACK */
	__u64 raised;		/* out: interrupts raised */
	__u64 failed;		/* out: refused by Xen */
	__u64 odd;		/* out: writes that changed nothing */
};

#define XEN_EVENTFD_IOCTL 0xEF

/* _IO, as the size of a struct is in the struct. Any other request is ENOTTY. */
/* On a control file. */
#define XEN_EVENTFD_QUERY _IO(XEN_EVENTFD_IOCTL, 0x00)
#define XEN_EVENTFD_CREATE _IO(XEN_EVENTFD_IOCTL, 0x01)
#define XEN_EVENTFD_OWNER _IO(XEN_EVENTFD_IOCTL, 0x02)
#define XEN_EVENTFD_MEMORY _IO(XEN_EVENTFD_IOCTL, 0x03)
/* On a guest's file. */
#define XEN_EVENTFD_ASSIGN _IO(XEN_EVENTFD_IOCTL, 0x10)
#define XEN_EVENTFD_DEASSIGN _IO(XEN_EVENTFD_IOCTL, 0x11)
#define XEN_EVENTFD_STATS _IO(XEN_EVENTFD_IOCTL, 0x12)
#define XEN_EVENTFD_LIST _IO(XEN_EVENTFD_IOCTL, 0x13)
#define XEN_EVENTFD_MISSED _IO(XEN_EVENTFD_IOCTL, 0x14)
#define XEN_EVENTFD_ASSIGN_IRQ _IO(XEN_EVENTFD_IOCTL, 0x20)
#define XEN_EVENTFD_DEASSIGN_IRQ _IO(XEN_EVENTFD_IOCTL, 0x21)
#define XEN_EVENTFD_IRQ_STATS _IO(XEN_EVENTFD_IOCTL, 0x22)
#define XEN_EVENTFD_LOWER _IO(XEN_EVENTFD_IOCTL, 0x23)
#define XEN_EVENTFD_SET_IRQ _IO(XEN_EVENTFD_IOCTL, 0x24)
#define XEN_EVENTFD_MASK_IRQ _IO(XEN_EVENTFD_IOCTL, 0x25)
#define XEN_EVENTFD_UNMASK_IRQ _IO(XEN_EVENTFD_IOCTL, 0x26)
#define XEN_EVENTFD_IRQ_STATE _IO(XEN_EVENTFD_IOCTL, 0x27)
#define XEN_EVENTFD_ASSIGN_CHANNEL _IO(XEN_EVENTFD_IOCTL, 0x30)
#define XEN_EVENTFD_DEASSIGN_CHANNEL _IO(XEN_EVENTFD_IOCTL, 0x31)
#define XEN_EVENTFD_ASSIGN_STATUS _IO(XEN_EVENTFD_IOCTL, 0x40)
#define XEN_EVENTFD_DEASSIGN_STATUS _IO(XEN_EVENTFD_IOCTL, 0x41)
#define XEN_EVENTFD_CHANGE_STATUS _IO(XEN_EVENTFD_IOCTL, 0x42)

#endif
