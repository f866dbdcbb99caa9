#!/bin/busybox sh
# First process of a guest: loads what drives its devices, then does what is typed at its console, a line each:
# a number and a command. It answers with what the command says between `@begin NUMBER` and `@NUMBER STATUS`.

export PATH=/bin
[ -e /bin/mount ] || /bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /tmp
ip link set lo up
[ -n "$loaded" ] || while read -r module; do
	insmod "/lib/modules/$module" || echo "@trouble: $module is not loaded"
done </lib/modules/order

# A kernel whose transport is one of these modules could not mount such a root, and runs this from an initramfs.
if grep -q rootfstype=virtiofs /proc/cmdline && ! grep -q '^fs / virtiofs' /proc/mounts; then
	export loaded=yes
	mount -t virtiofs fs /root && umount /proc /sys /dev /tmp && exec switch_root /root /init
	echo "@trouble: there is no root"
fi

sum() { md5sum "$@" | cut -d ' ' -f 1; }

# quiet COMMAND...: without what it says, if it succeeds
quiet() {
	said=$("$@" 2>&1) || { echo "$said" && false; }
}

# comes SECONDS PATTERN FILE: waits until the file has such a line; else says in which of its functions the kernel has each
# process wait
comes() {
	for _ in $(seq "$1"); do
		! grep -q "$2" "$3" 2>/dev/null || return 0
		sleep 1
	done
	for process in /proc/[0-9]*; do
		[ -z "$(cat "$process/cmdline")" ] || echo "$(cat "$process/comm"): $(cat "$process/wchan")"
	done | sort | uniq -c | tr -s '\n ' '  '
	echo
	return 1
}

# by_all COMMAND: at once on each vCPU, with its number and with how many there are; fails if one does
by_all() {
	cpus=$(nproc)
	pids=
	for cpu in $(seq 0 $((cpus - 1))); do
		# $$ is not the number of a process in the background.
		(taskset -p "$(printf %x $((1 << cpu)))" "$(exec sh -c 'echo $PPID')" >/dev/null && "$1" "$cpu" "$cpus") &
		pids="$pids $!"
	done
	for pid in $pids; do wait "$pid" || return 1; done
}

# write_part CPU CPUS: its part of 4 MiB
write_part() {
	part=$((64 / $2))
	quiet dd if=/tmp/pattern of=/dev/vda bs=64k "count=$part" "skip=$(($1 * part))" "seek=$(($1 * part))" oflag=direct
}

# write_disk: 4 MiB, a part by each vCPU, past the page cache, and then flushed, which the disk wants once its cache is
# turned on; says their sum
write_disk() {
	echo "write back" >/sys/block/vda/cache_type
	seq "${1:-1}" 1000000 | head -c 4194304 >/tmp/pattern
	by_all write_part && quiet dd if=/dev/zero of=/dev/vda bs=4k count=1 seek=2000 conv=fsync && sum /tmp/pattern
}

# verify_part CPU: writes 256 KiB of its own behind the first 8 MiB, and reads them back, four times
verify_part() {
	for _ in 1 2 3 4; do
		head -c 262144 /dev/urandom >"/tmp/part$1"
		quiet dd "if=/tmp/part$1" of=/dev/vda bs=16k "seek=$((512 + $1 * 16))" oflag=direct || return 1
		[ "$(dd if=/dev/vda bs=16k count=16 "skip=$((512 + $1 * 16))" iflag=direct 2>/dev/null | sum)" = "$(sum "/tmp/part$1")" ] ||
			return 1
	done
}

# verifies: does so by all vCPUs until /tmp/enough is there, while what write_disk wrote is written elsewhere by long requests,
# of which the backend is amid one most of the time; says how often, and stops at bytes that are other
verifies() {
	rm -f /tmp/enough
	(until [ -e /tmp/enough ]; do quiet dd if=/tmp/pattern of=/dev/vda bs=1M seek=10 oflag=direct || break; done) &
	writer=$!
	verified=0
	until [ -e /tmp/enough ]; do
		by_all verify_part || { echo "the disk's bytes changed" && break; }
		verified=$((verified + 1))
	done
	wait $writer
	[ "$(dd if=/dev/vda bs=1M skip=10 count=4 iflag=direct 2>/dev/null | sum)" = "$(sum /tmp/pattern)" ] ||
		echo "what was written by long requests is other"
	echo "verified $verified times"
}

# read_disk: the sum of what is there
read_disk() { dd if=/dev/vda bs=64k count=64 iflag=direct 2>/dev/null | sum; }

# reads NUMBER: reads so many blocks of the disk, each by a request of its own
reads() { quiet dd if=/dev/vda of=/dev/null bs=4k "count=$1" iflag=direct; }

# flushes: how often the disk was
flushes() { awk '{ print $16 }' /sys/block/vda/stat; }

# card INDEX: the network of a card, with dom0 as .1 and the guest as .2
card() {
	ip addr add "10.9.$1.2/24" dev "eth$1" && ip link set "eth$1" up &&
		ping -c 20 -i 0.01 -W 5 -q "10.9.$1.1"
}

# fetch INDEX: the sum of dom0's file, which comes by this card
fetch() { wget -q -T 60 -O - "10.9.$1.1/file" | sum; }

