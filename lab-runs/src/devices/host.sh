# What happens on the host: a disk's file is cut off or removed, a backend's socket or a tap device is, memory is short,
# xenstored is replaced and dies. The guest gets an error, or notices nothing; its other devices, and another guest, go on.
# shellcheck shell=sh

step=500000
publish
for name in web spare neighbour; do truncate -s 16M $name.img; done
cat >virtio.toml <<'END'
[[guest]]
name = "web"

[[guest.device]]
device = "blk,socket={socket},queues=2"
command = ["qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename=/tmp/web.img",
	"--export", "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={socket},writable=on,num-queues=2"]

[[guest.device]]
device = "blk,socket={socket}"
command = ["qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename=/tmp/spare.img",
	"--export", "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={socket},writable=on"]

[[guest.device]]
device = "net,tap=tap0,mac=52:54:00:00:00:01"

[[guest.device]]
device = "net,tap=tap1,mac=52:54:00:00:00:02"
END

# begin: starts the daemon as its service does, and waits until it follows guests
begin() {
	sh -c 'echo -500 >/proc/self/oom_score_adj; exec xen-virtio --json daemon --config /tmp/virtio.toml' >>events 2>>daemon.log &
	daemon=$!
	follows=$((follows + 1))
	within 60 eval "[ \"\$(grep -c virtio.follows events)\" = $follows ]"
}
# seen GUEST EVENT TIMES: whether the daemon has said so often that this happened to the guest
seen() { [ "$(grep -c "\"name\":\"$1\",\"event\":\"$2\"" events)" -ge "$3" ]; }
serve_of() { ps -o pid,args | awk -v serve="--json serve $1 " 'index($0, serve) && !/awk/ { print $1 }'; }

# A guest of `start`, which writes its disk and reads it back again and again.
disk neighbour
metal neighbour 'disk 8 60000' 02
background neighbour.served xen-virtio start neighbour.cfg --device blk,socket=/tmp/neighbour.sock
neighbour=$!
within 60 grep -q 'neighbour runs' neighbour.served && xl pause neighbour
rounds() { tr -d '\r' <"$(console neighbour)" | grep -c '^disk: round'; }
# goes_on: the neighbour has been through its disk once more. Otherwise it is paused, as it would take all the time there is.
goes_on() {
	number=$(rounds)
	xl unpause neighbour && within 120 eval "[ \"\$(rounds)\" -gt $number ]" && xl pause neighbour
}

begin
config web 2 "" /lab/guest.cpio
lines web 02 02 01 01
xl create -q web.cfg >said 2>&1
up web 1
verdict the_guest_comes_up $? said daemon.log events "$(console web)"
dom=$(xl domid web)
for card in 0 1; do
	ip addr add 10.9.$card.1/24 dev tap$card && ip link set tap$card up
	ask web "card $card" >said
	verdict its_card_works_$card $? said daemon.log
done
pattern=$(ask web write_disk)
[ -n "$pattern" ] && [ "$(ask web read_disk)" = "$pattern" ]
verdict its_disk_works $? daemon.log
goes_on
verdict it_has_a_neighbour $? neighbour.served "$(console neighbour)"

# others_go_on NAME: the first disk and the first card, and the neighbour
others_go_on() {
	[ "$(ask web read_disk)" = "$pattern" ] && [ "$(ask web 'fetch 0')" = "$file" ] && goes_on
	verdict "others_go_on_$1" $? daemon.log events "$(console neighbour)"
}

# spare: writes the other disk past the page cache; says its sum
spare='head -c 65536 /dev/urandom >/tmp/spare; quiet dd if=/tmp/spare of=/dev/vdb bs=64k oflag=direct conv=fsync && sum /tmp/spare'
truncate -s 0 spare.img
ask web 'dd if=/dev/vdb bs=64k count=1 iflag=direct | tr -d "\0" | wc -c' >said
echo "        a read of a file that was cut off: $(tr '\n' ' ' <said)"
grep -qE '^0$|[Ee]rror' said
verdict a_read_past_the_end_of_a_file_is_zeros_or_an_error $? said
said=$(ask web "$spare")
[ -n "$said" ] && [ "$(head -c 65536 spare.img | sum)" = "$said" ]
verdict a_write_past_the_end_of_a_file_is_in_it $? daemon.log
rm spare.img
said=$(ask web "$spare")
[ -n "$said" ] && [ "$(ask web 'dd if=/dev/vdb bs=64k count=1 iflag=direct 2>/dev/null | sum')" = "$said" ]
verdict a_file_that_was_removed_is_served_on $? daemon.log
others_go_on without_a_file

rm "/run/xen-virtio/$dom/1/socket"
said=$(ask web "$spare")
[ -n "$said" ]
verdict a_socket_that_was_removed_is_not_noticed $? daemon.log
truncate -s 16M spare.img
kill -9 $(ps -o pid,args | awk '/spare.img/ && !/awk/ { print $1 }')
within 60 seen web backend_ended 1 && within 20 test -S "/run/xen-virtio/$dom/1/socket"
said=$(ask web "$spare")
[ -n "$said" ] && [ "$(head -c 65536 spare.img | sum)" = "$said" ]
verdict its_backend_comes_again_with_another_socket $? daemon.log events
others_go_on without_a_socket

ip link del tap1
! ask web 'ping -c 3 -W 1 -q 10.9.1.1' >said && grep -q 'tap1 as a tap device.*it was removed' daemon.log
verdict a_card_whose_tap_was_removed_is_silent_and_the_log_says_so $? said daemon.log
others_go_on without_a_tap
xen-virtio show web | sed 's/^/        /'
kill -9 $(serve_of "$dom")
# It has another address than the one before, which the guest finds out once it has asked for it in vain.
within 120 seen web served 2 && within 20 test -e /sys/class/net/tap1 && ip addr add 10.9.1.1/24 dev tap1 && ip link set tap1 up
ask web 'for _ in 1 2 3; do ping -c 10 -W 1 -q 10.9.1.1 && break; done >/dev/null; fetch 1' >said && [ "$(tail -n 1 said)" = "$file" ]
verdict the_next_process_makes_the_tap_again $? daemon.log events
others_go_on with_another_tap

# Memory is short until the kernel has killed what fills it.
fill() {
	echo 1000 >/proc/self/oom_score_adj
	exec dd if=/dev/zero bs=64M count=1 2>/dev/null
}
echo 0 >/proc/sys/vm/oom_dump_tasks
ask web "load 1000 $file >/tmp/load 2>&1 &" >said
served=$(serve_of "$dom")
for _ in $(seq 16); do
	# A pipe takes less than the buffer, which is kept until there is a reader.
	(fill | sleep 8) &
	fillers="$fillers $!"
done
within 60 eval 'dmesg | grep -q "Out of memory: Killed process"'
verdict memory_is_short $? /proc/meminfo
wait $fillers
dmesg -c >log
! grep 'Killed process' log | grep -v '(dd)' >found && [ "$(serve_of "$dom")" = "$served" ] && [ -e /proc/$daemon ]
verdict what_serves_is_not_killed $? found
# The kernel's reports of these have a call trace, and are no mistakes.
grep -v '^Call Trace$' /lab/trouble >serious
grep -q 'invoked oom-killer' log && ! grep -F -f serious log >found
verdict kernel_log_when_memory_is_short $? found
echo "<6>$LOG_MARK" >/dev/kmsg
ask web 'touch /tmp/enough' >said
comes 200 web '^moved' /tmp/load
ask web 'cat /tmp/load' >said && [ "$(wc -l <said)" = 1 ]
verdict the_guest_does_not_notice_that_memory_was_short $? said daemon.log
others_go_on once_memory_was_short

# xenstored replaces itself, with all that it knows.
xenstored=$(cat /run/xen/xenstored.pid)
xenstore-control live-update -F -t 30 "$(readlink -f /usr/sbin/xenstored)" >said 2>&1
verdict xenstored_is_replaced $? said
[ -e "/proc/$xenstored" ] && ! stopped $daemon
verdict the_daemon_has_the_new_xenstored $? daemon.log
others_go_on with_a_new_xenstored
xl list >said && grep -q web said
verdict guests_are_known_to_the_new_xenstored $? said

# It dies, and the new one knows no guest. Consoles end with it, so the guest is asked by its card.
ask web 'mkdir -p /tmp/www/cgi-bin && printf "#!/bin/sh\necho; dd if=/dev/vda bs=64k count=64 iflag=direct 2>/dev/null | md5sum\n" >/tmp/www/cgi-bin/disk && chmod +x /tmp/www/cgi-bin/disk && httpd -h /tmp/www' >said
asked() { [ "$(wget -q -T 60 -O - 10.9.0.2/cgi-bin/disk | cut -d ' ' -f 1)" = "$pattern" ]; }
asked
verdict the_guest_answers_by_its_card $? said
number=$(xl domid neighbour)
! stopped $daemon && kill -9 "$xenstored" && within 20 stopped $daemon
verdict the_daemon_ends_when_xenstored_dies $? daemon.log
wait $daemon
echo "        it ended with $?: $(tail -n 1 daemon.log)"
tail -n 1 daemon.log | grep -qi xenstore
verdict it_says_why $? daemon.log
asked
verdict devices_are_served_without_xenstored $? daemon.log
rm -f /run/xen/xenstored.pid
xenstored --pid-file /run/xen/xenstored.pid && within 20 xenstore-exists / && xen-init-dom0 >said 2>&1
verdict another_xenstored_runs $? said
begin
verdict the_daemon_follows_again $? daemon.log events
sleep 30
asked && [ "$(serve_of "$dom")" = "$served" ]
verdict a_guest_that_the_new_xenstored_does_not_know_is_served_on $? daemon.log events
grep -q 'not in xenstore any more' daemon.log
verdict the_daemon_says_what_that_means $? daemon.log
[ -e /proc/$neighbour ] && grep -q 'xenstored is away' neighbour.served && xen-virtio list >said && [ "$(wc -l <said)" = 3 ]
verdict start_serves_on_too $? neighbour.served said
xl destroy "$number" >said 2>&1
within 60 stopped $neighbour
verdict start_ends_with_its_guest $? neighbour.served said
xl destroy "$dom" >said 2>&1
within 60 seen web gone 1
verdict the_daemon_ends_what_served_its_guest $? daemon.log events said
kill $daemon
wait $daemon
# It does not know that its guests are gone either.
kill "$(cat /run/xen/xenconsoled.pid)"
ip link del tap0
ip link del tap1
cat events daemon.log neighbour.served | sed 's/^/        /' | cut -c -300
left host
exit 0
