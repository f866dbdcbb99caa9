// SPDX-License-Identifier: MIT OR Apache-2.0
#include "rows.h"
#include "check.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGE 4096

int make_call(struct call *call)
{
	return ioctl(call->fd, call->request, call->argument ? call->argument : &call->ioeventfd);
}

static int error_of(struct call *call)
{
	return make_call(call) < 0 ? errno : 0;
}

void rows(const char *what, const struct call *good, const struct row *rows, size_t count)
{
	for (size_t nth = 0; nth < count; nth++) {
		struct call alone = *good, many = *good;
		char line[160];

		rows[nth].make(&alone);
		/* Where two errors are in one field, the earlier one wins. */
		for (size_t later = count; later-- > nth;)
			rows[later].make(&many);
		snprintf(line, sizeof(line), "%s, %s", what, rows[nth].name);
		refused(line, rows[nth].error, error_of(&alone), error_of(&many));
	}
}

void *nowhere(void)
{
	return (void *)8;
}

void *kernel_address(void)
{
	return (void *)(UINTPTR_MAX - PAGE + 1);
}

void *end_of_page(void)
{
	char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must("two pages", pages == MAP_FAILED ? -1 : 0);
	must("one page", munmap(pages + PAGE, PAGE));
	return pages + PAGE - 1;
}
