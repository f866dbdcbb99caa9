# What the scripts beside this one share: it is put in front of each.
# shellcheck shell=sh

cd /tmp || exit 1

# initramfs PROGRAM...: one with busybox, the module and these, which runs standard input once the guest's
# kernel is up, and what that says of its own start is gone from its log
initramfs() {
	mkdir -p tree/bin tree/dev tree/proc tree/lib
	cp "$(readlink -f /proc/$$/exe)" tree/bin/busybox
	ln -s busybox tree/bin/sh
	cp /lib/modules/xen-eventfd.ko tree/lib/
	[ $# = 0 ] || cp "$@" tree/bin/
	{
		cat <<-'END'
			#!/bin/sh
			b=/bin/busybox
			$b mount -t proc proc /proc
			$b mount -t devtmpfs devtmpfs /dev
			$b dmesg -c >/dev/null
		END
		cat
		cat <<-'END'
			$b rmmod xen_eventfd && echo "says unloaded"
			$b dmesg | $b grep -E 'BUG|WARNING:|Oops|Call Trace' && echo "says trouble"
			$b dmesg | $b grep xen_eventfd
			echo "says end"
			$b poweroff -f
		END
	} >tree/init
	chmod 755 tree/init
	(cd tree && find . | cpio -o -H newc) >tree.cpio 2>/dev/null
}
