// SPDX-License-Identifier: MIT OR Apache-2.0
#include "device.h"
#include "check.h"
#include "privcmd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xen/evtchn.h>

#define PAGE 4096
#define RANGE_MEMORY 1
/* XENMEM_resource_ioreq_server, XENMEM_resource_ioreq_server_frame_ioreq(0) */
#define RESOURCE_IOREQ_SERVER 0
#define FRAME_IOREQ 1

#define STATE_MASK 0xf
#define STATE_READY 1
#define STATE_RESP_READY 3
#define DIR_READ 0x20

static_assert(sizeof(struct ioreq) == 32, "ioreq");

static void create(struct device *device)
{
	struct dm_op op = { .op = XEN_DMOP_create_ioreq_server };

	must("creating an ioreq server",
	     privcmd_dm_op(device->privcmd, device->dom, &op, DM_OP_SIZE(create)));
	device->server = op.create.id;
}

static void map_page(struct device *device)
{
	struct privcmd_mmap_resource resource = {
		.dom = device->dom,
		.type = RESOURCE_IOREQ_SERVER,
		.id = device->server,
		.idx = FRAME_IOREQ,
		.num = 1,
	};

	device->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device->privcmd, 0);
	must("a place for the ioreq page", device->page == MAP_FAILED ? -1 : 0);
	resource.addr = (uintptr_t)device->page;
	must("mapping the ioreq page",
	     ioctl(device->privcmd, IOCTL_PRIVCMD_MMAP_RESOURCE, &resource));
}

static void map_range(struct device *device, uint64_t base, uint64_t size)
{
	struct dm_op op = { .op = XEN_DMOP_map_io_range_to_ioreq_server };

	op.map.id = device->server;
	op.map.type = RANGE_MEMORY;
	op.map.start = base;
	op.map.end = base + size - 1;
	must("claiming the registers",
	     privcmd_dm_op(device->privcmd, device->dom, &op, DM_OP_SIZE(map)));
}

static int enable(struct device *device, bool enabled)
{
	struct dm_op op = { .op = XEN_DMOP_set_ioreq_server_state };

	op.state.id = device->server;
	op.state.enabled = enabled;
	return privcmd_dm_op(device->privcmd, device->dom, &op, DM_OP_SIZE(state));
}

static void bind_ports(struct device *device)
{
	for (unsigned int vcpu = 0; vcpu < device->vcpus; vcpu++) {
		struct ioctl_evtchn_bind_interdomain bind = {
			.remote_domain = device->dom,
			.remote_port = device->page[vcpu].vp_eport,
		};

		device->ports[vcpu] = must("binding a vCPU's port",
					   ioctl(device->evtchn, IOCTL_EVTCHN_BIND_INTERDOMAIN,
						 &bind));
	}
}

void device_open(struct device *device, domid_t dom, uint64_t base, uint64_t size)
{
	*device = (struct device){ .dom = dom, .privcmd = privcmd_open() };
	device->evtchn = must("/dev/xen/evtchn", open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC));
	device->vcpus = privcmd_vcpus(device->privcmd, dom);
	create(device);
	/* An enabled server without a page crashes the host. */
	map_page(device);
	map_range(device, base, size);
	must("enabling an ioreq server", enable(device, true));
	/* Xen has written the ports now. */
	bind_ports(device);
}

static bool is_ready(const struct ioreq *slot)
{
	uint8_t bits = __atomic_load_n(&slot->bits, __ATOMIC_ACQUIRE);

	return (bits & STATE_MASK) == STATE_READY;
}

static void answer(struct ioreq *slot)
{
	uint8_t bits = (slot->bits & ~STATE_MASK) | STATE_RESP_READY;

	__atomic_store_n(&slot->bits, bits, __ATOMIC_RELEASE);
}

static void notify(const struct device *device, uint32_t port)
{
	struct ioctl_evtchn_notify notify = { .port = port };

	must("notifying a vCPU", ioctl(device->evtchn, IOCTL_EVTCHN_NOTIFY, &notify));
}

void device_close(struct device *device)
{
	struct dm_op op = { .op = XEN_DMOP_destroy_ioreq_server };

	must("disabling an ioreq server", enable(device, false));
	for (unsigned int vcpu = 0; vcpu < device->vcpus; vcpu++) {
		if (is_ready(&device->page[vcpu]))
			answer(&device->page[vcpu]);
		notify(device, device->ports[vcpu]);
	}
	close(device->evtchn);
	munmap(device->page, PAGE);
	op.destroy.id = device->server;
	must("destroying an ioreq server",
	     privcmd_dm_op(device->privcmd, device->dom, &op, DM_OP_SIZE(destroy)));
	close(device->privcmd);
}

static struct ioreq *slot_of(struct device *device, uint32_t port)
{
	for (unsigned int vcpu = 0; vcpu < device->vcpus; vcpu++) {
		if (device->ports[vcpu] == port)
			return &device->page[vcpu];
	}
	errno = ENOENT;
	must("the slot of a port", -1);
	return NULL;
}

bool device_serve(struct device *device, void (*carry_out)(struct access *access))
{
	struct ioreq *slot;
	bool ready;
	uint32_t port;

	must("an event of the guest", read(device->evtchn, &port, sizeof(port)));
	slot = slot_of(device, port);
	ready = is_ready(slot);
	if (ready) {
		struct access access = {
			.addr = slot->addr,
			.data = slot->data,
			.size = slot->size,
			.write = !(slot->bits & DIR_READ),
		};

		carry_out(&access);
		if (!access.write)
			slot->data = access.data;
		answer(slot);
		notify(device, port);
	}
	must("the end of an event", write(device->evtchn, &port, sizeof(port)));
	return ready;
}
