// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Tests of the requests of <xen/privcmd.h> that make eventfds of doorbells and interrupts of
 * eventfds, on any node that has them.
 *
 *	seed list all			the tests
 *	seed list rules			those that hold for the patch itself
 *	seed list races			those that are worth several CPUs
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

enum kind {
	RULE,		/* the patch's own rule, which holds for it as well */
	OURS,
	RACE,		/* ours, and about things that happen at once */
};

struct test {
	const char *name;
	const char *orders;
	void (*run)(const struct guest *guest);
	enum kind kind;
};

static const struct test tests[] = {
	{ "seed_ioeventfd", ORDERS_NONE, test_ioeventfd, RULE },
	{ "seed_irqfd", ORDERS_NONE, test_irqfd, RULE },
	{ "seed_restrict", ORDERS_NONE, test_restrict, RULE },
	{ "seed_interrupt", ORDERS_INTERRUPT, test_interrupt, RULE },
	{ "seed_differences", ORDERS_NONE, test_differences, OURS },
	{ "seed_kicks", ORDERS_KICKS, test_kicks, OURS },
	{ "seed_two_files", ORDERS_KICKS, test_two_files, OURS },
	{ "seed_native", ORDERS_NONE, test_native, OURS },
	{ "seed_close", ORDERS_RINGING, test_close, RACE },
	{ "seed_killed", ORDERS_RINGING, test_killed, RACE },
	{ "seed_death", ORDERS_RINGING, test_death, RACE },
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

static int list(const char *which)
{
	bool all = !strcmp(which, "all");
	enum kind kind = !strcmp(which, "rules") ? RULE : RACE;

	for (size_t nth = 0; nth < COUNT(tests); nth++) {
		if (all || tests[nth].kind == kind)
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
	fprintf(stderr, "seed: there is no test %s; try: seed list all\n", name);
	exit(EXIT_FAILURE);
}

int main(int count, char *words[])
{
	const struct test *test;
	struct guest guest;

	if (count == 3 && !strcmp(words[1], "list"))
		return list(words[2]);
	if (count < 4) {
		fputs("usage: seed list (all | rules | races) | seed NODE TEST (orders | DOM PORT)\n",
		      stderr);
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
