/* SPDX-License-Identifier: GPL-2.0 */
/* What is inline in C, for Rust. The rules of each are those of the function that it names. */

#ifndef XEN_EVENTFD_SHIM_H
#define XEN_EVENTFD_SHIM_H

#include <linux/types.h>
#include <linux/wait.h>
#include <xen/interface/event_channel.h>
#include <xen/interface/xen.h>

struct file;
struct page;
struct vm_area_struct;
struct task_struct;
struct workqueue_struct;

/* xen_domain(), xen_initial_domain(), xen_pv_domain() */
bool shim_xen_domain(void);
bool shim_xen_initial_domain(void);
bool shim_xen_pv_domain(void);

/* HYPERVISOR_*(): zero or more, or a negative errno, which is Xen's. */
long shim_memory_op(unsigned int command, void *argument);
int shim_event_channel_op(int command, void *argument);

/*
 * The same for what points to memory of ours, as an architecture has its own type for that and for frame numbers: one
 * operation on a guest, and, if wanted, an empty buffer beside it; XENMEM_acquire_resource of a server's ioreq
 * page, which replaces *frame; XENMEM_add_to_physmap_range of frames of another domain, at numbers of ours.
 */
int shim_dm_op(domid_t domain, void *operation, size_t size, bool with_empty);
long shim_acquire_ioreq_page(domid_t domain, u16 server, u64 *frame);
long shim_add_foreign(domid_t owner, u16 count, u64 *theirs, u64 *ours, int *errors);

/*
 * xen_irq_lateeoi() from the interrupt's handler: at once for a few events of a CPU, then in a tasklet, thus once
 * the upcall in which the event came is over, after which a few may be ended at once again. So an upcall handles at
 * most that many events more than there are ports, however fast guests ring. For one event of an interrupt at a time.
 * shim_end_stop() disables the interrupt and waits for a handler and a tasklet that runs; shim_end_free() may
 * follow once the interrupt is gone, or if there never was one.
 */
struct shim_end;
struct shim_end *shim_end_alloc(void);
void shim_end_event(struct shim_end *end, unsigned int irq, unsigned int flags);
void shim_end_stop(struct shim_end *end, unsigned int irq);
void shim_end_free(struct shim_end *end);

/* vmap() of one page, for reading and writing, and vunmap(). */
void *shim_vmap(struct page *page);
void shim_vunmap(void *address);

/*
 * In a PV domain, points the page table entry of an address from shim_vmap() at a machine frame of
 * another domain, and back. *before is the entry as it was. Afterwards no CPU knows the old one.
 */
int shim_pv_map(void *address, domid_t owner, u64 frame, u64 *before);
int shim_pv_unmap(void *address, u64 before);

/* xen_alloc_unpopulated_pages() of one page or NULL, xen_free_unpopulated_pages(), page_to_pfn() */
struct page *shim_alloc_unpopulated(void);
void shim_free_unpopulated(struct page *page);
u64 shim_page_frame(struct page *page);

/* Whether page_count() of one of these is more than that of who allocated it. */
bool shim_page_is_referenced(struct page *page);

/*
 * What a mapping that is being made will have: entries without pages, in a PV domain, or pages that the kernel
 * counts references to.
 */
void shim_show_frames(struct vm_area_struct *vma);
void shim_show_pages(struct vm_area_struct *vma);

/* xen_remap_domain_gfn_array() in a PV domain. Entries of the mapping that Xen refuses stay as they were. */
int shim_remap(struct vm_area_struct *vma, unsigned long address, u64 *frames, int count, int *errors,
	       domid_t owner);

/* Whether a mapping of frames has an entry for this address. */
bool shim_is_mapped(struct vm_area_struct *vma, unsigned long address);

/*
 * Puts an entry with this callback at the head of an eventfd's wait queue, alone there of its kind,
 * and calls back at once if the counter is not 0. *queue is the wait queue, which lives as long as the
 * eventfd's context. -EBUSY: another one is there.
 */
int shim_eventfd_attach(struct file *eventfd, struct wait_queue_entry *entry, wait_queue_func_t wake,
			struct wait_queue_head **queue);

/* remove_wait_queue(): unlike eventfd_ctx_remove_wait_queue(), it leaves the counter alone. */
void shim_eventfd_detach(struct wait_queue_head *queue, struct wait_queue_entry *entry);

/* vfs_poll() of an eventfd for reading, without waiting */
bool shim_eventfd_is_unread(struct file *eventfd);

/* alloc_workqueue() of an unbound one; the name is copied. NULL: out of memory. */
struct workqueue_struct *shim_alloc_workqueue(const char *name, int at_once);

/*
 * Work that is done again and again, so many seconds after it was last done, and does not wake an idle
 * CPU. NULL: out of memory. shim_clock_stop() waits for it.
 */
struct shim_clock;
struct shim_clock *shim_clock_start(void (*tick)(void), unsigned int seconds);
void shim_clock_stop(struct shim_clock *clock);

/*
 * Calls a function whenever this domain is about to be suspended: user processes are frozen, interrupts and
 * hypercalls work. For one caller at a time.
 */
int shim_before_suspend(void (*call)(void));
void shim_before_suspend_end(void);

/* Whether a thread of this thread group has not ended yet. The caller has a reference to the task. */
bool shim_process_runs(struct task_struct *leader);
/* cond_resched(), and then fatal_signal_pending() of the calling thread */
bool shim_killed(void);

/* The name of the calling thread, TASK_COMM_LEN bytes filled with zeros */
void shim_current_comm(char *name);

/* The tracepoints of trace.h */
void shim_trace_kick(u16 dom, u32 vcpu, bool pio, u64 addr, u8 len, u64 value, u8 end);
void shim_trace_irq(u16 dom, u8 kind, u64 number, u32 data, int error);

#endif
