# An HVM guest, which has its devices beside those of QEMU, placed by hvmloader.
# shellcheck shell=sh

# It has a screen, so QEMU gives it more memory than it has by itself. Its reboot is QEMU's, by the keyboard controller.
printf 'name="all"\ntype="hvm"\nmemory=192\nvcpus=%s\nnographic=1\nkernel="/lab/vmlinuz"\nramdisk="/lab/guest.cpio"\ncmdline="console=hvc0 quiet panic=1"\n' \
	"$vcpus" >all.cfg
disk blk
rng plain
rng mapped -xen
background all.log xen-virtio start all.cfg --device blk,socket=/tmp/blk.sock,queues=2 \
	--device rng,socket=/tmp/plain.sock0 --device rng,socket=/tmp/mapped.sock0
server=$!
up all 1
verdict hvm_guest_comes_up $? all.log "$(console all)" /var/log/xen/qemu-dm-all.log

functions='for at in /sys/bus/pci/devices/*; do echo "${at##*/} $(cat $at/vendor $at/class | tr "\n" " ")"; done'
ask all "$functions" >said
grep -q '00:00.0 0x8086 0x060000' said && grep -q '00:02.0 0x5853' said && [ "$(grep -c '00:1[0-2].0 0x1af4' said)" = 3 ]
verdict hvm_functions_are_beside_those_of_qemu $? said
check_blk 0
for number in 0 1; do
	[ "$(ask all "random $number")" -gt 200 ]
	verdict hvm_rng_brings_random_bytes_$number $? plain.log mapped.log
done

# Linux places a function anew that it finds again.
at=/sys/bus/pci/devices/0000:00:11.0
ask all "head -n 2 $at/resource" >before
ask all "echo 1 >$at/remove; echo 1 >/sys/bus/pci/rescan; head -n 2 $at/resource" >after
moved() { [ -n "$(sed -n "$1p" after)" ] && [ "$(sed -n "$1p" before)" != "$(sed -n "$1p" after)" ]; }
moved 1 && moved 2 && [ "$(ask all "random 0")" -gt 200 ]
verdict hvm_function_is_served_where_its_guest_moves_it $? before after all.log
check_log

reboots hvm_
power_off all
wait $server
verdict hvm_start_ends_with_its_guest $? all.log
left hvm
exit 0
