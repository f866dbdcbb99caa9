/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Error tables. A row is an error and its errno. Each error is made alone, and together with all
 * later ones of the table: the first one determines the errno.
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
	const char *name;
	int error;
	void (*make)(struct call *call);
};

int make_call(struct call *call);

/* Makes the errors of all rows in a valid call; `what` names the call. */
void rows(const char *what, const struct call *good, const struct row *rows, size_t count);

/* Addresses that cannot be read, either not at all or only for the first byte. */
void *nowhere(void);
void *kernel_address(void);
void *end_of_page(void);

#endif
