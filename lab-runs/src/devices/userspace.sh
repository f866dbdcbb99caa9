# Every device by the userspace engine: with the module, which then has the guest's memory only, and without it.
# shellcheck shell=sh

export XEN_EVENTFD_ENGINE=userspace
all_backends
xl create -q -p all.cfg
all_devices serve all
ready all.log
verdict serve_takes_a_paused_guest $? all.log
xl unpause all
check_devices
check_log
power_off all
wait $server
verdict serve_ends_with_its_guest $? all.log
left userspace

goes() { ps >left.txt && rmmod xen_eventfd; }
within 10 goes
verdict module_goes_after_its_guest $? left.txt
rng mapped -xen
config bare 1 "" /lab/guest.cpio
xl create -q -p bare.cfg
background bare.log xen-virtio serve bare --device rng,socket=/tmp/mapped.sock0
server=$!
ready bare.log
verdict serve_needs_no_module $? bare.log
xl unpause bare
up bare 1 && [ "$(ask bare 'random 0')" -gt 200 ]
verdict rng_needs_no_module $? bare.log mapped.log "$(console bare)"
xl destroy bare
wait $server
verdict serve_ends_with_a_destroyed_guest $? bare.log

disk blk
refused a_backend_without_support_for_xen_needs_the_module module start bare.cfg --device blk,socket=/tmp/blk.sock
left no_module
insmod /lib/modules/xen-eventfd.ko
exit 0
