#!/bin/busybox sh
# First process of dom0: brings up Xen's tools, then serves commands on the second serial port.
# LAB_TTY is set by the kernel's command line.

export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
/bin/busybox --install -s /bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /proc/xen
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/xen /run/xenstored /run/lock /var/lib/xen /var/lib/xenstored /var/log/xen/console /root
ln -sfn /run/lock /var/lock
ln -sfn /run /var/run
hostname dom0
ip link set lo up 2>/dev/null

fail() {
	echo "lab-init: $*"
	echo "@lab failed $*" >"/dev/$LAB_TTY"
	exec sleep 1000000
}

while read -r module; do
	insmod "/lib/lab/$module" || fail "cannot load $module"
done </lib/lab/order
mount -t xenfs xenfs /proc/xen || fail "no xenfs: is this a dom0?"

xenstored --pid-file /run/xen/xenstored.pid || fail "xenstored does not start"
tries=0
until xenstore-exists / 2>/dev/null || [ $tries -ge 100 ]; do
	tries=$((tries + 1))
	usleep 50000
done
xen-init-dom0 >/var/log/xen/xen-init-dom0.log 2>&1 || fail "xen-init-dom0: $(cat /var/log/xen/xen-init-dom0.log)"
xenconsoled --pid-file=/run/xen/xenconsoled.pid --log=guest --log-dir=/var/log/xen/console ||
	fail "xenconsoled does not start"

# Not in this process: orphans end in it at any time, and a shell that is notified of it while it reads or
# writes a line loses what it has of it.
/bin/busybox sh /lib/lab/agent
exec sleep 1000000
