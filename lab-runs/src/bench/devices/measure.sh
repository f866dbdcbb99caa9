# What the scripts beside this one share, each of which has guests, one after the other, and prints a line for each
# measurement.
# shellcheck shell=sh

export XEN_EVENTFD_ENGINE=kernel

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

# created SERVER DISK: the guest of this name by xl alone
created() {
	since=$(bench-devices now)
	xl create -q -e "$1.cfg" >"$1.log" 2>&1 || fail "there is no guest $1" "$1.log"
	measure "$1" "$2" "$since"
}

# no_bytes DISKS [QUEUES]: one backend with so many disks that keep nothing, at /tmp/disk1.sock and so on; `backend` is its
# process
no_bytes() {
	exports=
	for number in $(seq "$1"); do
		exports="$exports --export type=vhost-user-blk,id=disk$number,node-name=disk,addr.type=unix,addr.path=/tmp/disk$number.sock,writable=on,num-queues=${2:-1}"
	done
	# shellcheck disable=SC2086
	background disk.log qemu-storage-daemon --blockdev driver=null-co,node-name=disk,size=1073741824,read-zeroes=off $exports
	backend=$!
	within 20 test -S "disk$1.sock" || fail "there is no disk" disk.log
}

# bytes_end: that backend ends
bytes_end() {
	kill $backend
	wait $backend
	rm -f disk*.sock
}

# served SERVER DISK DEVICE...: the guest of this name by xen-virtio, with these devices
served() {
	server=$1 disk=$2
	shift 2
	since=$(bench-devices now)
	background "$server.log" xen-virtio start "$server.cfg" "$@"
	process=$!
	ran=$(bench-devices ran $process "$server.log")
	case "$*" in *tap=tap0*)
		within 60 ip link set tap0 up || fail "there is no tap device" ./*.log
		ip addr add 10.9.0.1/24 dev tap0
		;;
	esac
	measure "$server" "$disk" "$since" --process $process --ran "$ran"
	wait $process
}
