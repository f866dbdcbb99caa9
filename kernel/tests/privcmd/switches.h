/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Wakeups: the kernel's count of voluntary context switches. */

#ifndef SWITCHES_H
#define SWITCHES_H

#include <stdint.h>
#include <sys/types.h>

/* The sum of voluntary_ctxt_switches in /proc/PID/task/TID/status. */
struct switches {
	uint64_t vmm;
	uint64_t backend;
	uint64_t others;	/* of all other processes but this one */
	uint64_t kernel;	/* of kernel threads */
};

struct switches switches_now(pid_t vmm, pid_t backend);

#endif
