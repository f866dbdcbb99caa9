// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Counts which processes are woken when a guest kicks 1,000 times.
 *
 *	wakeups WAY NODE script		prints the guest's script
 *	wakeups WAY NODE DOM PORT	prints one line of names and numbers; see guest.h
 *
 * Two processes beside this one: a VMM, which reads its event channels as users of Linux's privcmd
 * ioeventfd patch do and leaves the kicks to the kernel, and a backend, which reads the eventfd.
 */

#include "check.h"
#include "guest.h"
#include "switches.h"
#include "way.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE 0xfe000000ULL
#define DOORBELL (BASE + 0x50)
#define KICKS 1000
/* It does not reach its end, which it would report to xenconsoled. */
#define ORDERS \
	"listen evtchn go; wait go; repeat 1000; write mmio:0xfe000050 4 0; end; send go; wait go"

/* Signalled to the backend at the end. */
#define OVER (1ULL << 32)

/* Shared by the processes. */
struct shared {
	bool ready;		/* the VMM serves */
	uint64_t delivered;	/* kicks that the backend received */
	uint64_t reached;	/* kicks that the VMM received */
};

static struct shared *shared;
static const struct way *way;
static int eventfd_of_queue;

static void carry_out(struct access *access)
{
	access->data = access->write ? access->data : 0;
	if (!access->write || access->addr != DOORBELL)
		return;
	shared->reached++;
	if (!way->set_up)
		signal_eventfd(eventfd_of_queue);
}

static void be_vmm(const char *node, domid_t dom)
{
	struct device device;

	device_open(&device, dom, BASE, 0x1000);
	if (way->set_up)
		way->set_up(node, &device, BASE, eventfd_of_queue);
	__atomic_store_n(&shared->ready, true, __ATOMIC_RELEASE);
	for (;;)
		device_serve(&device, carry_out);
}

static void be_backend(void)
{
	uint64_t count = 0;

	while (count < OVER) {
		must("reading the queue's eventfd",
		     read(eventfd_of_queue, &count, sizeof(count)));
		shared->delivered += count % OVER;
	}
	exit(EXIT_SUCCESS);
}

/* A child that ends with this process. */
static pid_t child(void)
{
	pid_t pid = must("fork", fork());

	if (pid == 0)
		must("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, SIGKILL));
	return pid;
}

/* Lets other processes finish what they are doing. */
static void settle(void)
{
	usleep(100000);
}

static void measure(const char *node, char *words[2])
{
	struct switches before, after;
	const uint64_t over = OVER;
	struct guest guest;
	pid_t vmm, backend;

	backend = child();
	if (backend == 0)
		be_backend();
	vmm = child();
	if (vmm == 0)
		be_vmm(node, strtoul(words[0], NULL, 10));
	while (!__atomic_load_n(&shared->ready, __ATOMIC_ACQUIRE)) {
		if (waitpid(vmm, NULL, WNOHANG) == vmm)
			exit(EXIT_FAILURE);
		usleep(1000);
	}
	guest_meet(&guest, words);
	settle();

	before = switches_now(vmm, backend);
	guest_round(&guest);
	settle();
	after = switches_now(vmm, backend);

	must("the last signal", write(eventfd_of_queue, &over, sizeof(over)));
	must("the backend's end", waitpid(backend, NULL, 0));
	must("the VMM's end", kill(vmm, SIGKILL));
	must("the VMM's end", waitpid(vmm, NULL, 0));
	printf("wakeups kicks %d delivered %" PRIu64 " reached %" PRIu64 " vmm %" PRIu64
	       " backend %" PRIu64 " others %" PRIu64 " kernel %" PRIu64 "\n",
	       KICKS, shared->delivered, shared->reached, after.vmm - before.vmm,
	       after.backend - before.backend, after.others - before.others,
	       after.kernel - before.kernel);
}

int main(int count, char *words[])
{
	way = count < 4 ? NULL : way_named(words[1]);
	if (!way) {
		fputs("usage: wakeups (vmm | privcmd | native) NODE (script | DOM PORT)\n", stderr);
		return EXIT_FAILURE;
	}
	if (count == 4) {
		puts(ORDERS);
		return EXIT_SUCCESS;
	}
	begin("wakeups");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must("shared memory", shared == MAP_FAILED ? -1 : 0);
	/* The backend waits in read(). */
	eventfd_of_queue = must("an eventfd", eventfd(0, EFD_CLOEXEC));
	measure(words[2], words + 3);
	return status();
}
