# The daemon: guests that `xl create` alone makes, with their devices by virtio= lines and a configuration file.
# shellcheck shell=sh

mkdir files
echo dom0 >files/said
truncate -s 16M web.img
config web "$vcpus" "" /lab/guest.cpio
lines web 1a 02 04
cat >virtio.toml <<'END'
[[guest]]
name = "web"

[[guest.device]]
device = "fs,socket={socket},tag=fs"
command = ["virtiofsd", "--socket-path={socket}", "--shared-dir=/tmp/files", "--cache=always", "--sandbox=none", "--seccomp=none"]

[[guest.device]]
device = "blk,socket={socket},queues=2"
command = ["qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename=/tmp/{guest}.img",
	"--export", "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={socket},writable=on,num-queues=2"]

[[guest.device]]
device = "rng,socket={socket}0"
command = ["vhost-device-rng", "--socket-path", "{socket}"]

[[guest]]
name = "bare"

[[guest.device]]
device = "rng,socket={socket}0"
command = ["vhost-device-rng", "--socket-path", "{socket}"]
END

xen-virtio check virtio.toml >said 2>&1
verdict check_finds_no_mistake $? said
sed 's/device = "rng/divice = "rng/' virtio.toml >wrong.toml
xen-virtio check wrong.toml >said 2>&1
[ $? = 1 ] && grep -q 'wrong.toml:[0-9]*: unknown field .divice' said
verdict check_names_file_line_and_mistake $? said
refused a_daemon_needs_a_file_without_mistakes divice daemon --config wrong.toml

