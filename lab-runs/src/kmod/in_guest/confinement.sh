# The module in a guest: whom may it serve there? One verdict a line.
# shellcheck shell=sh

initramfs <<'END'
if $b grep -q early /proc/cmdline; then
	# Until the other side has had xenstore fall silent.
	echo "says before"
	read -r _
	$b insmod /lib/xen-eventfd.ko && echo "says loaded"
	exec 3<>/dev/xen/eventfd && echo "says opened"
	echo "says early $($b grep confined /proc/self/fdinfo/3)"
	until $b grep confined /proc/self/fdinfo/3 | $b grep -qv unknown; do
		$b usleep 100000
	done
else
	$b insmod /lib/xen-eventfd.ko && echo "says loaded"
	exec 3<>/dev/xen/eventfd
	# Xenstore is asked in the background.
	left=100
	while $b grep -q unknown /proc/self/fdinfo/3 && [ $left -gt 0 ]; do
		left=$((left - 1))
		$b usleep 100000
	done
fi
echo "says $($b grep confined /proc/self/fdinfo/3)"
exec 3<&-
END

# says GUEST PATTERN: waits for it
says() {
	left=1200
	until grep -qE "$2|Kernel panic" "/var/log/xen/console/guest-$1.log" 2>/dev/null; do
		left=$((left - 1))
		[ $left -gt 0 ] || break
		usleep 100000
	done
}

# linux NAME [TARGET [WORD]]: a guest that runs the stock kernel, and what it says of itself
linux() {
	printf 'name="%s"\ntype="pvh"\nkernel="/lab/vmlinuz"\nramdisk="/tmp/tree.cpio"\nmemory=256\nvcpus=1\ncmdline="console=hvc0 quiet %s"\n' \
		"$1" "$3" >"$1.cfg"
	xl create -q -e -p "$1.cfg" || return 1
	own="/local/domain/$(xl domid "$1")"
	if [ -n "$2" ]; then
		xenstore-write "$own/target" "$2" && [ "$(xenstore-read "$own/target")" = "$2" ] ||
			echo "FAILED  xenstore does not keep the target of $1 in $own"
	fi
	console=$(xenstore-read "$own/console/tty")
	xl unpause "$1"
	if [ "$3" = early ]; then
		says "$1" "says before"
		kill -STOP "$(cat /run/xen/xenstored.pid)"
		echo go >"$console"
		says "$1" "says early"
		kill -CONT "$(cat /run/xen/xenstored.pid)"
	fi
	says "$1" "says end"
	xl destroy "$1" 2>/dev/null
	tr -d '\r' <"/var/log/xen/console/guest-$1.log" | grep '^says' >"$1.said"
}

# verdict NAME GUEST LINE: whether the guest said this, loaded, unloaded and ended well
verdict() {
	if grep -qx "says confined:	$3" "$2.said" && grep -q 'says loaded' "$2.said" &&
		grep -q 'says unloaded' "$2.said" && ! grep -q 'says trouble' "$2.said"; then
		echo "ok      $1"
	else
		echo "FAILED  $1: $(tail -c 800 "/var/log/xen/console/guest-$2.log" | tr '\n' ' ')"
	fi
}

linux aimed 4242
verdict a_guest_with_a_target_may_serve_that_one aimed 4242
linux aimless
verdict a_guest_without_a_target_may_serve_nobody aimless barred
linux early 4242 early
verdict a_guest_whose_xenstore_is_silent_waits_for_its_word early 4242
if grep -q 'says opened' early.said && grep -qx "says early confined:	unknown" early.said; then
	echo "ok      to_open_the_device_waits_for_nothing"
else
	echo "FAILED  to_open_the_device_waits_for_nothing: $(tr '\n' ' ' <early.said)"
fi
exit 0
