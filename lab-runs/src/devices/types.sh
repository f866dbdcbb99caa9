# Device types beside those of the guest `all`, each by a backend of its own: a guest with a card by passt, sockets by Linux's
# vhost-vsock, a console, a disk that grows, random numbers by their type's number, and in a PVH dom0 a SCSI disk by Linux's
# vhost-scsi; a guest with sockets by vhost-device-vsock. What serves them is killed while they are used, and started again.
# shellcheck shell=sh

# growing NAME: a backend with NAME.img at NAME.sock, which takes commands at descriptor 8
growing() {
	truncate -s 16M "$1.img"
	mkfifo "$1.commands"
	background "$1.log" sh -c "exec qemu-storage-daemon --blockdev driver=file,node-name=disk,filename=/tmp/$1.img \
		--export type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=/tmp/$1.sock,writable=on \
		--chardev stdio,id=commands --monitor chardev=commands <$1.commands"
	backends="$backends $!"
	exec 8>"$1.commands"
	echo '{"execute":"qmp_capabilities"}' >&8
	within 20 test -S "$1.sock"
}

# console_backend: one whose console is at port 5000 of this host; descriptor 7 types there
console_backend() {
	background console.log vhost-device-console --socket-path /tmp/console.sock --backend network --tcp-port 5000
	backends="$backends $!"
	within 20 test -S console.sock0
	mkfifo console.typed
	background console.said sh -c 'exec nc 127.0.0.1 5000 <console.typed'
	backends="$backends $!"
	exec 7>console.typed
}

# exchange NAME GUEST LISTEN CONNECT HOST_LISTENS HOST: connections both ways, with bytes both ways
exchange() {
	ask "$2" "dd if=/dev/urandom of=/tmp/own bs=64k count=4 2>/dev/null; rm -f /tmp/got; sockets listen $3 </tmp/own >/tmp/got &" >said
	within 20 sh -c "sockets connect $4 <www/file >got 2>connect.log"
	[ "$(ask "$2" 'sum /tmp/got')" = "$file" ] && [ "$(sum got)" = "$(ask "$2" 'sum /tmp/own')" ]
	verdict "$1_from_dom0_to_the_guest" $? connect.log said "$2.log"
	background listen.log sh -c "exec sockets listen $5 <www/file >got"
	listener=$!
	ask "$2" "for _ in 1 2 3 4 5 6 7 8; do sockets connect $6 </tmp/own >/tmp/got && break; sleep 1; done; sum /tmp/got" >said
	wait $listener
	grep -q "$file" said && [ "$(sum got)" = "$(ask "$2" 'sum /tmp/own')" ]
	verdict "$1_from_the_guest_to_dom0" $? listen.log said "$2.log"
}

# listens GUEST PORT INPUT OUTPUT: the guest takes a connection at this port, and does so once this returns
listens() {
	ask "$1" "rm -f /tmp/listens; sockets listen vsock:4294967295:$2 <$3 >$4 2>/tmp/listens & until grep -q listening /tmp/listens; do usleep 100000; done" >said
}

# connects LOG ADDRESS: there is a connection to there once this returns, by which www/file is sent when `enough` is there;
# `sender` is the process that has it
connects() {
	rm -f enough paused
	mkfifo paused
	(until [ -e enough ]; do usleep 100000; done; exec cat www/file) >paused &
	background "$1" sh -c "exec sockets connect $2 <paused >got"
	sender=$!
	within 20 grep -q '^connected' "$1"
}

newline='
'
# typed LETTER...: types each at the console and waits for its echo, and then ends the line. The guest is paused meanwhile:
# vhost-device-console reads its queue until nothing new is there, and keeps for good what a faster guest has put there.
typed() {
	for letter in "$@" "$newline"; do
		xl pause types
		printf %s "$letter" >&7
		sleep 1
		xl unpause types
		[ "$letter" = "$newline" ] || within 20 eval '[ "$(tail -c 1 console.said)" = "$letter" ]' || return 1
	done
}

