// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the requests of <xen/privcmd.h> that make eventfds of doorbells and interrupts of
 * eventfds, on any node that has them.
 *
 *	seed list [reference]		the tests; those that also hold for the patch itself
 *	seed NODE TEST orders		what its guest is to do
 *	seed NODE TEST DOM PORT		runs it; see guest.h
 */

#include "check.h"
#include "privcmd.h"
#include "tests.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

struct test {
	const char *name;
	const char *orders;
	void (*run)(const struct guest *guest);
	bool reference;		/* it is the patch's own rule */
};

static const struct test tests[] = {
	{ "seed_ioeventfd", ORDERS_NONE, test_ioeventfd, true },
	{ "seed_irqfd", ORDERS_NONE, test_irqfd, true },
	{ "seed_restrict", ORDERS_NONE, test_restrict, true },
	{ "seed_interrupt", ORDERS_INTERRUPT, test_interrupt, true },
	{ "seed_differences", ORDERS_NONE, test_differences, false },
	{ "seed_kicks", ORDERS_KICKS, test_kicks, false },
	{ "seed_two_files", ORDERS_KICKS, test_two_files, false },
	{ "seed_native", ORDERS_NONE, test_native, false },
	{ "seed_close", ORDERS_RINGING, test_close, false },
	{ "seed_killed", ORDERS_RINGING, test_killed, false },
};

static const char *node;

int open_node(void)
{
	return must(node, open(node, O_RDWR | O_CLOEXEC));
}

int open_restricted(domid_t dom)
{
	int fd = open_node();

	must("RESTRICT", ioctl(fd, IOCTL_PRIVCMD_RESTRICT, &dom));
	return fd;
}

struct privcmd_ioeventfd registration(const struct guest *guest, void *page, uint64_t base,
				      uint32_t vq, int eventfd)
{
	/* Looked at for readability alone. */
	static uint32_t ports[4096];
	static unsigned int vcpus;

	if (!vcpus) {
		int privcmd = privcmd_open();

		vcpus = privcmd_vcpus(privcmd, guest->dom);
		close(privcmd);
	}
	return (struct privcmd_ioeventfd){
		.ioreq = (uintptr_t)page,
		.ports = (uintptr_t)ports,
		.addr = base,
		.addr_len = 4,
		.event_fd = eventfd,
		.vcpus = vcpus,
		.vq = vq,
		.dom = guest->dom,
	};
}

int assign(int node, const struct privcmd_ioeventfd *registration)
{
	return ioctl(node, IOCTL_PRIVCMD_IOEVENTFD, registration);
}

int deassign(int node, const struct privcmd_ioeventfd *registration)
{
	struct privcmd_ioeventfd end = *registration;

	end.flags = PRIVCMD_IOEVENTFD_FLAG_DEASSIGN;
	return ioctl(node, IOCTL_PRIVCMD_IOEVENTFD, &end);
}

static int list(bool reference)
{
	for (size_t nth = 0; nth < COUNT(tests); nth++) {
		if (tests[nth].reference || !reference)
			puts(tests[nth].name);
	}
	return EXIT_SUCCESS;
}

static const struct test *find(const char *name)
{
	for (size_t nth = 0; nth < COUNT(tests); nth++) {
		if (!strcmp(tests[nth].name, name))
			return &tests[nth];
	}
	fprintf(stderr, "seed: there is no test %s; try: seed list\n", name);
	exit(EXIT_FAILURE);
}

int main(int count, char *words[])
{
	const struct test *test;
	struct guest guest;

	if (count >= 2 && !strcmp(words[1], "list"))
		return list(count >= 3);
	if (count < 4) {
		fputs("usage: seed list [reference] | seed NODE TEST (orders | DOM PORT)\n", stderr);
		return EXIT_FAILURE;
	}
	node = words[1];
	test = find(words[2]);
	if (count == 4) {
		puts(test->orders);
		return EXIT_SUCCESS;
	}
	begin(test->name);
	guest_meet(&guest, words + 3);
	test->run(&guest);
	return status();
}
