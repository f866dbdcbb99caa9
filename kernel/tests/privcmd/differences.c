// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The differences from Linux's patch that docs/privcmd-abi.md lists, as far as no kick is needed.
 */

#include "check.h"
#include "privcmd.h"
#include "rows.h"
#include "tests.h"

#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static char keys[2][4096] __attribute__((aligned(4096)));

static void twins(const struct guest *guest)
{
	int node = open_node(), other = open_node();
	struct privcmd_ioeventfd first = registration(guest, keys[0], BASE, 3, new_eventfd());
	struct privcmd_ioeventfd twin = registration(guest, keys[0], BASE, 3, new_eventfd());

	ended("a key that no device model mapped", 0, assign(node, &first));
	ended("a twin", EEXIST, assign(node, &twin));
	twin.ioreq = (uintptr_t)keys[1];
	ended("a twin under another key", EEXIST, assign(node, &twin));
	ended("a twin in another file", EEXIST, assign(other, &twin));
	twin.vq = 4;
	ended("no twin: another queue", 0, assign(node, &twin));
	twin.event_fd = new_eventfd();
	twin.vq = 3;
	twin.addr_len = 2;
	ended("no twin: another width", 0, assign(node, &twin));

	ended("deassign through another file", ENODEV, deassign(other, &first));
	ended("deassign through its own file", 0, deassign(node, &first));
	first.event_fd = new_eventfd();
	ended("the place is free again", 0, assign(other, &first));
	close(node);
	close(other);
}

static void numbers(const struct guest *guest)
{
	static const uint64_t wrapping[] = { 0 - 0x53ULL, 0 - 0x50ULL, 0 - 5ULL };
	int node = open_node();
	struct privcmd_ioeventfd call = registration(guest, keys[0], BASE, 0, -1);

	for (size_t nth = 0; nth < COUNT(wrapping); nth++) {
		call.addr = wrapping[nth];
		ended("addr + 0x50 + addr_len wraps, before the eventfd is checked", EINVAL,
		      assign(node, &call));
	}
	call.addr = BASE;
	call.vq = 0x10000;
	ended("a queue beyond 16 bits", EINVAL, assign(node, &call));
	call.vq = 0x100;
	call.addr_len = 1;
	ended("a queue beyond addr_len", EINVAL, assign(node, &call));
	close(node);
}

static void guests(const struct guest *guest)
{
	int node = open_node();
	struct privcmd_ioeventfd call = registration(guest, keys[0], BASE, 0, new_eventfd());
	unsigned int own = call.vcpus;

	for (unsigned int vcpus = own + 1; vcpus <= 4096; vcpus *= 2) {
		call.vcpus = vcpus;
		ended("vCPUs beyond the guest's own", EINVAL, assign(node, &call));
	}
	call.vcpus = own;
	call.dom = 0x7000;
	ended("a domain that does not exist", ENODEV, assign(node, &call));
	call.ports = (uintptr_t)nowhere();
	ended("its ports are checked first", EFAULT, assign(node, &call));
	call = registration(guest, nowhere(), BASE, 0, call.event_fd);
	ended("an ioreq page that cannot be read", EFAULT, assign(node, &call));
	call = registration(guest, kernel_address(), BASE, 0, call.event_fd);
	ended("an ioreq page in the kernel", EFAULT, assign(node, &call));
	close(node);
}

/*
 * A key belongs to its file. One server cannot have two numbers of vCPUs, so a number that is
 * accepted means that there is another server.
 */
static void files(const struct guest *guest)
{
	int node = open_node(), other = open_node();
	struct privcmd_ioeventfd first = registration(guest, keys[0], BASE, 3, new_eventfd());
	struct privcmd_ioeventfd second = registration(guest, keys[0], BASE, 4, new_eventfd());
	int ending;
	pid_t child;

	second.vcpus = 1;
	ended("a key", 0, assign(node, &first));
	ended("a key is known in its file", EINVAL, assign(node, &second));
	ended("it is another key in another file", 0, assign(other, &second));
	ended("only that file has its registration", 0, deassign(other, &second));

	child = fork();
	must("fork", child);
	if (child == 0) {
		int own = open_node();

		ended("a child knows the key in the inherited file", EINVAL, assign(node, &second));
		ended("it is another key in a child's own file", 0, assign(own, &second));
		ended("that file does not have the other's registration", ENODEV, deassign(own, &first));
		ended("but has its own", 0, deassign(own, &second));
		_exit(status());
	}
	must("the child's end", waitpid(child, &ending, 0));
	holds("the child exited with 0", WIFEXITED(ending) && WEXITSTATUS(ending) == 0);
	ended("the first registration is still there", 0, deassign(node, &first));
	close(node);
	close(other);
}

static int assign_irqfd(int node, const struct privcmd_irqfd *call)
{
	return ioctl(node, IOCTL_PRIVCMD_IRQFD, call);
}