# begin: starts the daemon, and waits until it follows guests; `daemon` is its process
begin() {
	xen-virtio --json daemon --config /tmp/virtio.toml >>events 2>>daemon.log &
	daemon=$!
	follows=$((follows + 1))
	within 60 eval "[ \"\$(grep -c virtio.follows events)\" = $follows ]"
}
# seen GUEST EVENT TIMES: whether the daemon has said so often that this happened to the guest
seen() { [ "$(grep -c "\"name\":\"$1\",\"event\":\"$2\"" events)" -ge "$3" ]; }
# serve_of GUEST: the process that serves it
serve_of() { ps -o pid,args | awk -v serve="--json serve $(xl domid "$1") " 'index($0, serve) && !/awk/ { print $1 }'; }
state_of() { xenstore-read "/local/domain/0/backend/virtio/$(xl domid "$1")/$2/state"; }

begin
verdict daemon_follows_guests $? daemon.log events
refused there_is_one_daemon "$daemon" daemon --config virtio.toml

config other 1 "" /lab/guest.cpio
xl create -q other.cfg
up other 1
verdict a_guest_without_devices_is_left_alone $? daemon.log events
xl destroy other

xl create -q web.cfg >said 2>&1
verdict xl_create_alone $? said
up web 1
verdict the_guest_comes_up $? daemon.log events "$(console web)"
xenstore-ls "/local/domain/0/backend/virtio/$(xl domid web)" | sed 's/^/        /'
[ "$(state_of web 0) $(state_of web 1) $(state_of web 2)" = "4 4 4" ]
verdict the_nodes_are_connected $? daemon.log
[ "$(ask web 'mkdir /tmp/fs && mount -t virtiofs fs /tmp/fs && cat /tmp/fs/said && umount /tmp/fs')" = dom0 ]
verdict the_guest_has_its_file_system $? daemon.log
pattern=$(ask web write_disk)
[ -n "$pattern" ] && [ "$(ask web read_disk)" = "$pattern" ]
verdict the_guest_has_its_disk $? daemon.log
[ "$(ask web 'random 0')" -gt 200 ]
verdict the_guest_has_its_random_numbers $? daemon.log
xen-virtio list >said && grep -q web said && xen-virtio show web >said && [ "$(grep -c 'socket=' said)" = 3 ]
verdict list_and_show_have_the_devices $? said

was=$(xl domid web)
xl reboot web
up web 2 && [ "$(xl domid web)" != "$was" ]
verdict xl_reboot $? daemon.log events "$(console web)"
[ "$(ask web read_disk)" = "$pattern" ] && [ "$(ask web 'random 0')" -gt 200 ]
verdict the_devices_are_there_after_a_reboot $? daemon.log events
within 20 seen web gone 1
verdict what_served_it_before_has_ended $? events

server=$(serve_of web)
[ -n "$server" ]
verdict a_process_of_its_own_serves_the_guest $? daemon.log
kill $daemon
wait $daemon
verdict the_daemon_ends_when_it_is_asked_to $? daemon.log
[ "$(ask web read_disk)" = "$pattern" ] && [ "$(serve_of web)" = "$server" ]
verdict a_guest_does_not_notice_that_the_daemon_ends $? daemon.log
begin && [ "$(ask web read_disk)" = "$pattern" ] && [ "$(serve_of web)" = "$server" ]
verdict a_daemon_takes_up_what_was_started $? daemon.log events
# Until it has ended, it is the one daemon.
kill -9 $daemon
wait $daemon
begin && [ "$(ask web read_disk)" = "$pattern" ] && [ "$(serve_of web)" = "$server" ]
verdict a_daemon_takes_up_what_one_that_was_killed_has_started $? daemon.log events

# virtiofsd listens no more once it is connected to, and may take its time.
[ "$(ask web 'mkdir -p /tmp/fs && mount -t virtiofs fs /tmp/fs && cat /tmp/fs/said')" = dom0 ]
verdict the_file_system_is_mounted $? daemon.log
sleep 40
echo later >files/later
[ "$(ask web 'cat /tmp/fs/later && umount /tmp/fs')" = later ]
verdict it_stays_mounted $? daemon.log events

[ "$(ask web 'mount -t virtiofs fs /tmp/fs && cat /tmp/fs/said')" = dom0 ]
verdict the_file_system_is_mounted_again $? daemon.log
server=$(serve_of web)
kill -9 "$server"
within 120 seen web served 3 && [ "$(serve_of web)" != "$server" ]
verdict a_serve_that_was_killed_is_started_again $? daemon.log events
[ "$(ask web 'cat /tmp/fs/later && umount /tmp/fs')" = later ]
verdict its_file_system_goes_on $? daemon.log events
[ "$(ask web read_disk)" = "$pattern" ]
verdict the_guest_has_its_disk_again $? daemon.log events
[ "$(ask web 'random 0')" -gt 200 ] && [ "$(ask web 'dmesg | grep -c "not a head"')" = 0 ]
verdict its_random_numbers_go_on $? daemon.log events "$(console web)"

storage=$(pidof qemu-storage-daemon)
kill -9 "$storage"
within 60 seen web backend_ended 1
verdict the_end_of_a_backend_is_noticed $? daemon.log events
[ "$(ask web 'random 0')" -gt 200 ]
verdict other_devices_go_on_meanwhile $? daemon.log events
[ "$(ask web read_disk)" = "$pattern" ] && [ "$(pidof qemu-storage-daemon)" != "$storage" ]
verdict a_backend_that_was_killed_is_started_again_and_used $? daemon.log events

config bare 1 "" /lab/guest.cpio
lines bare 04
xl create -q -p bare.cfg
within 240 seen bare served 1
xl unpause bare
up bare 1 && [ "$(ask bare 'random 0')" -gt 200 ]
verdict xl_create_p_needs_an_unpause $? daemon.log events "$(console bare)"
xl destroy bare
within 60 seen bare gone 1

# A daemon that does not run pauses no guest in time.
kill -STOP $daemon
xl create -q bare.cfg
kill -CONT $daemon
within 240 seen bare served 2 && seen bare failed 1 && up bare 2 && [ "$(ask bare 'random 0')" -gt 200 ]
verdict a_guest_that_ran_too_early_reboots_and_has_its_devices $? daemon.log events "$(console bare)"
echo "$(grep -c '"event":"failed"' events) of $(grep -c '"event":"gone"' events) guests were paused too late, and rebooted"

xl destroy bare >said 2>&1 && xl destroy web >>said 2>&1 && [ ! -s said ]
verdict xl_destroy_has_nothing_to_wait_for $? said daemon.log
within 60 seen web gone 2 && within 60 seen bare gone 3
verdict the_daemon_ends_what_it_started $? events daemon.log

sed -i 's/device04/device02/' bare.cfg
xl create -q bare.cfg
within 60 seen bare failed 2
verdict a_line_of_another_type_is_refused $? events
grep -q 'type=virtio,device02 has the device rng' events
verdict it_is_named $? events
xl list bare >said && grep -q -- '--p---' said
verdict a_guest_without_its_devices_does_not_run $? said events
xl destroy bare
within 60 seen bare gone 4

kill $daemon
wait $daemon
[ "$(ls /run/xen-virtio)" = lock ] && ! xenstore-ls /local/domain/0/backend/virtio 2>/dev/null | grep -q .
verdict nothing_is_left_of_the_guests $? daemon.log
cat events daemon.log | sed 's/^/        /' | cut -c -300
left daemon
exit 0
