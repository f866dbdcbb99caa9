# A guest of two vCPUs with every kind of device, and what is looked at in it, whichever engine serves it.
# shellcheck shell=sh

# all_backends: a backend for each device of the guest `all`
all_backends() {
	root_files
	publish
	disk blk
	rng plain
	rng mapped -xen
	config all "$vcpus" "root=fs rootfstype=virtiofs rw init=/init"
}

# root_files: a backend with the guest's root file system. Links to busybox are made here, as the guest would need requests for
# each.
root_files() {
	mkdir root
	(cd root && cpio -idm </lab/guest.cpio) 2>/dev/null
	[ -e root/bin/mount ] || chroot root /bin/busybox --install -s /bin
	files fs /tmp/root
}

# all_devices COMMAND...: this command of xen-virtio in the background, with the devices; `server` is its process
all_devices() {
	background all.log xen-virtio "$@" --device fs,socket=/tmp/fs.sock,tag=fs \
		--device blk,socket=/tmp/blk.sock,queues=2 \
		--device net,tap=tap0,mac=52:54:00:00:00:01,pairs=2 \
		--device net,tap=tap1,mac=52:54:00:00:00:02,offloads=off \
		--device rng,socket=/tmp/plain.sock0 --device rng,socket=/tmp/mapped.sock0
	server=$!
}

# check_devices: all of them in turn, and then at once
check_devices() {
	up all 1
	verdict fs_is_a_root_file_system $? all.log fs.log "$(console all)"
	xen-virtio list >said && grep -q all said && xen-virtio show all >said && [ "$(grep -cE '(socket|tap)=' said)" = 6 ]
	verdict list_and_show_have_its_devices $? said
	check_fs
	check_blk 1
	check_net
	for number in 0 1; do
		# Of 1,024 random bytes, nearly all values come.
		[ "$(ask all "random $number")" -gt 200 ]
		verdict rng_brings_random_bytes_$number $? plain.log mapped.log
	done
	ask all "load 2 $file" >said
	grep -q '^moved' said && [ "$(wc -l <said)" = 1 ] && [ "$(sed 's/moved //' said)" -gt 20 ]
	verdict load_with_vectors_that_move $? said all.log
	echo "        vectors $(cat said)"
}

check_fs() {
	echo dom0 >root/said
	ask all 'grep "^fs / virtiofs rw" /proc/mounts && cat /said' >said && grep -q dom0 said
	verdict fs_shows_what_dom0_writes $? said fs.log
	said=$(ask all 'dd if=/dev/urandom of=/file bs=64k count=16 2>/dev/null; sync; sum /file')
	[ -n "$said" ] && [ "$said" = "$(sum root/file)" ]
	verdict fs_keeps_what_the_guest_writes $? fs.log
}

# check_blk NUMBER: the disk is this virtio device; `pattern` is the sum of what is on the disk then
check_blk() {
	pattern=$(ask all write_disk)
	[ -n "$pattern" ] && [ "$(ask all read_disk)" = "$pattern" ]
	verdict blk_reads_what_was_written $? blk.log
	[ "$(head -c 4194304 blk.img | sum)" = "$pattern" ]
	verdict blk_has_it_in_the_file $? blk.log
	ask all 'cat /sys/block/vda/cache_type; flushes' >said
	[ "$(sed -n 1p said)" = "write back" ] && [ "$(sed -n 2p said)" -gt 0 ]
	verdict blk_is_flushed $? said blk.log
	ask all 'ls /sys/block/vda/mq | wc -l; interrupts '"virtio$1-req.0; interrupts virtio$1-req.1; grep virtio$1 /proc/interrupts" >said
	[ "$(sed -n 1p said)" = 2 ] && [ "$(sed -n 2p said)" -gt 9 ] && [ "$(sed -n 3p said)" -gt 9 ]
	verdict blk_has_a_queue_for_each_vcpu $? said blk.log
}

# statistic CARD DIRECTION WHAT: of the tap device
statistic() { cat "/sys/class/net/tap$1/statistics/$2_$3"; }

check_net() {
	for card in 0 1; do
		ip addr add 10.9.$card.1/24 dev tap$card && ip link set tap$card up
		ask all "card $card" >said
		verdict net_ping_$card $? said all.log
		[ "$(ask all "fetch $card")" = "$file" ]
		verdict net_to_the_guest_$card $? all.log
	done
	ask all 'mkdir /tmp/www && dd if=/dev/urandom of=/tmp/www/file bs=64k count=16 2>/dev/null && httpd -h /tmp/www && sum /tmp/www/file' >said
	for card in 0 1; do
		bytes=$(statistic $card rx bytes) packets=$(statistic $card rx packets)
		[ "$(wget -q -T 60 -O - 10.9.$card.2/file | sum)" = "$(tail -n 1 said)" ]
		verdict net_from_the_guest_$card $? said all.log
		bytes=$(($(statistic $card rx bytes) - bytes)) packets=$(($(statistic $card rx packets) - packets))
		mean=$((packets > 0 ? bytes / packets : 0))
		echo "        card $card: $mean bytes a packet of the guest's"
		if [ $card = 0 ]; then [ $mean -gt 1514 ]; else [ $mean -gt 0 ] && [ $mean -le 1514 ]; fi
		verdict net_offloads_$card $? all.log
	done
	ask all 'taskset 1 wget -q -O /tmp/one 10.9.0.1/file & taskset 2 wget -q -O /tmp/two 10.9.0.1/file; wait; sum /tmp/one; sum /tmp/two; interrupts virtio2-input.0; interrupts virtio2-input.1' >said
	[ "$(grep -c "$file" said)" = 2 ] && [ "$(sed -n 3p said)" -gt 9 ] && [ "$(sed -n 4p said)" -gt 9 ]
	verdict net_has_two_pairs_of_queues $? said all.log
}

# reboots NAME: it does so, and `start` makes it again with its disk
reboots() {
	ask all 'reboot -f' >/dev/null &
	up all 2
	verdict "$1start_follows_a_reboot" $? all.log "$(console all)"
	kill $!
	[ "$(ask all read_disk)" = "$pattern" ]
	verdict "$1blk_has_it_after_a_reboot" $? blk.log all.log
}

# check_log: the guest's kernel has found nothing wrong
check_log() {
	ask all 'dmesg' >said && grep -q "Linux version" said && ! grep -F -f /lab/trouble said >found
	verdict guest_kernel_log $? found
}
