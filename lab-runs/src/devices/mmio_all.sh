# An Arm guest with a disk, a file system, two cards and random numbers on virtio-mmio, whose backends map its memory by the
# module.
# shellcheck shell=sh

mkdir files
echo dom0 >files/said
disk blk 1
files fs /tmp/files
rng plain
network
config arm 1 "" /lab/guest.cpio
lines arm 02 1a 01 04 01

# serves LOG OPTION...: xen-virtio with the guest's devices; `server` is its process
serves() {
	log=$1
	shift
	background "$log" xen-virtio serve arm "$@" --device blk,socket=/tmp/blk.sock --device fs,socket=/tmp/fs.sock,tag=fs \
		--device net,tap=tap0,mac=52:54:00:00:00:01 --device rng,socket=/tmp/plain.sock0 \
		--device net,socket=/tmp/passt.sock,mac=52:54:00:00:00:02
	server=$!
}

xl create -q -p arm.cfg
serves arm.log --takeover-time 120
ready arm.log
verdict serve_takes_a_paused_guest $? arm.log blk.log fs.log
xl unpause arm
up arm 1
verdict a_stock_guest_comes_up $? arm.log "$(console arm)"
xen-virtio show arm >said && [ "$(grep -c mmio@ said)" = 5 ]
verdict show_has_the_addresses $? said

pattern=$(ask arm write_disk)
[ -n "$pattern" ] && [ "$(ask arm read_disk)" = "$pattern" ]
verdict blk_reads_what_was_written $? blk.log arm.log
[ "$(head -c 4194304 blk.img | sum)" = "$pattern" ]
verdict blk_has_it_in_the_file $? blk.log
ask arm 'cat /sys/block/vda/cache_type; flushes' >said
[ "$(sed -n 1p said)" = "write back" ] && [ "$(sed -n 2p said)" -gt 0 ]
verdict blk_is_flushed $? said blk.log
accesses() { xen-virtio --json show arm | sed 's/.*"register_accesses":\([0-9]*\).*/\1/'; }
before=$(accesses)
ask arm 'reads 200' >said && [ "$before" -gt 0 ] && [ "$(accesses)" = "$before" ]
verdict no_read_wakes_a_server $? said arm.log
ask arm 'mkdir /tmp/fs && mount -t virtiofs fs /tmp/fs && cat /tmp/fs/said' >said && grep -q dom0 said
verdict fs_shows_what_dom0_writes $? said fs.log
said=$(ask arm 'dd if=/dev/urandom of=/tmp/fs/file bs=64k count=8 2>/dev/null; sync; sum /tmp/fs/file')
[ -n "$said" ] && [ "$said" = "$(sum files/file)" ]
verdict fs_keeps_what_the_guest_writes $? fs.log
ip addr add 10.9.0.1/24 dev tap0 && ip link set tap0 up
ask arm "card 0" >said
verdict net_ping $? said arm.log
publish
[ "$(ask arm "fetch 0")" = "$file" ]
verdict net_to_the_guest $? arm.log
check_network arm eth1 arm.log
[ "$(ask arm 'random 0')" -gt 200 ]
verdict rng_brings_random_bytes $? plain.log
ask arm 'umount /tmp/fs' >said

# Killed amid writes and reads, and started again.
ask arm '(for number in 1 2 3 4 5 6; do [ "$(write_disk $number)" = "$(read_disk)" ] || echo other; done >/tmp/load 2>&1; echo done >>/tmp/load) & echo' >said
again_and_again 1 2 1 && ! ask arm 'grep done /tmp/load' >said
verdict killed_amid_io_and_started_again_three_times $? said next.*.log
comes 200 arm done /tmp/load
verdict the_load_comes_to_its_end $? said next.*.log "$(console arm)"
[ "$(ask arm 'cat /tmp/load')" = done ]
verdict no_byte_of_it_was_other $? said
[ "$(ask arm read_disk)" = "$(head -c 4194304 blk.img | sum)" ] && [ "$(ask arm "fetch 0")" = "$file" ] && fetches arm
verdict disk_and_cards_are_there_afterwards $? next.*.log passt.log
disk_is_served_again arm next.2.log "$(head -c 4194304 blk.img | sum)"

ask arm 'dmesg' >said && grep -q "Linux version" said && ! grep -F -f /lab/trouble said >found
verdict guest_kernel_log $? found
! grep -iE 'i/o error|timed out|needs reset' said >found
verdict the_guest_saw_no_error $? found
xl destroy arm
wait $server
verdict serve_ends_with_a_destroyed_guest $? next.*.log
ip link del tap0
left mmio_all
exit 0
