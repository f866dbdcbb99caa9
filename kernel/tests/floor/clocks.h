/* SPDX-License-Identifier: GPL-2.0 */
#ifndef FLOOR_CLOCKS_H
#define FLOOR_CLOCKS_H

#include <linux/types.h>

struct clocks {
	/* How long this domain's first vCPU has run, including Xen's work for it: nanoseconds of Xen's time. */
	u64 running;
	/* One moment: by the counter that programs of this domain read, in ticks, */
	u64 ticks;
	/* and by a clock that a guest reads too, in nanoseconds. */
	u64 time;
};

/* Returns 0 or a negative errno. A file for each architecture has it. */
int clocks_read(struct clocks *clocks);

#endif
