# A guest of one vCPU, served by the userspace engine: with the module, which then has the guest's memory only,
# and without it.
# shellcheck shell=sh

export XEN_EVENTFD_ENGINE=userspace
mkdir www
dd if=/dev/urandom of=www/file bs=64k count=16 2>/dev/null
file=$(sum www/file)
httpd -h /tmp/www

disk blk
rng mapped -xen
config one 1 "" /lab/guest.cpio
xl create -q -p one.cfg
background one.log xen-virtio serve one --device blk,socket=/tmp/blk.sock \
	--device net,tap=tap0 --device rng,socket=/tmp/mapped.sock0
server=$!
ready one.log
verdict serve_takes_a_paused_guest $? one.log
xl unpause one
up one 1
verdict guest_comes_up $? one.log "$(console one)"
pattern=$(ask one write_disk)
[ -n "$pattern" ] && [ "$(ask one read_disk)" = "$pattern" ] && [ "$(head -c 4194304 blk.img | sum)" = "$pattern" ]
verdict blk_reads_what_was_written $? blk.log one.log
ip addr add 10.9.0.1/24 dev tap0 && ip link set tap0 up
ask one 'card 0' >said && [ "$(ask one 'fetch 0')" = "$file" ]
verdict net_carries_a_file $? said one.log
[ "$(ask one 'random 0')" -gt 200 ]
verdict rng_brings_random_bytes $? mapped.log one.log
echo "1 poweroff -f" >"$(xenstore-read "/local/domain/$(xl domid one)/console/tty")"
wait $server
verdict serve_ends_with_its_guest $? one.log

rmmod xen_eventfd
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
left userspace

disk blk
xl create -q -p bare.cfg
xen-virtio serve bare --device blk,socket=/tmp/blk.sock >out 2>err
[ $? != 0 ] && [ "$(wc -l <err)" = 1 ] && grep -q module err
verdict a_backend_without_support_for_xen_needs_the_module $? out err
xl destroy bare
insmod /lib/modules/xen-eventfd.ko
left no_module
exit 0
