// SPDX-License-Identifier: GPL-2.0
#include "server.h"
#include "shim.h"

#include <linux/interrupt.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <xen/events.h>
#include <xen/interface/hvm/dm_op.h>
#include <xen/interface/memory.h>

/* Xen's public/hvm/dm_op.h, as far as it is used. */
#define DMOP_CREATE 1
#define DMOP_MAP_RANGE 3
#define DMOP_SET_STATE 5
#define DMOP_DESTROY 6
#define DMOP_NR_VCPUS 20
#define RANGE_MEMORY 1

struct dm_op {
	u32 op;
	u32 pad;
	union {
		struct {
			u8 bufioreq;
			u8 pad[3];
			u16 id;
		} create;
		struct {
			u16 id;
			u16 pad;
			u32 type;
			u64 start;
			u64 end;
		} map;
		struct {
			u16 id;
			u8 enabled;
			u8 pad;
		} state;
		struct {
			u16 id;
			u16 pad;
		} destroy;
		struct {
			u32 vcpus;
		} nr_vcpus;
	};
} __aligned(32);

static int dm_op(domid_t dom, struct dm_op *op, size_t size)
{
	return shim_dm_op(dom, op, offsetof(struct dm_op, create) + size, false);
}

static int set_state(struct server *server, bool enabled)
{
	struct dm_op op = { .op = DMOP_SET_STATE };

	op.state.id = server->id;
	op.state.enabled = enabled;
	return dm_op(server->dom, &op, sizeof(op.state));
}

static int map_range(struct server *server, u64 doorbell)
{
	struct dm_op op = { .op = DMOP_MAP_RANGE };

	op.map.id = server->id;
	op.map.type = RANGE_MEMORY;
	op.map.start = doorbell;
	op.map.end = doorbell + 3;
	return dm_op(server->dom, &op, sizeof(op.map));
}

static int map_pv(struct server *server)
{
	int error = shim_acquire_ioreq_page(server->dom, server->id, &server->frame);

	if (error)
		return error;
	server->place = alloc_page(GFP_KERNEL | __GFP_ZERO);
	server->page = server->place ? shim_vmap(server->place) : NULL;
	if (!server->page)
		return -ENOMEM;
	return shim_pv_map(server->page, server->dom, server->frame, &server->entry);
}

static int map_pvh(struct server *server)
{
	int error;

	server->place = shim_alloc_unpopulated();
	if (!server->place)
		return -ENOMEM;
	server->frame = shim_page_frame(server->place);
	error = shim_acquire_ioreq_page(server->dom, server->id, &server->frame);
	if (error)
		return error;
	server->page = shim_vmap(server->place);
	return server->page ? 0 : -ENOMEM;
}

/* If it fails, the page is leaked: it must not be reused while the guest has access. */
static void unmap(struct server *server)
{
	struct xen_remove_from_physmap remove = { .domid = DOMID_SELF, .gpfn = server->frame };

	if (shim_xen_pv_domain()) {
		if (server->page && !shim_pv_unmap(server->page, server->entry)) {
			shim_vunmap(server->page);
			__free_page(server->place);
		}
		return;
	}
	if (server->page)
		shim_vunmap(server->page);
	if (server->place && !shim_memory_op(XENMEM_remove_from_physmap, &remove))
		shim_free_unpopulated(server->place);
}

static irqreturn_t handle(int irq, void *context)
{
	struct vcpu *vcpu = context;
	u8 *flags = (u8 *)vcpu->slot + offsetof(struct ioreq, type) - 1;
	u8 before = smp_load_acquire(flags);

	if ((before & 0xf) == STATE_IOREQ_READY) {
		if (vcpu->server->eventfd)
			eventfd_signal(vcpu->server->eventfd);
		smp_store_release(flags, (u8)((before & ~0xf) | STATE_IORESP_READY));
		notify_remote_via_evtchn(vcpu->port);
	}
	xen_irq_lateeoi(irq, 0);
	return IRQ_HANDLED;
}

static int bind(struct server *server, unsigned int index)
{
	struct vcpu *vcpu = &server->vcpus[index];
	struct evtchn_bind_interdomain bind = {
		.remote_dom = server->dom,
		.remote_port = server->page[index].vp_eport,
	};
	int error = shim_event_channel_op(EVTCHNOP_bind_interdomain, &bind);

	if (error)
		return error;
	*vcpu = (struct vcpu){ server, &server->page[index], bind.local_port };
	vcpu->irq = bind_evtchn_to_irqhandler_lateeoi(vcpu->port, handle, 0, "xen-eventfd-floor",
						      vcpu);
	if (vcpu->irq < 0)
		return vcpu->irq;
	server->bound++;
	return 0;
}

static int enable(struct server *server, u64 doorbell)
{
	struct dm_op op = { .op = DMOP_NR_VCPUS };
	/* An enabled server without a page crashes the host. */
	int error = shim_xen_pv_domain() ? map_pv(server) : map_pvh(server);

	error = error ?: map_range(server, doorbell);
	error = error ?: dm_op(server->dom, &op, sizeof(op.nr_vcpus));
	error = error ?: op.nr_vcpus.vcpus > MAX_VCPUS ? -E2BIG : 0;
	/* Xen writes the ports only when the server is enabled. */
	error = error ?: set_state(server, true);
	for (unsigned int index = 0; !error && index < op.nr_vcpus.vcpus; index++)
		error = bind(server, index);
	return error;
}

int server_begin(struct server *server, domid_t dom, u64 doorbell, struct eventfd_ctx *eventfd)
{
	struct dm_op op = { .op = DMOP_CREATE };
	int error = dm_op(dom, &op, sizeof(op.create));

	if (error)
		return error;
	server->dom = dom;
	server->id = op.create.id;
	server->eventfd = eventfd;
	error = enable(server, doorbell);
	if (error) {
		server->eventfd = NULL;
		server_end(server);
	}
	return error;
}

void server_end(struct server *server)
{
	struct dm_op op = { .op = DMOP_DESTROY };

	set_state(server, false);
	for (unsigned int index = 0; index < server->bound; index++) {
		struct vcpu *vcpu = &server->vcpus[index];

		synchronize_irq(vcpu->irq);
		handle(vcpu->irq, vcpu);
		notify_remote_via_evtchn(vcpu->port);
		unbind_from_irqhandler(vcpu->irq, vcpu);
	}
	unmap(server);
	op.destroy.id = server->id;
	dm_op(server->dom, &op, sizeof(op.destroy));
	if (server->eventfd)
		eventfd_ctx_put(server->eventfd);
}
