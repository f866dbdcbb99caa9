/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A device model like those that use Linux's privcmd ioeventfd patch: it has an ioreq server over
 * its registers, maps the server's page through /dev/xen/privcmd and binds its ports through
 * /dev/xen/evtchn.
 */

#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <xen/privcmd.h>

#define SLOTS 128

/* struct ioreq of Xen's public/hvm/ioreq.h. */
struct ioreq {
	uint64_t addr;
	uint64_t data;
	uint32_t count;
	uint32_t size;
	uint32_t vp_eport;
	uint16_t vp_pad;
	uint8_t bits;		/* state:4, data_is_ptr:1, dir:1, df:1 */
	uint8_t type;
};

struct device {
	domid_t dom;
	unsigned int vcpus;
	int privcmd;
	int evtchn;
	uint16_t server;
	struct ioreq *page;
	uint32_t ports[SLOTS];	/* the local ends */
};

/* An access that Xen asks the device model to carry out. */
struct access {
	uint64_t addr;
	uint64_t data;
	uint32_t size;
	bool write;
};

/* A device with registers in these bytes of the guest's memory. */
void device_open(struct device *device, domid_t dom, uint64_t base, uint64_t size);

/* Answers the requests in flight, and removes the device. */
void device_close(struct device *device);

/*
 * Waits for an event. If a request comes with it, calls `carry_out` for it and answers. Returns
 * whether there was one.
 */
bool device_serve(struct device *device, void (*carry_out)(struct access *access));

#endif
