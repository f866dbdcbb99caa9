# What is refused: with a sentence that says why, and with nothing lost.
# shellcheck shell=sh

# refused NAME WORD ARGUMENTS...: xen-virtio refuses it, and says one reason, in which this word is
refused() {
	name=$1 word=$2
	shift 2
	timeout 60 xen-virtio "$@" >out 2>err
	status=$?
	[ $status != 0 ] && [ $status -lt 100 ] && [ "$(grep -cE '^(xen-virtio|error): ' err)" = 1 ] && grep -qi -- "$word" err
	verdict "$name" $? out err
	cat err
}

disk blk
rng plain
config guest 1 "" /lab/guest.cpio
xl create -q -p guest.cfg

refused no_such_guest absent serve absent --device blk,socket=/tmp/blk.sock
refused no_socket_there none.sock serve guest --device blk,socket=/tmp/none.sock
refused no_such_device disc serve guest --device disc,socket=/tmp/blk.sock
refused nothing_to_serve device serve guest
bus=
for _ in $(seq 40); do bus="$bus --device net,tap=tap0"; done
# shellcheck disable=SC2086
refused more_devices_than_a_bus_has 'device' serve guest $bus
# shellcheck disable=SC2046
kill -STOP $(pidof qemu-storage-daemon)
refused a_backend_that_says_nothing 'blk.sock' serve guest --device blk,socket=/tmp/blk.sock
# shellcheck disable=SC2046
kill -CONT $(pidof qemu-storage-daemon)

background guest.log xen-virtio serve guest --device net,tap=tap0 --device rng,socket=/tmp/plain.sock0
server=$!
ready guest.log
verdict it_is_served_after_all_that $? guest.log
refused a_guest_that_is_served "$server" serve guest --device blk,socket=/tmp/blk.sock
config other 1 "" /lab/guest.cpio
xl create -q -p other.cfg
refused a_tap_that_is_taken tap0 serve other --device net,tap=tap0
xl destroy other
xl unpause guest
up guest 1
verdict it_comes_up_after_all_that $? guest.log "$(console guest)"
[ "$(ask guest 'random 0')" -gt 200 ]
verdict its_devices_work_after_all_that $? guest.log
kill -9 $server
ask guest 'od -An -tx1 -N4 /sys/bus/pci/devices/0000:00:01.0/config' >said
verdict a_vcpu_does_not_wait_for_a_process_that_was_killed $? said
xl destroy guest

config running 1 "" /lab/guest.cpio
xl create -q -e running.cfg
refused a_guest_that_runs paused serve running --device blk,socket=/tmp/blk.sock
up running 1
verdict a_guest_that_runs_goes_on $? "$(console running)"
xl destroy running
printf 'name="pv"\ntype="pv"\nkernel="/lab/vmlinuz"\nmemory=128\n' >pv.cfg
xl create -q -e -p pv.cfg
refused a_pv_guest PV serve pv --device blk,socket=/tmp/blk.sock
xl destroy pv
refused no_such_file none.cfg start none.cfg --device blk,socket=/tmp/blk.sock
left refusals
exit 0
