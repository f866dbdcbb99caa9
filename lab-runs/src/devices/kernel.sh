# Every device by the kernel engine. `start` makes the guest, and makes it again when it reboots.
# shellcheck shell=sh

all_backends
all_devices start all.cfg
check_devices

# sleeps NAME COMMAND: ten times as many requests wake xen-virtio no more often
sleeps() {
	begin=$(woken $server)
	ask all "$2 100" >said || return 1
	few=$(($(woken $server) - begin))
	begin=$(woken $server)
	ask all "$2 1000" >said || return 1
	many=$(($(woken $server) - begin))
	echo "        $1: xen-virtio woken $few times during 100, $many times during 1,000"
	[ $many -lt $((few + 50)) ]
}
sleeps 'reads of the disk' reads
verdict blk_wakes_only_its_backend $? said
sleeps 'pings' 'ping -q -i 0.002 10.9.0.1 -c'
verdict net_wakes_no_process $? said
check_log

reboots ""
[ "$(ask all 'sum /file')" = "$(sum root/file)" ]
verdict fs_has_it_after_a_reboot $? fs.log all.log
ask all "card 0" >said && [ "$(ask all 'fetch 0')" = "$file" ]
verdict net_works_after_a_reboot $? said all.log

power_off all
wait $server
verdict start_ends_with_its_guest $? all.log
left kernel
exit 0