# interrupts PATTERN: how many a device's vectors have brought
interrupts() {
	grep "$1" /proc/interrupts | awk '{ for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }'
}

# moves: has the vectors of cards take turns between vCPUs until /tmp/stop is there; says how often
moves() {
	moved=0
	until [ -e /tmp/stop ]; do
		for cpu in 1 2; do
			for irq in $(grep -E 'virtio[0-9]+-(in|out)put' /proc/interrupts | cut -d : -f 1); do
				echo $cpu >"/proc/irq/$irq/smp_affinity" && moved=$((moved + 1))
			done
			usleep 5000
		done
	done
	echo $moved
}

# unplugs: takes the second vCPU away and gives it back, with its vectors masked or moved meanwhile, until /tmp/stop is
# there; says how often
unplugs() {
	unplugged=0
	until [ -e /tmp/stop ]; do
		echo 0 >/sys/devices/system/cpu/cpu1/online && usleep 20000 &&
			echo 1 >/sys/devices/system/cpu/cpu1/online && unplugged=$((unplugged + 1))
		usleep 20000
	done
	echo $unplugged
}

# lines: writes numbers, one by one, to a file of /tmp/fs that it has open all the time, until /tmp/stop is there; says
# how many
lines() {
	[ -d /tmp/fs ] || return
	number=0
	exec 9>/tmp/fs/lines
	until [ -e /tmp/stop ]; do
		number=$((number + 1))
		echo $number >&9 || break
		usleep 20000
	done
	echo $number
}

# load TIMES EXPECTED [COMMAND]: disk, cards and files at once while vectors move, or this command runs, until /tmp/enough
# is there; what comes back is looked at
load() {
	rm -f /tmp/stop /tmp/enough
	disk=$(read_disk)
	"${3:-moves}" >/tmp/moved &
	mover=$!
	(lines) >/tmp/lines &
	writer=$!
	(for _ in $(seq "$1"); do [ -e /tmp/enough ] || [ "$(read_disk)" = "$disk" ] || echo "the disk's bytes changed"; done) >/tmp/disk.said &
	reader=$!
	for _ in $(seq "$1"); do
		[ ! -e /tmp/enough ] || break
		for card in 0 1; do [ "$(fetch $card)" = "$2" ] || echo "card $card brought other bytes"; done
	done >/tmp/cards.said
	wait $reader
	touch /tmp/stop
	wait $mover $writer
	cat /tmp/disk.said /tmp/cards.said
	echo "moved $(cat /tmp/moved)"
}

# rebinds TIMES: unbinds and binds the drivers of the disk and of the first card so often, in turns that of virtio and that
# of PCI, and uses both devices each time; says how often it did
rebinds() {
	first=$(dd if=/dev/vda bs=64k count=1 iflag=direct 2>/dev/null | sum)
	for round in $(seq "$1"); do
		for name in block/vda net/eth0; do
			device=$(readlink -f "/sys/class/$name/device")
			[ $((round % 2)) = 0 ] || device=${device%/*}
			driver=$(readlink -f "$device/driver")
			echo "${device##*/}" >"$driver/unbind" && [ ! -e "/sys/class/$name" ] &&
				echo "${device##*/}" >"$driver/bind" && [ -e "/sys/class/$name" ] || return 1
		done
		[ "$(dd if=/dev/vda bs=64k count=1 iflag=direct 2>/dev/null | sum)" = "$first" ] || return 1
		ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up && quiet ping -c 1 -W 5 10.9.0.1 || return 1
	done
	echo "$round times"
}

# random NUMBER: bytes of that generator, and how many differ
random() {
	echo "virtio_rng.$1" >/sys/class/misc/hw_random/rng_current &&
		[ "$(cat /sys/class/misc/hw_random/rng_current)" = "virtio_rng.$1" ] &&
		dd if=/dev/hwrng bs=64 count=16 iflag=fullblock 2>/dev/null | od -An -v -tx1 -w1 | sort | uniq -c | wc -l
}

# until_enough COMMAND...: does so until /tmp/enough exists, `times` being how often it is with this; prints how often it was
until_enough() {
	times=0
	until [ -e /tmp/enough ]; do
		times=$((times + 1))
		"$@"
	done
	echo $times
}

write_line() { echo "line $times" >/dev/hvc1; usleep 20000; }
fetch_whole() { [ "$(wget -q -T 60 -O - 169.254.2.2/file | sum)" = "$1" ] || echo "the card brought other bytes" >&2; }
read_random() {
	[ "$(dd if=/dev/hwrng bs=64 count=4 iflag=fullblock 2>/dev/null | wc -c)" = 256 ] || echo "no random numbers came" >&2
	usleep 20000
}

# used SUM: uses a console, fetches passt's file, which has this sum, and reads random numbers, all at once, until /tmp/enough
# exists; prints how many lines, files and reads there were
used() {
	rm -f /tmp/enough
	(until_enough write_line) >/tmp/lines &
	writer=$!
	(until_enough fetch_whole "$1") >/tmp/files &
	fetcher=$!
	reads=$(until_enough read_random)
	wait $writer $fetcher
	echo "used $(cat /tmp/lines) $(cat /tmp/files) $reads"
}

stty -echo
echo "@up"
while read -r number command; do
	echo "@begin $number"
	(eval "$command") </dev/null 2>&1
	echo "@$number $?"
done
