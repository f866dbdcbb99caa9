/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Error tables. A row is a mistake and its errno. Each is made alone, and together with all mistakes
 * that come after it in the table: of several, the first counts.
 */

#ifndef ROWS_H
#define ROWS_H

#include <linux/ioctl.h>
#include <stddef.h>
#include <xen/privcmd.h>

struct call {
	int fd;
	unsigned long request;
	void *argument;		/* NULL: the struct below */
	union {
		struct privcmd_ioeventfd ioeventfd;
		struct privcmd_irqfd irqfd;
	};
};

struct row {
	const char *mistake;
	int error;
	void (*make)(struct call *call);
};

int make_call(struct call *call);

/* Makes all rows' mistakes in a call that is good; `what` is the call. */
void rows(const char *what, const struct call *good, const struct row *rows, size_t count);

/* Each of these cannot be read, not even its first byte, or not beyond that. */
void *nowhere(void);
void *kernel_address(void);
void *end_of_page(void);

#endif
