# An HVM guest, which has its devices beside those of QEMU, placed by hvmloader.
# shellcheck shell=sh

# It has a screen, so QEMU gives it more memory than it has by itself. Its reboot is QEMU's, by the keyboard controller.
printf 'name="all"\ntype="hvm"\nmemory=192\nvcpus=4\nnographic=1\nkernel="/lab/vmlinuz"\nramdisk="/lab/guest.cpio"\ncmdline="console=hvc0 quiet panic=1"\n' >all.cfg

# hvm_backends: a disk of four queues, one that keeps nothing, and random numbers, of which one maps the guest by itself
hvm_backends() {
	disk blk 4
	background empty.log qemu-storage-daemon --blockdev driver=null-co,node-name=disk,size=16777216,read-zeroes=on \
		--export type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=/tmp/empty.sock,writable=on,num-queues=4
	backends="$backends $!"
	within 20 test -S empty.sock
	rng plain
	rng mapped -xen
}

# hvm_devices COMMAND...: this command of xen-virtio in the background, with the devices; `server` is its process
hvm_devices() {
	background all.log xen-virtio "$@" --device blk,socket=/tmp/blk.sock,queues=4 \
		--device blk,socket=/tmp/empty.sock,queues=4 \
		--device rng,socket=/tmp/plain.sock0 --device rng,socket=/tmp/mapped.sock0
	server=$!
}

# How many zeros the disk without data has where it is read.
zeros='dd if=/dev/vdb bs=64k count=16 iflag=direct 2>/dev/null | tr -cd "\0" | wc -c'

# check_hvm ENGINE: all of them
check_hvm() {
	up all 1
	verdict "hvm_guest_comes_up_$1" $? all.log "$(console all)" /var/log/xen/qemu-dm-all.log
	pattern=$(ask all write_disk)
	[ -n "$pattern" ] && [ "$(ask all read_disk)" = "$pattern" ] && [ "$(head -c 4194304 blk.img | sum)" = "$pattern" ]
	verdict "hvm_blk_reads_what_was_written_$1" $? blk.log all.log
	ask all 'by_all verify_part' >said
	verdict "hvm_blk_keeps_what_four_vcpus_write_at_once_$1" $? said blk.log all.log
	ask all 'ls /sys/block/vda/mq | wc -l; for queue in 0 1 2 3; do interrupts virtio0-req.$queue; done' >said
	[ "$(sed -n 1p said)" = 4 ] && [ "$(sed 1d said | awk '$1 > 9' | wc -l)" = 4 ]
	verdict "hvm_blk_has_a_queue_for_each_vcpu_$1" $? said blk.log
	[ "$(ask all "$zeros")" = 1048576 ] && ask all 'quiet dd if=/dev/zero of=/dev/vdb bs=64k count=16 oflag=direct' >said
	verdict "hvm_blk_that_keeps_nothing_$1" $? said empty.log
	for number in 0 1; do
		[ "$(ask all "random $number")" -gt 200 ]
		verdict "hvm_rng_brings_random_bytes_${number}_$1" $? plain.log mapped.log
	done
}

hvm_backends
hvm_devices start all.cfg
check_hvm kernel
functions='for at in /sys/bus/pci/devices/*; do echo "${at##*/} $(cat $at/vendor $at/class | tr "\n" " ")"; done'
ask all "$functions" >said
grep -q '00:00.0 0x8086 0x060000' said && grep -q '00:02.0 0x5853' said && [ "$(grep -c '00:1[0-3].0 0x1af4' said)" = 4 ]
verdict hvm_functions_are_beside_those_of_qemu $? said

# Linux places a function anew that it finds again.
at=/sys/bus/pci/devices/0000:00:11.0
ask all "head -n 2 $at/resource" >before
ask all "echo 1 >$at/remove; echo 1 >/sys/bus/pci/rescan; head -n 2 $at/resource" >after
moved() { [ -n "$(sed -n "$1p" after)" ] && [ "$(sed -n "$1p" before)" != "$(sed -n "$1p" after)" ]; }
moved 1 && moved 2 && [ "$(ask all "$zeros")" = 1048576 ]
verdict hvm_function_is_served_where_its_guest_moves_it $? before after all.log
check_log

# The guest resets the machine, without an end of its drivers.
type_in all 'echo b >/proc/sysrq-trigger'
up all 2
verdict hvm_start_follows_a_reset $? all.log "$(console all)"
[ "$(ask all read_disk)" = "$pattern" ]
verdict hvm_blk_has_it_after_a_reset $? blk.log all.log

# It is destroyed while it reads.
type_in all 'while read_disk; do echo @read; done'
within 60 eval '[ "$(grep -c "^@read" "$(console all)")" -ge 2 ]'
verdict hvm_guest_reads $? all.log "$(console all)"
timeout 100 xl destroy all 2>destroy.log
verdict hvm_guest_is_destroyed_while_it_reads $? destroy.log
within 60 stopped $server
verdict hvm_start_ends_with_a_destroyed_guest $? all.log
left hvm

export XEN_EVENTFD_ENGINE=userspace
hvm_backends
rm -f "$(console all)"
xl create -q -p all.cfg
hvm_devices serve all
ready all.log
verdict hvm_serve_takes_a_paused_guest $? all.log
xl unpause all
check_hvm userspace
power_off all
wait $server
verdict hvm_serve_ends_with_its_guest $? all.log
left hvm_userspace
exit 0
