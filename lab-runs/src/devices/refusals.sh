# What is refused: with a sentence that says why, and with nothing lost.
# shellcheck shell=sh

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
refused more_devices_than_a_bus_has 31 serve guest $bus
refused a_backend_with_too_few_queues queues serve guest --device blk,socket=/tmp/blk.sock,queues=3
# shellcheck disable=SC2046
kill -STOP $(pidof qemu-storage-daemon)
refused a_backend_that_says_nothing blk.sock serve guest --device blk,socket=/tmp/blk.sock
# shellcheck disable=SC2046
kill -CONT $(pidof qemu-storage-daemon)
background other.log xen-eventfd --engine userspace watch guest mmio:0xfe000050:4 --take
other=$!
within 20 grep -q . other.log
refused a_guest_with_another_engine "$other" serve guest --device rng,socket=/tmp/plain.sock0
kill $other
wait $other

background guest.log xen-virtio serve guest --device net,tap=tap0 --device rng,socket=/tmp/plain.sock0
server=$!
ready guest.log
verdict it_is_served_after_all_that $? guest.log
refused a_guest_that_is_served "$server" serve guest --device blk,socket=/tmp/blk.sock
config other 1 "" /lab/guest.cpio
refused a_tap_that_is_taken tap0 start other.cfg --device net,tap=tap0
xl unpause guest
up guest 1
verdict it_comes_up_after_all_that $? guest.log "$(console guest)"
[ "$(ask guest 'random 0')" -gt 200 ]
verdict its_devices_work_after_all_that $? guest.log

kill -9 $server
ask guest 'od -An -tx1 -N4 /sys/bus/pci/devices/0000:00:01.0/config' >said
verdict a_vcpu_does_not_wait_for_a_process_that_was_killed $? said
within 10 unserved
verdict a_process_that_was_killed_leaves_no_registration $? left.txt
refused a_guest_that_runs_with_other_devices other serve guest --device blk,socket=/tmp/blk.sock
ask guest 'echo on' >said && grep -q on said
verdict a_guest_that_runs_goes_on $? said
xl destroy guest

printf 'name="pv"\ntype="pv"\nkernel="/lab/vmlinuz"\nmemory=128\n' >pv.cfg
xl create -q -e -p pv.cfg
refused a_pv_guest PV serve pv --device blk,socket=/tmp/blk.sock
refused a_pv_guest_s_configuration pvh start pv.cfg --device blk,socket=/tmp/blk.sock
xl destroy pv
refused no_such_file none.cfg start none.cfg --device blk,socket=/tmp/blk.sock
left refusals
exit 0
