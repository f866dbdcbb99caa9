// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Tests of the privcmd ABI: the requests of <xen/privcmd.h> that assign eventfds to doorbells and
 * interrupts to eventfds, on any node that implements them.
 *
 *	privcmd list all			the tests
 *	privcmd list rules			those that also hold for Linux's privcmd ioeventfd patch
 *	privcmd list races			the concurrent ones
 *	privcmd NODE TEST script		prints the script of its guest
 *	privcmd NODE TEST DOM PORT		runs it; see guest.h
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
	RULE,		/* a rule of Linux's patch, which also holds there */
	OURS,
	RACE,		/* a rule of the module, and concurrent */
};

struct test {
	const char *name;
	const char *script;
	void (*run)(const struct guest *guest);
	enum kind kind;
};

static const struct test tests[] = {
	{ "privcmd_ioeventfd", SCRIPT_NONE, test_ioeventfd, RULE },
	{ "privcmd_irqfd", SCRIPT_NONE, test_irqfd, RULE },
	{ "privcmd_restrict", SCRIPT_NONE, test_restrict, RULE },
	{ "privcmd_interrupt", SCRIPT_INTERRUPT, test_interrupt, RULE },
	{ "privcmd_differences", SCRIPT_NONE, test_differences, OURS },
	{ "privcmd_kicks", SCRIPT_KICKS, test_kicks, OURS },
	{ "privcmd_two_files", SCRIPT_KICKS, test_two_files, OURS },
	{ "privcmd_native", SCRIPT_NONE, test_native, OURS },
	{ "privcmd_close", SCRIPT_KICKING, test_close, RACE },
	{ "privcmd_killed", SCRIPT_KICKING, test_killed, RACE },
	{ "privcmd_death", SCRIPT_KICKING, test_death, RACE },
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
	/* Checked for readability only. */
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
	fprintf(stderr, "privcmd: no test is named %s; try: privcmd list all\n", name);
	exit(EXIT_FAILURE);
}

int main(int count, char *words[])
{
	const struct test *test;
	struct guest guest;

	if (count == 3 && !strcmp(words[1], "list"))
		return list(words[2]);
	if (count < 4) {
		fputs("usage: privcmd list (all | rules | races) | privcmd NODE TEST (script | DOM PORT)\n",
		      stderr);
		return EXIT_FAILURE;
	}
	node = words[1];
	test = find(words[2]);
	if (count == 4) {
		puts(test->script);
		return EXIT_SUCCESS;
	}
	begin(test->name);
	guest_meet(&guest, words + 3);
	test->run(&guest);
	return status();
}
