# Device types beside those of the guest `all`, each by a backend of its own: a guest with a card by passt, sockets by Linux's
# vhost-vsock, a console, a disk that grows, and in a PVH dom0 a SCSI disk by Linux's vhost-scsi.
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

# console_backend: one whose console is at port 5000 of this host. It is only read: vhost-device-console takes all buffers of
# the guest at the first input and uses one of them.
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

publish
network
growing grows
console_backend
config types 1 "" /lab/guest.cpio
set -- --device net,socket=/tmp/passt.sock,mac=52:54:00:00:00:01 --device vsock,cid=42 --device blk,socket=/tmp/grows.sock \
	--device console,socket=/tmp/console.sock0
truncate -s 16M scsi.img
target fileio fd_dev_name=/tmp/scsi.img,fd_dev_size=16777216
verdict scsi_has_a_target $? /dev/null
if grep -q PVH /sys/hypervisor/guest_type; then
	set -- "$@" --device scsi,wwpn=$wwpn
else
	xl create -q -p types.cfg
	refused scsi_needs_a_pvh_dom0 dom0=pvh serve types --device scsi,wwpn=$wwpn
	xl destroy types
fi
background types.log xen-virtio start types.cfg "$@"
server=$!
up types 1
verdict a_guest_has_them_all $? types.log "$(console types)"

check_network types eth0 types.log

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

if grep -q PVH /sys/hypervisor/guest_type; then
	said=$(ask types 'seq 1000000 | head -c 4194304 >/tmp/pattern; dd if=/tmp/pattern of=/dev/sda bs=64k oflag=direct 2>/dev/null; sum /tmp/pattern')
	[ -n "$said" ] && [ "$(ask types 'dd if=/dev/sda bs=64k count=64 iflag=direct 2>/dev/null | sum')" = "$said" ]
	verdict scsi_reads_what_it_wrote $? types.log "$(console types)"
	ask types 'dd if=/dev/zero of=/dev/sda bs=4k count=1 seek=2000 conv=fsync' >out && [ "$(head -c 4194304 scsi.img | sum)" = "$said" ]
	verdict scsi_is_flushed_to_its_file $? out types.log
fi
power_off types
wait $server
verdict start_ends_with_its_guest $? types.log

exec 7>&- 8>&-
no_target
left types
exit 0
