# Guests with a disk and a card: by Xen's own drivers, and by xen-virtio with either engine.
# shellcheck shell=sh

mkdir www
dd if=/dev/zero of=www/file bs=64k count=256 2>/dev/null
httpd -h /tmp/www

config pv 1 "" /lab/guest.cpio
printf 'disk=["phy:/dev/nullb0,xvda,w"]\nvif=["script=vif-bridge"]\n' >>pv.cfg
created pv /dev/xvda
for engine in kernel userspace; do
	no_bytes 1
	config $engine 1 "" /lab/guest.cpio
	! is_arm || lines $engine 02 01
	export XEN_EVENTFD_ENGINE=$engine
	served $engine /dev/vda --device blk,socket=/tmp/disk1.sock --device net,tap=tap0
	bytes_end
done
exit 0