static bool is_interrupt(uint32_t op)
{
	return op == XEN_DMOP_set_pci_intx_level || op == XEN_DMOP_set_isa_irq_level ||
	       op == XEN_DMOP_inject_msi || op == XEN_DMOP_set_irq_level;
}

/* The last size that is accepted. */
#define MAX_SIZE 256

#define MSI(address, ...) { \
	.op = XEN_DMOP_inject_msi, \
	.msi = { .addr = address, .data = 0x41, __VA_ARGS__ }, \
}
#define ISA(...) { .op = XEN_DMOP_set_isa_irq_level, .isa = { __VA_ARGS__ } }
#define INTX(...) { .op = XEN_DMOP_set_pci_intx_level, .intx = { __VA_ARGS__ } }
#define SPI(...) { .op = XEN_DMOP_set_irq_level, .spi = { __VA_ARGS__ } }

/* What comes of an interrupt of the guests of one architecture. */
#ifdef __aarch64__
#define OF_X86 EOPNOTSUPP
#define OF_ARM 0
#else
#define OF_X86 0
#define OF_ARM EOPNOTSUPP
#endif

/* Valid operations beside invalid ones. On x86 the guest is a PVH guest, which has no lines. */
static const struct {
	const char *what;
	int error;
	struct dm_op op;
} interrupts[] = {
	{ "the first MSI address", OF_X86, MSI(0xfee00000) },
	{ "the last MSI address", OF_X86, MSI(0xfeefffff) },
	{ "an MSI address below", EINVAL, MSI(0xfedfffff) },
	{ "an MSI address beyond", EINVAL, MSI(0xfef00000) },
	{ "an MSI address beyond 32 bits", EINVAL, MSI(0x1fee00000) },
	{ "an MSI with padding", EINVAL, MSI(0xfee00000, .pad = 1) },
	{ "a dm_op with padding", EINVAL,
	  { .op = XEN_DMOP_inject_msi, .pad = 1, .msi = { .addr = 0xfee00000 } } },
	{ "the last ISA line, up", EOPNOTSUPP, ISA(.isa_irq = 15, .level = 1) },
	{ "the last ISA line, down", EOPNOTSUPP, ISA(.isa_irq = 15) },
	{ "an ISA line beyond", EINVAL, ISA(.isa_irq = 16) },
	{ "an ISA line neither up nor down", EINVAL, ISA(.level = 2) },
	{ "the last PCI line, up", EOPNOTSUPP, INTX(.device = 31, .intx = 3, .level = 1) },
	{ "the last PCI line, down", EOPNOTSUPP, INTX(.device = 31, .intx = 3) },
	{ "a PCI device beyond", EINVAL, INTX(.device = 32) },
	{ "a PCI pin beyond", EINVAL, INTX(.intx = 4) },
	{ "a PCI line of another bus", EINVAL, INTX(.bus = 1) },
	{ "a PCI line of another segment", EINVAL, INTX(.domain = 1) },
	{ "a PCI line neither up nor down", EINVAL, INTX(.level = 2) },
	{ "the first SPI", OF_ARM, SPI(.irq = 32, .level = 1) },
	{ "the last SPI", OF_ARM, SPI(.irq = 1019) },
	{ "an SPI below", EINVAL, SPI(.irq = 31) },
	{ "an SPI beyond", EINVAL, SPI(.irq = 1020) },
	{ "an SPI neither up nor down", EINVAL, SPI(.irq = 32, .level = 2) },
	{ "an SPI with padding", EINVAL, SPI(.irq = 32, .pad = { 0, 0, 1 }) },
};

static const struct {
	const char *what;
	int error;
	size_t size;
	struct dm_op op;
} sizes[] = {
	{ "an MSI", OF_X86, DM_OP_SIZE(msi), MSI(0xfee00000) },
	{ "an ISA line", EOPNOTSUPP, DM_OP_SIZE(isa), ISA(.isa_irq = 5) },
	{ "a PCI line", EOPNOTSUPP, DM_OP_SIZE(intx), INTX(.device = 3) },
	{ "an SPI", OF_ARM, DM_OP_SIZE(spi), SPI(.irq = 33) },
};

/* Assigns it, and deassigns it if that succeeded. */
static void try_irqfd(const char *what, int error, int node, const struct privcmd_irqfd *call)
{
	struct privcmd_irqfd end = *call;
	int result = assign_irqfd(node, call);

	ended(what, error, result);
	end.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	if (result == 0)
		must("its deassign", assign_irqfd(node, &end));
}

