// SPDX-License-Identifier: GPL-2.0

#include "shim.h"

#include <linux/interrupt.h>
#include <linux/mm.h>
#include <linux/platform_device.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <asm/xen/hypercall.h>
#include <asm/xen/page.h>
#include <xen/events.h>
#include <xen/interface/hvm/dm_op.h>
#include <xen/interface/memory.h>
#include <xen/xen.h>
#include <xen/xen-ops.h>

bool shim_xen_domain(void)
{
	return xen_domain();
}

bool shim_xen_initial_domain(void)
{
	return xen_initial_domain();
}

bool shim_xen_pv_domain(void)
{
	return xen_pv_domain();
}

long shim_memory_op(unsigned int command, void *argument)
{
	return HYPERVISOR_memory_op(command, argument);
}

int shim_event_channel_op(int command, void *argument)
{
	return HYPERVISOR_event_channel_op(command, argument);
}

/* In Rust frame numbers are 64 bits, which they are on every architecture, by whatever type. */
static_assert(sizeof(xen_pfn_t) == sizeof(u64) && sizeof(xen_ulong_t) == sizeof(u64));

int shim_dm_op(domid_t domain, void *operation, size_t size, bool with_empty)
{
	struct xen_dm_op_buf buffers[2] = { { .size = size } };

	set_xen_guest_handle(buffers[0].h, operation);
	return HYPERVISOR_dm_op(domain, with_empty ? 2 : 1, buffers);
}

long shim_acquire_ioreq_page(domid_t domain, u16 server, u64 *frame)
{
	struct xen_mem_acquire_resource argument = {
		.domid = domain,
		.type = XENMEM_resource_ioreq_server,
		.id = server,
		.nr_frames = 1,
		.frame = XENMEM_resource_ioreq_server_frame_ioreq(0),
	};

	set_xen_guest_handle(argument.frame_list, (xen_pfn_t *)frame);
	return HYPERVISOR_memory_op(XENMEM_acquire_resource, &argument);
}

long shim_add_foreign(domid_t owner, u16 count, u64 *theirs, u64 *ours, int *errors)
{
	struct xen_add_to_physmap_range argument = {
		.domid = DOMID_SELF,
		.space = XENMAPSPACE_gmfn_foreign,
		.size = count,
		.foreign_domid = owner,
	};

	set_xen_guest_handle(argument.idxs, (xen_ulong_t *)theirs);
	set_xen_guest_handle(argument.gpfns, (xen_pfn_t *)ours);
	set_xen_guest_handle(argument.errs, errors);
	return HYPERVISOR_memory_op(XENMEM_add_to_physmap_range, &argument);
}

struct shim_end {
	struct tasklet_struct tasklet;
	unsigned int irq;
	unsigned int flags;
};

#ifdef END_IN_UPCALL
/* For `cargo xtask hostile`, which measures what it costs to do so. */
#define ENDED_IN_UPCALL UINT_MAX
#else
#define ENDED_IN_UPCALL 4
#endif

/* Events that this CPU has ended within upcalls since a tasklet ran here, and thus since an upcall was over for sure. */
static DEFINE_PER_CPU(unsigned int, ended_in_upcall);

static void end_later(struct tasklet_struct *tasklet)
{
	struct shim_end *end = container_of(tasklet, struct shim_end, tasklet);

	this_cpu_write(ended_in_upcall, 0);
	xen_irq_lateeoi(end->irq, end->flags);
}

struct shim_end *shim_end_alloc(void)
{
	struct shim_end *end = kzalloc(sizeof(*end), GFP_KERNEL_ACCOUNT);

	if (end)
		tasklet_setup(&end->tasklet, end_later);
	return end;
}

void shim_end_event(struct shim_end *end, unsigned int irq, unsigned int flags)
{
	if (this_cpu_read(ended_in_upcall) < ENDED_IN_UPCALL) {
		this_cpu_inc(ended_in_upcall);
		xen_irq_lateeoi(irq, flags);
		return;
	}
	end->irq = irq;
	end->flags = flags;
	tasklet_schedule(&end->tasklet);
}

void shim_end_stop(struct shim_end *end, unsigned int irq)
{
	disable_irq(irq);
	tasklet_kill(&end->tasklet);
}

void shim_end_free(struct shim_end *end)
{
	kfree(end);
}

void *shim_vmap(struct page *page)
{
	return vmap(&page, 1, VM_MAP, PAGE_KERNEL);
}

void shim_vunmap(void *address)
{
	vunmap(address);
}

#ifdef CONFIG_XEN_PV
static pte_t *entry_of(void *address)
{
	unsigned int level;
	pte_t *entry = lookup_address((unsigned long)address, &level);

	return entry && level == PG_LEVEL_4K ? entry : NULL;
}

/* Xen answers before the address can be used, so it has to be asked for the flush. */
static int set_entry(void *address, pte_t *entry, u64 value, domid_t owner)
{
	struct mmuext_op flush = {
		.cmd = MMUEXT_INVLPG_ALL,
		.arg1.linear_addr = (unsigned long)address,
	};
	struct mmu_update update = {
		.ptr = arbitrary_virt_to_machine(entry).maddr | MMU_PT_UPDATE_NO_TRANSLATE,
		.val = value,
	};
	int error = HYPERVISOR_mmu_update(&update, 1, NULL, owner);

	return error ?: HYPERVISOR_mmuext_op(&flush, 1, NULL, DOMID_SELF);
}

int shim_pv_map(void *address, domid_t owner, u64 frame, u64 *before)
{
	pte_t *entry = entry_of(address);
	int error;

	if (!entry)
		return -EFAULT;
	*before = READ_ONCE(entry->pte);
	error = set_entry(address, entry, (frame << PAGE_SHIFT) | (*before & ~PTE_PFN_MASK), owner);
	if (error)
		set_entry(address, entry, *before, DOMID_SELF);
	return error;
}

