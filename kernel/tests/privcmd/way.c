// SPDX-License-Identifier: MIT OR Apache-2.0
#include "way.h"
#include "check.h"
#include "xen-eventfd.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

/*
 * As users of Linux's patch do it. Neither file is closed before the end: that would deassign it.
 */
static void privcmd(const char *node, const struct device *device, uint64_t base, int eventfd)
{
	struct privcmd_ioeventfd call = {
		.ioreq = (uintptr_t)device->page,
		.ports = (uintptr_t)device->ports,
		.addr = base,
		.addr_len = 4,
		.event_fd = eventfd,
		.vcpus = device->vcpus,
		.dom = device->dom,
	};
	int file = must(node, open(node, O_RDWR | O_CLOEXEC));

	must("IOCTL_PRIVCMD_IOEVENTFD", ioctl(file, IOCTL_PRIVCMD_IOEVENTFD, &call));
}

static void native(const char *node, const struct device *device, uint64_t base, int eventfd)
{
	struct xen_eventfd_create create = {
		.size = sizeof(create),
		.dom = device->dom,
		.gone = -1,
	};
	struct xen_eventfd_doorbell doorbell = {
		.size = sizeof(doorbell),
		.space = XEN_EVENTFD_MMIO,
		.kind = XEN_EVENTFD_VALUE,
		.len = 4,
		.eventfd = eventfd,
		.addr = base + 0x50,
		.datamask = 0xffff,
	};
	int control = must(node, open(node, O_RDWR | O_CLOEXEC));
	int guest = must("XEN_EVENTFD_CREATE", ioctl(control, XEN_EVENTFD_CREATE, &create));

	must("XEN_EVENTFD_ASSIGN", ioctl(guest, XEN_EVENTFD_ASSIGN, &doorbell));
}

static const struct way ways[] = {
	{ "vmm", NULL },
	{ "privcmd", privcmd },
	{ "native", native },
};

const struct way *way_named(const char *name)
{
	for (size_t nth = 0; nth < sizeof(ways) / sizeof(*ways); nth++) {
		if (!strcmp(ways[nth].name, name))
			return &ways[nth];
	}
	return NULL;
}
