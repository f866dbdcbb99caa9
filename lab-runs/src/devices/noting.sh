# A disk whose backend notes which requests it has begun (INFLIGHT_SHMFD), QEMU's example `vhost-user-blk`: it is killed amid
# requests and started again, and then xen-virtio with it. The guest waits, and nothing is lost or done twice.
# shellcheck shell=sh

truncate -s 16M noted.img
rng plain

# noting: the backend, which ends with its connection; `noting` is its process. It lets others run first.
noting() {
	[ -z "$noting" ] || wait "$noting" 2>/dev/null
	rm -f noted.sock
	background noted.log vhost-user-blk --socket-path /tmp/noted.sock --blk-file /tmp/noted.img
	noting=$!
	renice -n 19 -p "$noting" && within 20 test -S noted.sock
}
noting=

# serves LOG: xen-virtio; `server` is its process
serves() {
	noting
	background "$1" xen-virtio serve noted --takeover-time 120 --device blk,socket=/tmp/noted.sock --device rng,socket=/tmp/plain.sock0
	server=$!
	ready "$1"
}

config noted "$vcpus" "" /lab/guest.cpio
xl create -q -p noted.cfg
serves first.log && xl unpause noted && up noted 1
verdict a_guest_has_a_disk $? noted.log first.log "$(console noted)"
pattern=$(ask noted write_disk)
[ -n "$pattern" ] && [ "$(ask noted read_disk)" = "$pattern" ]
verdict it_reads_what_it_wrote $? noted.log first.log

notes=$(echo /run/xen-eventfd/*kept-inflight-0)
# begun: how many requests the backend has noted, as vhost-user's documentation lays out what is noted of a split queue
begun() { od -An -v -tu1 -w16 "$notes" | awk 'NR > 1 && $1 == 1' | wc -l; }
# completed: the index of the last that was
completed() { od -An -tu2 -j14 -N2 "$notes"; }
[ "$(od -An -tu2 -j8 -N2 "$notes")" -eq 1 ]
verdict the_backend_notes_its_requests $? noted.log first.log
ask noted '(verifies >/tmp/verified 2>&1) &' >said
xen-virtio top --interval 2 --count 1 >said
# busy SOCKET: whether there were many kicks and interrupts of the device with this backend. The guest's kernel takes random
# numbers now and then.
busy() { awk -v device="$1" 'index($0, device) { busy = $3 > 50 && $4 > 50 } END { exit !busy }' said; }
busy /noted.sock && ! busy /plain.sock0 && grep -q /plain.sock0 said
verdict top_has_the_kicks_and_interrupts_of_each_device $? said
sed 's/^/        /' said

# caught: stops the backend, if it is amid a request
caught() {
	kill -STOP "$noting"
	[ "$(begun)" != 0 ] || { kill -CONT "$noting" && return 1; }
}
# killed TIMES alone|both: kills the backend, or both, amid a request; each time another request is completed afterwards
killed() {
	for _ in $(seq "$1"); do
		within 60 caught || return 1
		before=$(completed)
		if [ "$2" = both ]; then
			kill -KILL "$noting" "$server"
			wait "$server"
			[ "$(begun)" != 0 ] && serves next.log || return 1
		else
			kill -KILL "$noting"
			noting || return 1
		fi
		within 60 eval '[ "$(completed)" != "$before" ]' || return 1
	done
}
# Beside a process that wants all the time there is, the backend is amid a request most of the time.
sh -c 'while :; do :; done' &
spinner=$!
killed 3 alone
verdict a_backend_is_killed_amid_requests_and_makes_them_again $? noted.log first.log
killed 2 both
verdict so_it_is_with_what_serves_it $? noted.log next.log
kill $spinner
ask noted 'touch /tmp/enough' >said
comes 200 noted '^verified' /tmp/verified
ask noted 'cat /tmp/verified' >said && [ "$(wc -l <said)" = 1 ] && [ "$(sed 's/[^0-9]//g' said)" -gt 0 ]
verdict no_request_was_lost_or_made_after_a_later_one $? said next.log
sed 's/^/        /' said
[ "$(ask noted read_disk)" = "$pattern" ]
verdict the_disk_has_what_was_written_before $? noted.log next.log
pattern=$(ask noted 'write_disk 900')
[ -n "$pattern" ] && [ "$(head -c 4194304 noted.img | sum)" = "$pattern" ]
verdict it_can_be_written_as_before $? noted.log next.log
ask noted dmesg >said && ! grep -F -f /lab/trouble said >found && ! grep -iE 'i/o error|timed out|needs reset|not a head' said >found
verdict guest_kernel_log $? found
xl destroy noted
wait $server
verdict serve_ends_with_a_destroyed_guest $? next.log
left noting
exit 0