int shim_pv_unmap(void *address, u64 before)
{
	pte_t *entry = entry_of(address);

	return entry ? set_entry(address, entry, before, DOMID_SELF) : -EFAULT;
}
#else
int shim_pv_map(void *address, domid_t owner, u64 frame, u64 *before)
{
	return -EOPNOTSUPP;
}

int shim_pv_unmap(void *address, u64 before)
{
	return -EOPNOTSUPP;
}
#endif

struct page *shim_alloc_unpopulated(void)
{
	struct page *page;

	return xen_alloc_unpopulated_pages(1, &page) ? NULL : page;
}

void shim_free_unpopulated(struct page *page)
{
	xen_free_unpopulated_pages(1, &page);
}

u64 shim_page_frame(struct page *page)
{
	return page_to_pfn(page);
}

bool shim_page_is_referenced(struct page *page)
{
	return page_count(page) > 1;
}

void shim_show_frames(struct vm_area_struct *vma)
{
	/* What is inherited by fork(), or moved, would be entries that only Xen's tools can make. */
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
}

void shim_show_pages(struct vm_area_struct *vma)
{
	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP);
}

int shim_remap(struct vm_area_struct *vma, unsigned long address, u64 *frames, int count, int *errors,
	       domid_t owner)
{
	return xen_remap_domain_gfn_array(vma, address, (xen_pfn_t *)frames, count, errors, vma->vm_page_prot, owner,
					  NULL);
}

bool shim_is_mapped(struct vm_area_struct *vma, unsigned long address)
{
	struct follow_pfnmap_args args = { .vma = vma, .address = address };

	if (follow_pfnmap_start(&args))
		return false;
	follow_pfnmap_end(&args);
	return true;
}

struct attachment {
	poll_table table;
	struct wait_queue_entry *entry;
	struct wait_queue_head *queue;
	int error;
};

static void attach(struct file *file, struct wait_queue_head *queue, poll_table *table)
{
	struct attachment *attachment = container_of(table, struct attachment, table);

	attachment->queue = queue;
	attachment->error = add_wait_queue_priority_exclusive(queue, attachment->entry);
}

int shim_eventfd_attach(struct file *eventfd, struct wait_queue_entry *entry, wait_queue_func_t wake,
			struct wait_queue_head **queue)
{
	struct attachment attachment = { .entry = entry, .error = -EINVAL };
	__poll_t events;

	init_waitqueue_func_entry(entry, wake);
	init_poll_funcptr(&attachment.table, attach);
	events = vfs_poll(eventfd, &attachment.table);
	if (attachment.error)
		return attachment.error;
	if (events & EPOLLIN) {
		spin_lock_irq(&attachment.queue->lock);
		wake(entry, TASK_NORMAL, 0, poll_to_key(EPOLLIN));
		spin_unlock_irq(&attachment.queue->lock);
	}
	*queue = attachment.queue;
	return 0;
}

void shim_eventfd_detach(struct wait_queue_head *queue, struct wait_queue_entry *entry)
{
	remove_wait_queue(queue, entry);
}

bool shim_eventfd_is_unread(struct file *eventfd)
{
	return vfs_poll(eventfd, NULL) & EPOLLIN;
}

struct workqueue_struct *shim_alloc_workqueue(const char *name, int at_once)
{
	return alloc_workqueue("%s", WQ_UNBOUND, at_once, name);
}

struct shim_clock {
	struct delayed_work work;
	void (*tick)(void);
	unsigned int seconds;
};

static void run_clock(struct work_struct *work)
{
	struct shim_clock *clock = container_of(to_delayed_work(work), struct shim_clock, work);

	clock->tick();
	queue_delayed_work(system_percpu_wq, &clock->work, clock->seconds * HZ);
}

struct shim_clock *shim_clock_start(void (*tick)(void), unsigned int seconds)
{
	struct shim_clock *clock = kzalloc(sizeof(*clock), GFP_KERNEL);

	if (!clock)
		return NULL;
	clock->tick = tick;
	clock->seconds = seconds;
	INIT_DEFERRABLE_WORK(&clock->work, run_clock);
	queue_delayed_work(system_percpu_wq, &clock->work, seconds * HZ);
	return clock;
}

void shim_clock_stop(struct shim_clock *clock)
{
	cancel_delayed_work_sync(&clock->work);
	kfree(clock);
}

bool shim_process_runs(struct task_struct *leader)
{
	return atomic_read(&leader->signal->live) > 0;
}

bool shim_killed(void)
{
	cond_resched();
	return fatal_signal_pending(current);
}

void shim_current_comm(char *name)
{
	strscpy_pad(name, current->comm, TASK_COMM_LEN);
}

static void (*before_suspend)(void);
static struct platform_device *suspended;

static int freeze(struct device *device)
{
	before_suspend();
	return 0;
}

static const struct dev_pm_ops pm = { .freeze = freeze };

static struct platform_driver driver = {
	.driver = { .name = "xen-eventfd", .pm = &pm },
};

int shim_before_suspend(void (*call)(void))
{
	int error;

	before_suspend = call;
	error = platform_driver_register(&driver);
	if (error)
		return error;
	suspended = platform_device_register_simple("xen-eventfd", PLATFORM_DEVID_NONE, NULL, 0);
	if (!IS_ERR(suspended))
		return 0;
	platform_driver_unregister(&driver);
	return PTR_ERR(suspended);
}

void shim_before_suspend_end(void)
{
	platform_device_unregister(suspended);
	platform_driver_unregister(&driver);
}