# serves LOG OPTION...: xen-virtio with the devices of the guest; `server` is its process
serves() {
	log=$1
	shift
	# shellcheck disable=SC2086
	background "$log" xen-virtio serve "$guest" "$@" $devices
	server=$!
}

publish
network
growing grows
console_backend
rng numbered
config types 1 "" /lab/guest.cpio
guest=types
devices="--device net,socket=/tmp/passt.sock,mac=52:54:00:00:00:01 --device vsock,cid=42 --device blk,socket=/tmp/grows.sock
	--device console,socket=/tmp/console.sock0 --device 4,socket=/tmp/numbered.sock0"
truncate -s 16M scsi.img
target fileio fd_dev_name=/tmp/scsi.img,fd_dev_size=16777216
verdict scsi_has_a_target $? /dev/null
if grep -q PVH /sys/hypervisor/guest_type; then
	devices="$devices --device scsi,wwpn=$wwpn"
else
	xl create -q -p types.cfg
	refused scsi_needs_a_pvh_dom0 dom0=pvh serve types --device scsi,wwpn=$wwpn
	xl destroy types
fi
# shellcheck disable=SC2086
background types.log xen-virtio start types.cfg --takeover-time 120 $devices
server=$!
up types 1
verdict a_guest_has_them_all $? types.log "$(console types)"

check_network types eth0 types.log
[ "$(ask types 'random 0')" -gt 200 ]
verdict a_type_by_its_number_brings_random_numbers $? numbered.log types.log

exchange vsock types vsock:4294967295:1234 vsock:42:1234 vsock:2:1235 vsock:2:1235

before=$(ask types 'cat /sys/block/vda/size')
echo '{"execute":"block_resize","arguments":{"node-name":"disk","size":33554432}}' >&8
grown() { [ "$before" = 32768 ] && [ "$(ask types 'cat /sys/block/vda/size')" = 65536 ]; }
within 20 grown
verdict blk_grows_when_its_backend_says_so $? grows.log types.log
ask types 'dd if=/dev/urandom of=/tmp/end bs=64k count=1 2>/dev/null; dd if=/tmp/end of=/dev/vda bs=64k seek=511 oflag=direct conv=fsync && sum /tmp/end' >said
grep -q "$(tail -c 65536 grows.img | sum)" said
verdict blk_is_written_where_it_has_grown $? said grows.log

ask types 'echo a line of the guest >/dev/hvc1' >said
within 20 grep -q 'a line of the guest' console.said
verdict console_says_a_line $? said console.log console.said types.log
ask types '(head -n 1 </dev/hvc1 >/tmp/typed) & sleep 1' >said
typed t y p e d
typed_there() { [ "$(ask types 'cat /tmp/typed')" = typed ]; }
within 20 typed_there
verdict console_takes_a_line $? console.log console.said types.log

if grep -q PVH /sys/hypervisor/guest_type; then
	said=$(ask types 'seq 1000000 | head -c 4194304 >/tmp/pattern; dd if=/tmp/pattern of=/dev/sda bs=64k oflag=direct 2>/dev/null; sum /tmp/pattern')
	[ -n "$said" ] && [ "$(ask types 'dd if=/dev/sda bs=64k count=64 iflag=direct 2>/dev/null | sum')" = "$said" ]
	verdict scsi_reads_what_it_wrote $? types.log "$(console types)"
	ask types 'dd if=/dev/zero of=/dev/sda bs=4k count=1 seek=2000 conv=fsync' >out && [ "$(head -c 4194304 scsi.img | sum)" = "$said" ]
	verdict scsi_is_flushed_to_its_file $? out types.log
fi

