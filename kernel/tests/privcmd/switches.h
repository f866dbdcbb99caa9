/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Who was woken: the kernel's own count of context switches that somebody made to wait. */

#ifndef SWITCHES_H
#define SWITCHES_H

#include <stdint.h>
#include <sys/types.h>

/* voluntary_ctxt_switches of /proc/PID/task/TID/status, summed up. */
struct switches {
	uint64_t vmm;
	uint64_t backend;
	uint64_t others;	/* of all other processes but this one */
	uint64_t kernel;	/* of kernel threads */
};

struct switches switches_now(pid_t vmm, pid_t backend);

#endif
