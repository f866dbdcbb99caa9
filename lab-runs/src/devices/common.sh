# What the scripts beside this one share: it is put in front of each. One verdict a line.
# shellcheck shell=sh

cd /tmp || exit 1
step=250000
# Of the guest with every device.
vcpus=$1
# `xen-eventfd list` reads what the module shows there.
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
echo 0 >asked
# Debian's Xen for Arm comes without it.
if command -v lsevtchn >/dev/null; then ports=$(lsevtchn 0 | wc -l); else ports=; fi

verdict() { # NAME STATUS FILE...: ok, or what the files say
	if [ "$2" = 0 ]; then
		echo "ok      $1"
	else
		name=$1
		shift 2
		echo "FAILED  $name: $(tail -n 8 "$@" 2>&1 | tr '\r\n' '  ' | tail -c 900)"
	fi
}

console() { echo "/var/log/xen/console/guest-$1.log"; }

# config NAME VCPUS WORDS [RAMDISK]: a guest of the stock kernel, with these words on its command line. To reboot by a
# keyboard controller, of which there is none, would take it minutes of the emulator.
config() {
	printf 'name="%s"\ntype="pvh"\nkernel="/lab/vmlinuz"\nmemory=192\nvcpus=%s\ncmdline="console=hvc0 quiet panic=1 reboot=t %s"\n' \
		"$1" "$2" "$3" >"$1.cfg"
	[ -z "$4" ] || printf 'ramdisk="%s"\n' "$4" >>"$1.cfg"
}

is_arm() { [ "$(uname -m)" = aarch64 ]; }

# lines NAME TYPE...: the guest's configuration has a `virtio=` line for a device of each of these types (two digits)
lines() {
	name=$1
	shift
	echo "virtio=[$(printf '"type=virtio,device%s,transport=mmio", ' "$@")]" >>"$name.cfg"
}

# metal NAME WORDS TYPE...: a guest without an operating system (guest/metal), with this command line, and on Arm with a
# `virtio=` line for a device of each type. Without `vcpus`, libxl gives so small a guest too few pages for its memory map.
metal() {
	printf 'name="%s"\ntype="pvh"\nkernel="/lab/metal"\nmemory=16\nvcpus=1\ncmdline="%s"\non_poweroff="destroy"\non_crash="destroy"\n' \
		"$1" "$2" >"$1.cfg"
	name=$1
	shift 2
	! is_arm || lines "$name" "$@"
}

# up GUEST TIMES: waits until it has come up so often
up() { within 180 eval "[ \"\$(grep -c '^@up' $(console "$1"))\" -ge $2 ]"; }

# ask GUEST COMMAND: has the guest's shell carry it out; says what that says, and has its status
ask() {
	number=$(($(cat asked) + 1))
	echo $number >asked
	echo "$number $2" >"$(xenstore-read "/local/domain/$(xl domid "$1")/console/tty")"
	if ! within 240 grep -q "^@$number " "$(console "$1")"; then
		echo "$1 does not answer"
		return 1
	fi
	tr -d '\r' <"$(console "$1")" | sed "1,/^@begin $number\$/d; /^@$number /,\$d"
	return "$(tr -d '\r' <"$(console "$1")" | sed -n "s/^@$number //p")"
}

# type_in GUEST COMMAND: has the guest's shell carry it out, without an answer
type_in() { echo "1 $2" >"$(xenstore-read "/local/domain/$(xl domid "$1")/console/tty")"; }

# comes SECONDS GUEST PATTERN FILE: waits until this file of the guest has such a line, for so long by the guest's clock; else
# `said` has what its processes wait for
comes() { ask "$2" "comes $1 '$3' $4" >said; }

# power_off GUEST: has it end; it cannot say so
power_off() { type_in "$1" 'poweroff -f'; }

# processes: those there are, with their numbers. Not through a pipe, whose own it may have or not.
processes() {
	ps -o comm,args >processes.txt
	echo "processes: $(awk '$2 !~ /^\[/ { print $1 }' processes.txt | sort | uniq -c | tr -s ' \n' ' ')"
}

