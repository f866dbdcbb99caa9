// SPDX-License-Identifier: MIT OR Apache-2.0
#include "guest.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <xen/evtchn.h>

void guest_go(const struct guest *guest)
{
	struct ioctl_evtchn_notify notify = { .port = guest->go };

	must("an event to the guest", ioctl(guest->evtchn, IOCTL_EVTCHN_NOTIFY, &notify));
}

void guest_await(const struct guest *guest)
{
	struct pollfd fd = { .fd = guest->evtchn, .events = POLLIN };
	uint32_t port;

	if (poll(&fd, 1, PATIENCE) == 0) {
		errno = ETIME;
		must("an event of the guest", -1);
	}
	must("an event of the guest", read(guest->evtchn, &port, sizeof(port)));
	must("the end of an event", write(guest->evtchn, &port, sizeof(port)));
}

void guest_round(const struct guest *guest)
{
	guest_go(guest);
	guest_await(guest);
}

void guest_meet(struct guest *guest, char *words[2])
{
	struct ioctl_evtchn_bind_interdomain bind = {
		.remote_domain = strtoul(words[0], NULL, 10),
		.remote_port = strtoul(words[1], NULL, 10),
	};

	guest->dom = bind.remote_domain;
	guest->evtchn = must("/dev/xen/evtchn", open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC));
	guest->go = 0;
	if (!bind.remote_port)
		return;
	guest->go = must("the guest's event channel",
			 ioctl(guest->evtchn, IOCTL_EVTCHN_BIND_INTERDOMAIN, &bind));
	/* Xen sends one event at binding, as an earlier one may have been lost. */
	guest_await(guest);
}