# What serves them is killed while all are used. A device of a socket goes on over the same connection. Those of the kernel's
# vsock are idle meanwhile: one waits for what comes, the other is written to afterwards.
background listen.log sh -c 'exec sockets listen vsock:2:1239 </dev/null >/dev/null'
listener=$!
ask types '(until [ -e /tmp/enough ]; do usleep 100000; done; cat /proc/version) | sockets connect vsock:2:1239 2>/tmp/closed &' >said
within 20 grep -q '^connected' listen.log && listens types 1236 /dev/null /dev/null && connects late.log vsock:42:1236
verdict there_are_connections_by_the_kernels_vsock $? listen.log said late.log
ask types "used $file >/tmp/used 2>&1 &" >said
again_and_again 1 2 2
verdict killed_while_all_are_used_and_started_again $? next.*.log
# Without a listener a connect fails by the same words.
reset() { grep -q '^connected' "$1" && grep -q 'reset by peer' "$1"; }
touch enough
within 30 stopped $sender && within 30 stopped $listener && reset late.log && reset listen.log
verdict connections_by_the_kernels_vsock_are_reset $? late.log listen.log next.*.log
ask types 'touch /tmp/enough' >said
comes 200 types '^used' /tmp/used
verdict their_use_comes_to_its_end $? said next.*.log "$(console types)"
comes 20 types Error /tmp/closed
verdict the_guests_end_of_one_ends_when_it_sends $? said
ask types 'cat /tmp/used' >said
sed 's/^/        /' said
set -- $(sed -n 's/^used //p' said)
[ "$(wc -l <said)" = 1 ] && [ "$1" -gt 9 ] && [ "$2" -gt 2 ] && [ "$3" -gt 9 ]
verdict cards_and_random_numbers_go_on $? said
sent() { tr -d '\r' <console.said | sed -n 's/^line //p' >sent && [ "$(seq "$1" | sum)" = "$(sum sent)" ]; }
within 20 sent "$1"
verdict each_line_of_the_console_comes_once $? said sent console.said
exchange vsock_that_was_killed types vsock:4294967295:1237 vsock:42:1237 vsock:2:1238 vsock:2:1238
ask types 'dd if=/dev/vda bs=64k skip=511 count=1 iflag=direct 2>/dev/null | sum' >said && grep -q "$(tail -c 65536 grows.img | sum)" said
verdict a_disk_that_has_grown_is_as_large_as_it_was $? said next.*.log
xen-virtio show types >said && ! grep -q 'needed a reset' said
verdict no_device_needed_a_reset $? said
ask types dmesg >said && ! grep -F -f /lab/trouble said >found && ! grep -iE 'i/o error|timed out|not a head' said >found
verdict guest_kernel_log $? found
xl destroy types
wait $server
verdict serve_ends_with_a_destroyed_guest $? next.*.log

exec 7>&- 8>&-
no_target

# Sockets by vhost-device-vsock, which are Unix sockets of this host. Linux 6.17 and later send packets of more than 32 KiB in
# pieces, of which version 0.3.0 reads the first and drops the packet: so the guest is not to send so many bytes at once.
background unix.log vhost-device-vsock --guest-cid 43 --socket /tmp/unix.sock --uds-path /tmp/unix.vsock --tx-buffer-size 16384
backends="$backends $!"
within 20 test -S unix.sock
config unix 1 "" /lab/guest.cpio
guest=unix
devices="--device vsock,socket=/tmp/unix.sock"
xl create -q -p unix.cfg
serves unix.served --takeover-time 120
ready unix.served && xl unpause unix && up unix 1
verdict a_guest_has_sockets_by_a_process $? unix.served unix.log "$(console unix)"
exchange vsock_by_a_process unix vsock:4294967295:1234 unix:/tmp/unix.vsock:1234 unix:/tmp/unix.vsock_1235 vsock:2:1235
# The connection is there, and nothing goes through it.
rm -f next.*.log
listens unix 1236 /proc/version /tmp/sent && connects late.log unix:/tmp/unix.vsock:1236 && again_and_again 2 1
verdict killed_while_there_is_a_connection $? said late.log next.*.log
touch enough
within 60 stopped $sender && wait $sender && grep -q "Linux version" got && [ "$(ask unix 'sum /tmp/sent')" = "$file" ]
verdict the_connection_goes_on $? late.log unix.log next.*.log
xl destroy unix
wait $server
left types
exit 0
