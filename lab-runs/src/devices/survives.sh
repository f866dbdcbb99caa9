# xen-virtio is killed amid I/O and started again, and so are backends: the guest goes on.
# shellcheck shell=sh

mkdir shared
files fs /tmp/shared
virtiofsd=$backends
backends=
disk blk
publish
config lasting "$vcpus" "" /lab/guest.cpio

# serves LOG OPTION...: xen-virtio with the guest's devices; `server` is its process
serves() {
	log=$1
	shift
	background "$log" xen-virtio serve lasting "$@" --device blk,socket=/tmp/blk.sock,queues=2 \
		--device net,tap=tap0,mac=52:54:00:00:00:01,pairs=2 \
		--device net,tap=tap1,mac=52:54:00:00:00:02,offloads=off --device fs,socket=/tmp/fs.sock,tag=fs
	server=$!
}

xl create -q -p lasting.cfg
serves first.log --takeover-time 120
ready first.log
verdict serve_has_a_guest $? first.log
xl unpause lasting
up lasting 1
for card in 0 1; do
	ip addr add 10.9.$card.1/24 dev tap$card && ip link set tap$card up
	ask lasting "card $card" >said
	verdict its_card_works_$card $? said first.log
done
pattern=$(ask lasting write_disk)
[ -n "$pattern" ] && [ "$(ask lasting read_disk)" = "$pattern" ]
verdict its_disk_works $? first.log
ask lasting 'mkdir /tmp/fs && mount -t virtiofs fs /tmp/fs && echo lasting >/tmp/fs/said' >said && [ "$(cat shared/said)" = lasting ]
verdict its_files_are_there $? said first.log fs.log

# Reads, packets and vectors that move, all at once, in the background of the guest; kills in between.
ask lasting "load 1000 $file >/tmp/load 2>&1 &" >said
again_and_again 1 1 2 1 1 1 && ! ask lasting 'grep "^moved" /tmp/load' >said
verdict killed_amid_io_and_started_again_six_times $? said next.*.log
ask lasting 'touch /tmp/enough' >said
comes 60 lasting '^moved' /tmp/load
verdict the_load_comes_to_its_end $? said next.*.log
ask lasting 'cat /tmp/load' >said
[ "$(wc -l <said)" = 1 ] && [ "$(sed 's/moved //' said)" -gt 0 ]
verdict no_byte_of_it_was_other $? said
[ "$(ask lasting read_disk)" = "$pattern" ]
verdict the_disk_has_what_was_written $? next.*.log
lines=$(ask lasting 'cat /tmp/lines')
[ "$lines" -gt 100 ] && [ "$(seq "$lines" | sum)" = "$(sum shared/lines)" ]
verdict an_open_file_has_every_line_once $? fs.log next.*.log

# A write that spans a kill.
ask lasting '(write_disk 500 >/tmp/sum; echo done >>/tmp/sum) & sleep 1; echo' >said
kill -KILL $server
wait $server
! ask lasting 'grep done /tmp/sum' >said
verdict the_kill_is_amid_the_write $? said
serves written.log --takeover-time 120
ready written.log
comes 60 lasting done /tmp/sum
before=$pattern
pattern=$(ask lasting 'head -n 1 /tmp/sum')
[ "$pattern" != "$before" ] && [ "$(head -c 4194304 blk.img | sum)" = "$pattern" ] && [ "$(ask lasting read_disk)" = "$pattern" ]
verdict a_write_amid_a_kill_is_whole $? said written.log

disk_is_served_again lasting written.log "$pattern"

# Killed without a successor: vCPUs go on, and a later one has the devices again.
kill -KILL $server
wait $server
[ "$(ask lasting 'echo alive')" = alive ]
verdict vcpus_go_on_without_it $? written.log
serves late.log
ready late.log
[ "$(ask lasting read_disk)" = "$pattern" ] && ask lasting "fetch 0" >said && [ "$(cat said)" = "$file" ]
verdict a_later_one_has_the_devices_again $? said late.log
[ "$(ask lasting 'umount /tmp/fs && mount -t virtiofs fs /tmp/fs && cat /tmp/fs/said')" = lasting ]
verdict its_files_have_the_same_session $? fs.log late.log
refused other_devices_are_refused "other devices" serve lasting --device blk,socket=/tmp/blk.sock

ask lasting 'dmesg' >said && grep -q "Linux version" said && ! grep -F -f /lab/trouble said >found
verdict guest_kernel_log $? found
ask lasting 'dmesg | grep -iE "virtio|vda|i/o error|timed? ?out|reset"' >said
echo "$(grep -ciE 'error|time|reset' said) lines of its log are about errors"
! grep -iE 'i/o error|timed out|needs reset' said >found
verdict the_guest_saw_no_error $? found

xl destroy lasting
wait $server
verdict serve_ends_with_a_destroyed_guest $? late.log
for card in 0 1; do ip link del tap$card; done
backends="$backends $virtiofsd"
left survives
exit 0