# stopped PID: whether it has ended
stopped() { [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }

# refused NAME WORD ARGUMENTS...: xen-virtio refuses it, and says one reason, in which this word is
refused() {
	name=$1 word=$2
	shift 2
	timeout 60 xen-virtio "$@" >out 2>err
	status=$?
	[ $status != 0 ] && [ $status -lt 100 ] && [ "$(grep -cE '^(xen-virtio|error): ' err)" = 1 ] && grep -qi -- "$word" err
	verdict "$name" $? out err
	cat err
}

# background FILE COMMAND...: begins it; `$!` is its process. What another said into the file is gone before this returns.
background() {
	output=$1
	: >"$output"
	shift
	"$@" >"$output" 2>&1 &
}

# disk NAME [QUEUES]: a backend with NAME.img at NAME.sock; `storage` is its process
disk() {
	[ -e "$1.img" ] || truncate -s 16M "$1.img"
	background "$1.log" qemu-storage-daemon --blockdev "driver=file,node-name=disk,filename=/tmp/$1.img" \
		--export "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=/tmp/$1.sock,writable=on,num-queues=${2:-2}"
	storage=$!
	backends="$backends $storage"
	within 20 test -S "$1.sock"
}

# rng NAME [-xen]: a backend at NAME.sock0, one that maps a guest's memory by itself if asked for
rng() {
	background "$1.log" "vhost-device-rng$2" --socket-path "/tmp/$1.sock"
	backends="$backends $!"
	within 20 test -S "$1.sock0"
}

# files NAME FOLDER: a backend with a folder's files at NAME.sock. A program that is run again is in the guest's page
# cache: to read it anew each time would be most of what the emulator does.
files() {
	background "$1.log" virtiofsd "--socket-path=/tmp/$1.sock" "--shared-dir=$2" --cache=always --sandbox=none --seccomp=none
	backends="$backends $!"
	within 20 test -S "$1.sock"
}

# publish: a file of this host at its port 80; `file` is its sum
publish() {
	mkdir www
	dd if=/dev/urandom of=www/file bs=64k count=16 2>/dev/null
	file=$(sum www/file)
	httpd -h /tmp/www
}

# ready FILE: waits until `serve` has said that its guest may run
ready() { within 60 grep -q "is served" "$1"; }

# again LOG [OPTION...]: kills xen-virtio, and starts it again by `serves`, which the script has, with these options; `server`
# is its process
again() {
	kill -KILL "$server"
	wait "$server"
	serves "$@"
}

# again_and_again PAUSE...: does so after each of these pauses; fails if one of them does not have its guest
again_and_again() {
	kills=0
	for pause in "$@"; do
		sleep "$pause"
		again "next.$kills.log" --takeover-time 120
		ready "next.$kills.log" || return 1
		kills=$((kills + 1))
	done
}

# disk_is_served_again GUEST LOG SUM: the backend of its disk is killed with nothing to do and started again; the disk waits,
# and goes on with what it has
disk_is_served_again() {
	kill -KILL "$storage"
	within 20 grep -q "waits for its backend" "$2"
	verdict a_device_without_a_backend_waits_for_it $? "$2"
	rm -f blk.sock
	disk blk
	[ "$(ask "$1" read_disk)" = "$3" ]
	verdict a_backend_that_is_killed_is_connected_to_again $? blk.log "$2"
}

# woken PID: how often the process's threads have slept and been woken, without those that vhost-net has in the
# kernel
woken() {
	for task in /proc/"$1"/task/*; do
		grep -q '^vhost-' "$task/comm" || grep '^voluntary' "$task/status"
	done | awk '{ sum += $2 } END { print sum }'
}

sum() { md5sum "$@" | cut -d ' ' -f 1; }

alone() { xl list >left.txt && [ "$(wc -l <left.txt)" = 2 ]; }
unserved() { xen-eventfd list --json >left.txt 2>&1 && grep -q '"guests":\[\],"orphans":\[\]' left.txt; }
ended() { ps >left.txt && ! grep -E "xen-(virtio|eventfd|qemu)|qemu-storage|virtiofsd|vhost-(device|user)|passt" left.txt; }
no_ports() { lsevtchn 0 >left.txt && [ "$(wc -l <left.txt)" -le "$ports" ]; }

# left NAME: nothing is, once guests, their backends and xen-virtio have ended
left() {
	# shellcheck disable=SC2086
	[ -z "$backends" ] || kill $backends 2>/dev/null
	backends=
	within 30 ended
	verdict "$1_leaves_no_process" $? left.txt
	within 30 alone
	verdict "$1_leaves_no_guest" $? left.txt
	within 10 unserved
	verdict "$1_leaves_no_registration" $? left.txt
	if [ -n "$ports" ]; then
		within 10 no_ports
		verdict "$1_leaves_no_port" $? left.txt
	fi
	rm -f ./*.sock ./*.sock0
}