static void operations(const struct guest *guest)
{
	static const struct dm_op own = OWN;
	static const uint32_t large[] = { MAX_SIZE + 1, 4096, 1 << 16, 1 << 20, ~0U };
	static union {
		struct dm_op op;
		char room[1 << 20];
	} buffer;
	struct privcmd_irqfd call = {
		.dm_op = (uintptr_t)&buffer,
		.size = sizeof(buffer.op),
		.fd = new_eventfd(),
		.dom = guest->dom,
	};
	int node = open_node();
	char line[96];

	for (uint32_t op = 0; op < 64; op++) {
		if (is_interrupt(op))
			continue;
		buffer.op.op = op;
		snprintf(line, sizeof(line), "dm_op %u is not an interrupt", op);
		ended(line, EINVAL, assign_irqfd(node, &call));
	}
	buffer.op.op = ~0U;
	ended("dm_op ~0 is not an interrupt", EINVAL, assign_irqfd(node, &call));

	for (size_t nth = 0; nth < COUNT(interrupts); nth++) {
		buffer.op = interrupts[nth].op;
		try_irqfd(interrupts[nth].what, interrupts[nth].error, node, &call);
	}
	for (size_t nth = 0; nth < COUNT(sizes); nth++) {
		buffer.op = sizes[nth].op;
		for (call.size = 0; call.size < sizes[nth].size; call.size++) {
			snprintf(line, sizeof(line), "%s cut short at %u bytes", sizes[nth].what,
				 call.size);
			ended(line, EINVAL, assign_irqfd(node, &call));
		}
		snprintf(line, sizeof(line), "%s that is complete", sizes[nth].what);
		try_irqfd(line, sizes[nth].error, node, &call);
	}

	buffer.op = own;
	call.size = MAX_SIZE;
	try_irqfd("a dm_op of 256 bytes", 0, node, &call);
	for (size_t nth = 0; nth < COUNT(large); nth++) {
		call.size = large[nth];
		snprintf(line, sizeof(line), "a dm_op of %u bytes", call.size);
		ended(line, EINVAL, assign_irqfd(node, &call));
	}
	close(node);
}

static struct {
	int assigned;		/* an eventfd that raises an interrupt */
	struct dm_op none;	/* no interrupt */
	struct dm_op line;
} there;

static void oversized(struct call *call)
{
	call->irqfd.size = MAX_SIZE + 1;
}

static void dm_op_nowhere(struct call *call)
{
	call->irqfd.dm_op = (uintptr_t)nowhere();
}

static void not_open(struct call *call)
{
	call->irqfd.fd = -1;
}

static void assigned_eventfd(struct call *call)
{
	call->irqfd.fd = there.assigned;
}

static void no_interrupt(struct call *call)
{
	call->irqfd.dm_op = (uintptr_t)&there.none;
}

static void no_domain(struct call *call)
{
	call->irqfd.dom = 0x7000;
}

static void no_such_line(struct call *call)
{
	call->irqfd.dm_op = (uintptr_t)&there.line;
}

/* The module's rows among those of the patch. */
static const struct row of_irqfd[] = {
	{ "a dm_op that is oversized, before it is read", EINVAL, oversized },
	{ "no dm_op", EFAULT, dm_op_nowhere },
	{ "no open file", EBADF, not_open },
	{ "an eventfd that raises an interrupt already", EBUSY, assigned_eventfd },
	{ "not an interrupt", EINVAL, no_interrupt },
	{ "a domain that does not exist", ENODEV, no_domain },
	{ "a line of a guest that has none", EOPNOTSUPP, no_such_line },
};

static void order(const struct guest *guest)
{
	static struct dm_op own = OWN, line = ISA(.isa_irq = 5);
	struct call call = {
		.fd = open_node(),
		.request = IOCTL_PRIVCMD_IRQFD,
		.irqfd = {
			.dm_op = (uintptr_t)&own,
			.size = sizeof(own),
			.fd = new_eventfd(),
			.dom = guest->dom,
		},
	};

	there.assigned = call.irqfd.fd;
	there.line = line;
	ended("an irqfd", 0, make_call(&call));
	call.irqfd.fd = new_eventfd();
	rows("assign an irqfd", &call, of_irqfd, COUNT(of_irqfd));
	ended("assign another", 0, make_call(&call));
	close(call.fd);
}

static void irqfds(const struct guest *guest)
{
	struct dm_op op = OWN;
	struct privcmd_irqfd call = {
		.dm_op = (uintptr_t)&op,
		.size = OWN_SIZE,
		.fd = new_eventfd(),
		.dom = 0x7000,
	}, end;
	int node = open_node(), other = open_node();

	ended("an irqfd for a domain that does not exist", ENODEV, assign_irqfd(node, &call));
	call.dom = guest->dom;
	ended("an irqfd", 0, assign_irqfd(node, &call));
	end = call;
	end.flags = PRIVCMD_IRQFD_FLAG_DEASSIGN;
	ended("deassign through another file", 0, assign_irqfd(other, &end));
	ended("it has no effect: the irqfd is still there", EBUSY, assign_irqfd(node, &call));
	close(node);
	ended("close deassigns it", 0, assign_irqfd(other, &call));
	close(other);
}

void test_differences(const struct guest *guest)
{
	twins(guest);
	numbers(guest);
	guests(guest);
	files(guest);
	operations(guest);
	order(guest);
	irqfds(guest);
}
