# The module in a guest that serves another guest, and is itself suspended and resumed. One verdict a line.
# shellcheck shell=sh

initramfs /bin/kernel-test <<'END'
$b insmod /lib/xen-eventfd.ko && echo "says loaded"
/bin/kernel-test serve-and-resume "$($b sed 's/.*serves=//' /proc/cmdline)" || echo "says failed"
END

log=/var/log/xen/console/guest-stub.log

# says LINE: waits until the guest has said it, or something worse
says() {
	left=600
	until grep -qE "^says ($1|failed)|Kernel panic" $log 2>/dev/null; do
		left=$((left - 1))
		[ $left -gt 0 ] || break
		usleep 100000
	done
	grep -q "^says $1" $log
}

# tell LINE: types it at the guest's console
tell() {
	echo "$1" >"$(xenstore-read "/local/domain/$(xl domid stub)/console/tty")"
}

verdict() { # NAME STATUS
	if [ "$2" = 0 ]; then
		echo "ok      $1"
	else
		echo "FAILED  $1: $(tail -c 800 $log | tr '\n' ' ')"
	fi
}

printf 'name="served"\ntype="pvh"\nkernel="/lab/guest"\nmemory=16\nvcpus=1\ncmdline="repeat 1000000; write mmio:0xfe000050 4 0; write mmio:0xfe000050 4 1; end"\n' >served.cfg
xl create -q -e -p served.cfg || exit 1
served=$(xl domid served)
# A PV guest: Xen lets no other one map an ioreq server's page. Its stock kernel would read a register of the
# board that a PV guest cannot map.
printf 'name="stub"\ntype="pv"\nkernel="/lab/vmlinuz"\nramdisk="/tmp/tree.cpio"\nmemory=192\nvcpus=1\ncmdline="console=hvc0 quiet initcall_blacklist=print_s5_reset_status_mmio serves=%s"\n' \
	"$served" >stub.cfg
xl create -q -p stub.cfg || exit 1
stub=$(xl domid stub)
xenstore-write "/local/domain/$stub/target" "$served"
kernel-test aim "$stub" "$served" || exit 1
insmod /lib/modules/xen-eventfd.ko && kernel-test refused-memory "$stub"
verdict the_memory_of_a_pv_guest_is_not_mapped $?
rmmod xen_eventfd
xl unpause stub
says serving
xl unpause served
says kicked
verdict a_guest_serves_another $?

xl save stub stub.save 2>save.err >&2 && xl restore stub.save 2>>save.err >&2
verdict a_guest_that_serves_is_suspended_and_resumed $?
tell go
says closed
verdict its_own_suspension_ends_what_it_serves $?
says end && grep -q "^says unloaded" $log && ! grep -q "^says trouble" $log
verdict after_that_the_module_goes_and_the_kernel_is_content $?
xl destroy served
exit 0
