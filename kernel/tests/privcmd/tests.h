/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The tests, each with the script of its guest; see guest.h. */

#ifndef TESTS_H
#define TESTS_H

#include <sys/types.h>

#include "guest.h"

#define SCRIPT_NONE "say up | say up"

/* The device's registers in the guest's memory, and its doorbell. */
#define BASE 0xfe000000ULL
#define DOORBELL (BASE + 0x50)
/* Another device's doorbell. */
#define OTHER_BASE (BASE + 0x1000)

/* Opens the node under test. */
int open_node(void);

/* The same, restricted to one domain. */
int open_restricted(domid_t dom);

/*
 * A call that registers an eventfd for queue `vq` of the device at `base`, 4 bytes wide, with this
 * page as its `ioreq`; and the call that deassigns it.
 */
struct privcmd_ioeventfd registration(const struct guest *guest, void *page, uint64_t base,
				      uint32_t vq, int eventfd);
int assign(int node, const struct privcmd_ioeventfd *registration);
int deassign(int node, const struct privcmd_ioeventfd *registration);

void test_ioeventfd(const struct guest *guest);
void test_irqfd(const struct guest *guest);
void test_restrict(const struct guest *guest);

#define SCRIPT_INTERRUPT \
	"listen msi 0x41 irq; listen evtchn go; repeat 3; wait irq; send go; end"
void test_interrupt(const struct guest *guest);

void test_differences(const struct guest *guest);

/* Two widths, two queues, and a queue number with bits above it. */
#define SCRIPT_KICKS \
	"listen evtchn go; repeat 8; wait go; write mmio:0xfe000050 4 3; " \
	"write mmio:0xfe000050 4 0xbeef0003; write mmio:0xfe000050 2 3; " \
	"write mmio:0xfe000050 4 4; write mmio:0xfe001050 4 3; send go; end"
void test_kicks(const struct guest *guest);
void test_two_files(const struct guest *guest);
void test_native(const struct guest *guest);

/* Kicks without a pause, until stopped. */
#define SCRIPT_KICKING \
	"listen evtchn go; until go; write mmio:0xfe000050 4 0; end; send go | say up"
void test_close(const struct guest *guest);
void test_killed(const struct guest *guest);
void test_death(const struct guest *guest);

#endif
