# What a guest does to its own drivers: it unbinds and binds them again and again, takes a vCPU away under load, and crashes
# amid I/O. Its devices are as new each time, and of what was before nothing is left.
# shellcheck shell=sh

# How often drivers are unbound.
times=$3
disk blk
backend=${backends##* }
publish
config drivers "$vcpus" "" /lab/guest.cpio
echo 'on_crash="restart"' >>drivers.cfg
is_arm && lines drivers 02 01 01
background drivers.log xen-virtio start drivers.cfg --device blk,socket=/tmp/blk.sock,queues=2 \
	--device net,tap=tap0,mac=52:54:00:00:00:01,pairs=2 --device net,tap=tap1,mac=52:54:00:00:00:02,offloads=off
server=$!

# begins TIMES: the guest has come up so often, and uses its devices
begins() {
	up drivers "$1" || return 1
	for card in 0 1; do
		ip addr add 10.9.$card.1/24 dev tap$card
		ip link set tap$card up && ask drivers "card $card" >said || return 1
	done 2>/dev/null
}
begins 1
verdict a_guest_uses_its_devices $? said drivers.log "$(console drivers)"
pattern=$(ask drivers write_disk)
[ -n "$pattern" ] && [ "$(ask drivers read_disk)" = "$pattern" ]
verdict it_writes_its_disk $? drivers.log blk.log

# counts: what this host has of the guest, and what serves it: how many of each, and what the devices are like
counts() {
	echo "descriptors, threads of $server: $(ls /proc/$server/fd | wc -l), $(ls /proc/$server/task | wc -l)"
	# Without threads: QEMU's pool ends those that had nothing to do for some seconds.
	echo "descriptors of $backend: $(ls /proc/$backend/fd | wc -l)"
	[ -z "$ports" ] || echo "ports: $(lsevtchn 0 | wc -l)"
	echo "guests: $(xl list | wc -l)"
	# Without httpd's, one of which sends to a guest that crashed until TCP gives up.
	processes | sed 's/ [0-9]* httpd//'
	xen-eventfd show drivers --json | grep -o '"registrations":[0-9]*'
	# Without how often they were used.
	xen-virtio show drivers | sed '1,/^$/d' | awk '{ $4 = $5 = ""; print }'
}
as_before() { counts >after && diff before after >differences; }
# own: its own memory. The guest's pages that it has looked at, whose queues are elsewhere each time, count as a file's.
own() { sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB$/\1/p' /proc/$server/status; }

ask drivers 'rebinds 2' >said
counts >before
sed 's/^/        /' before
kilobytes=$(own)
begin=$(date +%s)
ask drivers "rebinds $times" >said && grep -q "^$times times" said
verdict drivers_are_unbound_and_bound_again_and_again $? said drivers.log
echo "        $times times in $(($(date +%s) - begin)) s"
within 20 as_before
verdict nothing_is_left_of_them $? differences
now=$(own)
echo "        KiB of memory of its own: $kilobytes, and then $now"
[ -n "$now" ] && [ $((now - kilobytes)) -lt 512 ]
verdict nor_of_their_memory $? "/proc/$server/status"
ask drivers 'device=$(readlink -f /sys/class/net/eth1/device); echo "${device##*/}" >/sys/bus/virtio/drivers/virtio_net/unbind' >said &&
	xen-virtio show drivers >said && [ "$(grep -c 'no driver' said)" = 1 ]
verdict a_device_without_a_driver_is_shown $? said
ask drivers 'for at in /sys/bus/virtio/devices/*; do [ -e $at/driver ] || echo ${at##*/} >/sys/bus/virtio/drivers/virtio_net/bind; done; card 1' >said &&
	[ "$(ask drivers read_disk)" = "$pattern" ] && [ "$(ask drivers 'fetch 1')" = "$file" ]
verdict the_devices_are_as_new $? said drivers.log

ask drivers "load 6 $file unplugs" >said
grep -q '^moved' said && [ "$(wc -l <said)" = 1 ] && [ "$(sed 's/moved //' said)" -gt 5 ]
verdict a_vcpu_is_unplugged_under_load $? said drivers.log
echo "        a vCPU was away $(sed 's/moved //' said) times"
# A device on virtio-mmio has one interrupt, which has the device's name.
if is_arm; then vectors='virtio[0-9]+$'; else vectors='virtio[0-9]+-'; fi
ask drivers "nproc; by_all verify_part && grep -E '$vectors' /proc/interrupts" >said && [ "$(head -n 1 said)" = "$vcpus" ]
verdict each_vcpu_has_its_queues_again $? said drivers.log
# As Linux says it on x86 and on Arm.
ask drivers dmesg >said && grep -qE 'CPU 1 is now offline|CPU1 killed' said && ! grep -iE 'no irq handler|spurious|i/o error|timed out|needs reset' said >found
verdict no_interrupt_was_lost_or_stale $? found
ask drivers dmesg >said && ! grep -F -f /lab/trouble said >found
verdict guest_kernel_log $? found

# works: it writes and reads without an end, and has begun to
works() {
	ask drivers '(while by_all verify_part; do :; done) >/dev/null 2>&1 & (while fetch 0; do :; done) >/dev/null 2>&1 &' >said
	before=$(requests)
	within 60 eval '[ "$(requests)" != "$before" ]'
}
requests() { ask drivers 'cat /sys/block/vda/stat /sys/class/net/eth0/statistics/rx_bytes'; }

# It crashes while it writes and reads.
was=$(xl domid drivers)
works && type_in drivers 'echo c >/proc/sysrq-trigger'
begins 2 && [ "$(xl domid drivers)" != "$was" ]
verdict a_guest_that_crashes_amid_io_starts_anew $? drivers.log "$(console drivers)"
[ "$(ask drivers read_disk)" = "$pattern" ] && [ "$(ask drivers 'fetch 0')" = "$file" ]
verdict its_devices_are_as_new $? drivers.log blk.log
within 20 as_before
verdict nothing_is_left_of_the_guest_that_crashed $? differences
works && xl destroy drivers
wait $server
verdict start_ends_with_a_guest_that_is_destroyed_amid_io $? drivers.log

# What Linux does to execute another kernel (kexec): libxl makes no soft reset of a PVH guest. Xen's tools make none
# of an Arm guest either.
soft_reset() {
	metal resets 'soft-reset'
	timeout 120 xen-virtio start resets.cfg --device blk,socket=/tmp/blk.sock >out 2>err
	[ $? = 4 ] && grep -q 'soft reset.*kexec' err
	verdict a_soft_reset_is_named $? out err
}
is_arm || soft_reset
left drivers
exit 0
