/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An ioreq server over one doorbell of 4 bytes. Its handler answers every request, notifies the
 * vCPU and ends the event; it decodes nothing. No ioeventfd does less.
 */

#ifndef FLOOR_SERVER_H
#define FLOOR_SERVER_H

#include <linux/eventfd.h>
#include <linux/types.h>
#include <xen/interface/hvm/ioreq.h>
#include <xen/interface/xen.h>
#include <xen/interface/event_channel.h>

/* More vCPUs than the guest of a measurement has. */
#define MAX_VCPUS 8

struct server;

/* The context of an interrupt handler. */
struct vcpu {
	struct server *server;
	struct ioreq *slot;
	evtchn_port_t port;	/* the local end */
	int irq;
};

struct server {
	domid_t dom;
	u16 id;
	struct eventfd_ctx *eventfd;	/* signalled for each request; or NULL */
	struct ioreq *page;
	struct page *place;		/* the frame number that the page is mapped at */
	u64 frame;
	u64 entry;			/* PV: the previous page table entry */
	unsigned int bound;
	struct vcpu vcpus[MAX_VCPUS];
};

/*
 * Returns 0 or a negative errno. On success the server owns the eventfd; on failure the caller
 * does.
 */
int server_begin(struct server *server, domid_t dom, u64 doorbell, struct eventfd_ctx *eventfd);

/* Answers pending requests, and releases everything. */
void server_end(struct server *server);

#endif
