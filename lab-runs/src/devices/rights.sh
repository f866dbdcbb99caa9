# What a process that serves a guest can reach, and what a backend can with what it was given.
# shellcheck shell=sh

confinement >said 2>&1
verdict what_was_given_up_cannot_be_had_again $? said
CONFINED_WHOLLY=1 confinement >said 2>&1
verdict this_kernel_confines_files_and_sockets $? said

config guest 1 "" /lab/guest.cpio
config other 1 "" /lab/guest.cpio
xl create -q -p other.cfg
OTHER=$(xl domid other)
export OTHER

# hostile SOCKET TEST: the backend of that test, for a guest's device
hostile() {
	xl create -q -p guest.cfg
	GUEST=$(xl domid guest)
	export GUEST
	background "$2.log" hostile_backend --ignored --exact "$2"
	hostile=$!
	within 20 test -S "$1.sock"
	background served.log xen-virtio serve guest --device "rng,socket=/tmp/$1.sock"
	server=$!
	ready served.log
	verdict "$2_is_served" $? served.log
	kill $server
	wait $server
	wait $hostile
	verdict "$2" $? "$2.log"
	xl destroy guest
}
hostile privcmd privcmd_reaches_one_guest
hostile memory a_memory_file_is_one_guests
xl destroy other

# confined ENGINE: the guest of the engine works, and its process is confined
confined() {
	xl create -q -p guest.cfg
	rng "$1"
	# Its own user's alone.
	chown 12345:12345 "$1.sock0" && chmod 600 "$1.sock0"
	background "$1.log" env "XEN_EVENTFD_ENGINE=$1" xen-virtio serve guest --device "rng,socket=/tmp/$1.sock0" --device net,tap=tap0
	server=$!
	ready "$1.log"
	verdict "$1_serves" $? "$1.log"
	xl unpause guest
	up guest 1
	verdict "$1_guest_comes_up" $? "$1.log" "$(console guest)"
	xen-virtio show guest >said && grep -q 'confined to this guest$' said
	verdict "$1_says_that_it_is_confined" $? said
	[ "$(grep -cE '^(NoNewPrivs:.1|Seccomp:.2)$' "/proc/$server/status")" = 2 ]
	verdict "$1_is_confined" $? "/proc/$server/status"
	# Each thread, the engine's too.
	! grep -LE '^Seccomp:.2$' /proc/$server/task/*/status | grep .
	verdict "$1_threads_are_confined" $?
	# Threads that vhost-net has in the kernel are no part of the program.
	for task in /proc/$server/task/*; do
		grep -q '^vhost-' "$task/comm" || awk '/^Cap(Prm|Eff):/ { print $2 }' "$task/status"
	done | sort -u >said
	! grep -vE '^000000000000000[02]$' said && grep -q 2 said
	verdict "$1_threads_have_one_capability_at_most" $? said
	if [ "$1" = userspace ]; then
		grep -lE '^xen-(ioeventfd|irqfd)$' /proc/$server/task/*/comm | sed 's/comm$/status/' | xargs awk '/^Cap(Prm|Eff):/ { print $2 }' >said
		[ "$(sort -u said)" = 0000000000000000 ]
		verdict threads_of_the_engine_have_no_capability $? said
	fi
	[ "$(ask guest 'random 0')" -gt 200 ]
	verdict "$1_random_bytes" $? "$1.log"
	ip addr add 10.9.0.1/24 dev tap0 && ip link set tap0 up
	ask guest 'card 0' >said
	verdict "$1_pings" $? said "$1.log"
	xl destroy guest
	wait $server
	verdict "$1_ends_with_its_guest" $? "$1.log"
}
confined kernel
confined userspace

# Its backend is of dom0's kernel and there from the beginning, so nothing is connected to once the process is confined.
rm -f "$(console guest)"
xl create -q -p guest.cfg
background alone.log xen-virtio serve guest --device net,tap=tap0
server=$!
ready alone.log
verdict a_card_alone_is_served $? alone.log
ip addr add 10.9.0.1/24 dev tap0 && ip link set tap0 up
xl unpause guest
up guest 1 && ask guest 'card 0' >said
verdict it_pings $? said alone.log
xl destroy guest
wait $server
left rights
exit 0
