/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A guest that carries out a script (guest/README.md), controlled by dom0 through one event
 * channel, which the script names `go`. The program that runs this one creates the guest and
 * passes its id and port.
 */

#ifndef GUEST_H
#define GUEST_H

#include <xen/privcmd.h>

struct guest {
	domid_t dom;
	int evtchn;		/* /dev/xen/evtchn */
	unsigned int go;	/* the local end; 0: its script has none */
};

/* From the two words on the command line: the domain, and its port of `go` or 0. */
void guest_meet(struct guest *guest, char *words[2]);

/* Sends one event to the guest. */
void guest_go(const struct guest *guest);

/* Waits for one event of the guest. */
void guest_await(const struct guest *guest);

/* Both: the guest carries out its next round and reports back. */
void guest_round(const struct guest *guest);

#endif
