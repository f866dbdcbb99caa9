# An Arm guest with its devices on virtio-mmio, by the userspace engine and without the module.
# shellcheck shell=sh

export XEN_EVENTFD_ENGINE=userspace
rng mapped -xen
config arm 1 "" /lab/guest.cpio
xl create -q -p arm.cfg
refused a_device_without_a_line_is_refused "virtio= lines" serve arm --device rng,socket=/tmp/mapped.sock0
xl destroy arm
lines arm 04
xl create -q -p arm.cfg

# serves LOG OPTION...: xen-virtio with the guest's device; `server` is its process
serves() {
	log=$1
	shift
	background "$log" xen-virtio serve arm "$@" --device rng,socket=/tmp/mapped.sock0
	server=$!
}

serves arm.log --takeover-time 120
ready arm.log
verdict serve_takes_a_paused_guest $? arm.log mapped.log
xl unpause arm
up arm 1
verdict a_stock_guest_comes_up $? arm.log "$(console arm)"
xen-virtio show arm >said && grep -q "mmio@0x2000000" said
verdict show_has_the_address $? said
[ "$(ask arm 'random 0')" -gt 200 ]
verdict rng_brings_random_bytes $? arm.log mapped.log "$(console arm)"

# interrupted: how often the guest was by its device
interrupted() { ask arm 'interrupts virtio0'; }
before=$(woken $server)
interrupts=$(interrupted)
ask arm 'dd if=/dev/hwrng bs=64 count=200 iflag=fullblock 2>/dev/null | wc -c' >said
interrupts=$(($(interrupted) - interrupts))
[ "$(cat said)" = 12800 ] && [ $interrupts -ge 100 ]
verdict each_request_interrupts_the_guest $? said "$(console arm)"
echo "        $interrupts interrupts, $(($(woken $server) - before)) wake-ups of the process's threads"
accesses() { xen-virtio --json show arm | sed 's/.*"register_accesses":\([0-9]*\).*/\1/'; }
before=$(accesses)
ask arm 'dd if=/dev/hwrng bs=64 count=200 iflag=fullblock 2>/dev/null | wc -c' >said
[ "$before" -gt 0 ] && [ "$(accesses)" = "$before" ]
verdict the_engine_answers_for_interrupts $? said

# Killed amid requests, and started again.
ask arm '(for _ in $(seq 40); do dd if=/dev/hwrng bs=64 count=50 iflag=fullblock 2>/dev/null | wc -c; done >/tmp/got; echo done >>/tmp/got) & echo' >said
again_and_again 1 1 1
verdict killed_and_started_again_three_times $? next.*.log
comes 200 arm done /tmp/got
verdict the_requests_come_to_their_end $? said next.*.log "$(console arm)"
ask arm 'sort -u /tmp/got | head -c 100' >said
[ "$(tr '\n' ' ' <said)" = "3200 done " ]
verdict no_request_was_lost $? said

ask arm 'dmesg' >said && grep -q "Linux version" said && ! grep -F -f /lab/trouble said >found
verdict guest_kernel_log $? found
xl destroy arm
wait $server
verdict serve_ends_with_a_destroyed_guest $? next.*.log
left mmio

# The same by the daemon, and by `xl create` alone. libxl waits 10 s for a backend that does not write its state.
cat >virtio.toml <<'END'
[[guest]]
name = "arm"

[[guest.device]]
device = "rng,socket={socket}0"
command = ["vhost-device-rng-xen", "--socket-path", "{socket}"]
END
xen-virtio --json daemon --config /tmp/virtio.toml >events 2>daemon.log &
daemon=$!
within 60 grep -q virtio.follows events
verdict daemon_follows_guests $? daemon.log events
rm -f "$(console arm)"
xl create -q arm.cfg >said 2>&1
verdict xl_create_alone $? said daemon.log
up arm 1 && [ "$(ask arm 'random 0')" -gt 200 ]
verdict the_guest_has_its_random_numbers $? daemon.log events "$(console arm)"
[ "$(xenstore-read "/local/domain/0/backend/virtio/$(xl domid arm)/0/state")" = 4 ]
verdict the_node_is_connected $? daemon.log
begun=$(date +%s)
xl destroy arm
[ $(($(date +%s) - begun)) -lt 8 ]
verdict xl_destroy_does_not_wait $? daemon.log
within 60 grep -q '"event":"gone"' events
verdict what_served_it_ends $? daemon.log events
kill $daemon
wait $daemon
left mmio_daemon
exit 0
