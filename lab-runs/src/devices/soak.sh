# Guests with a disk and a card are created, use the disk, have their xen-virtio killed and started again, and end or are
# destroyed meanwhile, by each engine; after each round there is as much of everything as before.
# shellcheck shell=sh

# A guest is through its disk fast.
step=50000
# How many rounds. Caches fill in the first ones.
rounds=$4
warm=4

disk blk
backend=${backends##* }

# serves LOG: in the background; `server` is its process
serves() {
	background "$1" xen-virtio serve soaked --takeover-time 60 --device blk,socket=/tmp/blk.sock --device net,tap=tap0
	server=$!
	ready "$1"
}

# passes COUNT: waits until the guest has been through its disk so often
passed() { tr -d '\r' <"$(console soaked)" | grep -c '^disk: round'; }
passes() { within 120 eval "[ \"\$(passed)\" -ge $1 ]"; }

# one NUMBER: a round; even ones end with the guest, odd ones destroy it amid I/O
one() {
	rm -f "$(console soaked)"
	if [ $(($1 % 2)) = 0 ]; then metal soaked 'disk 8 400' 02 01; else metal soaked 'disk 8 60000' 02 01; fi
	XEN_EVENTFD_ENGINE=kernel
	[ $(($1 % 4)) -lt 2 ] || XEN_EVENTFD_ENGINE=userspace
	export XEN_EVENTFD_ENGINE
	xl create -q -p soaked.cfg && serves first.log && xl unpause soaked && passes 2 || return 1
	kill -9 $server
	wait $server
	before=$(passed)
	serves second.log && passes $((before + 2)) || return 1
	if [ $(($1 % 2)) = 0 ]; then
		within 120 grep -q '^disk: 8 blocks' "$(console soaked)" || return 1
	else
		xl destroy soaked || return 1
	fi
	wait $server
	ip link del tap0
	# `xl` destroys what has ended by itself, in its own time.
	within 30 alone
}

# counts: what there is
counts() {
	echo "guests $(xl list | wc -l)"
	[ -z "$ports" ] || echo "ports $(lsevtchn 0 | wc -l)"
	processes
	echo "descriptors of the backend $(ls /proc/$backend/fd | wc -l)"
	echo "files of the run directory $(find /run/xen-eventfd | wc -l)"
	echo "interfaces $(ls /sys/class/net | wc -l)"
	xen-eventfd list --json
}
flat() { counts >after && diff before after >differences; }

# memory NAME FILE: in KiB
memory() { sed -n "s/^$1:[^0-9]*\([0-9]*\) kB\$/\1/p" "$2"; }
used() {
	echo 3 >/proc/sys/vm/drop_caches
	echo "$(($(memory MemTotal /proc/meminfo) - $(memory MemAvailable /proc/meminfo))) $(memory Slab /proc/meminfo) $(memory VmRSS /proc/$backend/status)"
}

whole=0
for round in $(seq "$rounds"); do
	one "$round" || break
	whole=$round
	if [ "$round" -lt $warm ]; then continue; fi
	[ "$round" != $warm ] || { sleep 2; counts >before; }
	within 20 flat || break
	used >>memory
done
[ "$whole" = "$rounds" ]
verdict rounds_of_create_use_kill_and_destroy $? first.log second.log "$(console soaked)"
# Without them there is nothing to compare.
[ -s memory ] || exit 1
flat
verdict counts_are_flat $? differences
sed 's/^/        /' before
# The first and the last of them: dom0 uses a megabyte more or less by itself.
set -- $(head -n 1 memory) $(tail -n 1 memory)
echo "        KiB in use, in slabs, of the backend: $1 $2 $3, and $((rounds - warm)) rounds later $4 $5 $6"
[ $(($4 - $1)) -lt $((2048 + 64 * (rounds - warm))) ] && [ $(($5 - $2)) -lt $((512 + 4 * (rounds - warm))) ] && [ $(($6 - $3)) -lt $((1024 + 2 * (rounds - warm))) ]
verdict memory_is_flat $? memory
left soak
exit 0
