/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ways in which a kick reaches a backend's eventfd. */

#ifndef WAY_H
#define WAY_H

#include "device.h"

struct way {
	const char *name;
	/*
	 * Makes the kernel signal the eventfd for every kick of queue 0; NULL: the VMM does it
	 * itself.
	 */
	void (*set_up)(const char *node, const struct device *device, uint64_t base, int eventfd);
};

/* NULL: no way has this name. */
const struct way *way_named(const char *name);

#endif
