/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An ioreq server over one doorbell of 4 bytes. Its handler answers whatever comes, tells the vCPU
 * and ends the event; it looks at nothing. No ioeventfd does less.
 */

#ifndef FLOOR_SERVER_H
#define FLOOR_SERVER_H

#include <linux/eventfd.h>
#include <linux/types.h>
#include <xen/interface/hvm/ioreq.h>
#include <xen/interface/xen.h>
#include <xen/interface/event_channel.h>

/* More vCPUs than a measurement's guest has. */
#define MAX_VCPUS 8

struct server;

/* What an interrupt is told. */
struct vcpu {
	struct server *server;
	struct ioreq *slot;
	evtchn_port_t port;	/* our end */
	int irq;
};

struct server {
	domid_t dom;
	u16 id;
	struct eventfd_ctx *eventfd;	/* signalled for each request; or NULL */
	struct ioreq *page;
	struct page *place;		/* the frame number that the page is mapped at */
	xen_pfn_t frame;
	u64 entry;			/* PV: the page table entry as it was */
	unsigned int bound;
	struct vcpu vcpus[MAX_VCPUS];
};

/* 0 or a negative errno. The eventfd is the server's from then on; if it fails, still the caller's. */
int server_begin(struct server *server, domid_t dom, u64 doorbell, struct eventfd_ctx *eventfd);

/* Answers what waits, and undoes all of it. */
void server_end(struct server *server);

#endif
