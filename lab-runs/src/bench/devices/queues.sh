# A disk of four queues for a guest of four vCPUs: by Xen's own drivers, and by xen-virtio.
# shellcheck shell=sh

# It offers as many as dom0 has CPUs.
echo 4 >/sys/module/xen_blkback/parameters/max_queues
config pv-queues 4 "" /lab/guest.cpio
printf 'disk=["phy:/dev/nullb0,xvda,w"]\n' >>pv-queues.cfg
created pv-queues /dev/xvda
no_bytes 1 4
config kernel-queues 4 "" /lab/guest.cpio
served kernel-queues /dev/vda --device blk,socket=/tmp/disk1.sock,queues=4
bytes_end
exit 0
