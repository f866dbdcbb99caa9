/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A guest that carries out script (guest/README.md), as far as dom0 talks to it: through one event
 * channel, which its script call `go`. Who runs us makes it and says which it is.
 */

#ifndef GUEST_H
#define GUEST_H

#include <xen/privcmd.h>

struct guest {
	domid_t dom;
	int evtchn;		/* /dev/xen/evtchn */
	unsigned int go;	/* our end; 0: its script have none */
};

/* From the two words that who runs us passes: the domain, and its port of `go` or 0. */
void guest_meet(struct guest *guest, char *words[2]);

/* One event to the guest. */
void guest_go(const struct guest *guest);

/* Waits for one event of the guest. */
void guest_await(const struct guest *guest);

/* Both: the guest carries out its next round and comes back. */
void guest_round(const struct guest *guest);

#endif
