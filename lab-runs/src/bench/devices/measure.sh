# Guests of the stock kernel, one after the other, each with a disk and a card: by Xen's own drivers, and by
# xen-virtio with either engine. A line for each measurement.
# shellcheck shell=sh

mkdir www
dd if=/dev/zero of=www/file bs=64k count=256 2>/dev/null
httpd -h /tmp/www

# Xen's drivers want scripts that set their other ends up.
mkdir -p /etc/xen/scripts
cat >/etc/xen/scripts/block <<'EOF'
#!/bin/sh
[ "$1" = add ] || exit 0
xenstore-write "$XENBUS_PATH/physical-device" "$(printf '%x:%x' $(stat -c '0x%t 0x%T' /dev/nullb0))"
xenstore-write "$XENBUS_PATH/hotplug-status" connected
EOF
cat >/etc/xen/scripts/vif-bridge <<'EOF'
#!/bin/sh
[ "$1" = online ] || exit 0
ip addr add 10.9.0.1/24 dev "$vif" && ip link set "$vif" up
xenstore-write "$XENBUS_PATH/hotplug-status" connected
EOF
chmod 755 /etc/xen/scripts/*

fail() { # WHAT FILE...
	echo "FAILED  $1"
	shift
	tail -n 20 "$@"
	exit 1
}

# measure SERVER DISK SINCE [ARGUMENTS]: all of the guest of this name
measure() {
	within 60 xl domid "$1" || fail "there is no guest" ./*.log
	console=/local/domain/$(xl domid "$1")/console/tty
	within 20 xenstore-read "$console" || fail "it has no console" ./*.log
	server=$1 disk=$2 since=$3
	shift 3
	bench-devices measure --server "$server" --disk "$disk" --since "$since" --log "$(console "$server")" \
		--console "$(xenstore-read "$console")" "$@" 2>&1 || fail "$server" ./*.log "$(console "$server")"
	xl destroy "$server"
}

# served ENGINE: the same by xen-virtio
served() {
	background disk.log qemu-storage-daemon --blockdev driver=null-co,node-name=disk,size=1073741824,read-zeroes=off \
		--export type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=/tmp/disk.sock,writable=on
	backend=$!
	within 20 test -S disk.sock || fail "there is no disk" disk.log
	config "$1" 1 "" /lab/guest.cpio
	! is_arm || lines "$1" 02 01
	since=$(bench-devices now)
	background "$1.log" env "XEN_EVENTFD_ENGINE=$1" xen-virtio start "$1.cfg" \
		--device blk,socket=/tmp/disk.sock --device net,tap=tap0
	process=$!
	ran=$(bench-devices ran $process "$1.log")
	within 60 ip link set tap0 up || fail "there is no tap device" ./*.log
	ip addr add 10.9.0.1/24 dev tap0
	measure "$1" /dev/vda "$since" --process $process --ran "$ran"
	wait $process
	kill $backend
	rm -f disk.sock
}

config pv 1 "" /lab/guest.cpio
printf 'disk=["phy:/dev/nullb0,xvda,w"]\nvif=["script=vif-bridge"]\n' >>pv.cfg
since=$(bench-devices now)
xl create -q -e pv.cfg >pv.log 2>&1 || fail "a guest with Xen's own drivers" pv.log
measure pv /dev/xvda "$since"
served kernel
served userspace
exit 0
