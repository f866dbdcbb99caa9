# The xen-eventfd command as an administrator uses it, in dom0 of real Xen. One verdict a line.
# The first argument names the engine.
# shellcheck shell=sh

cd /tmp || exit 1
step=50000
export XEN_EVENTFD_ENGINE="$1"
doorbell=0xfe000050

# What only guests of this machine have: the interrupt that `listen msi 0x41` takes, and what `xl` needs beside.
case $(uname -m) in
x86_64) message=msi:0xfee00000:0x41 more= ;;
*) message=spi:0x41 more='nr_spis=224\n' ;;
esac

# guest NAME ORDERS: a guest that waits to be unpaused
guest() {
	printf 'name="%s"\ntype="pvh"\nkernel="/lab/guest"\nmemory=16\nvcpus=1\ncmdline="%s"\non_poweroff="preserve"\n'"$more" \
		"$1" "$2" >"$1.cfg"
	xl create -q -e -p "$1.cfg"
}

# served GUEST [RUN-DIR]: waits until an engine has taken it and claimed its doorbell
served() {
	within 20 test -s "${2:-/run/xen-eventfd}/$(xl domid "$1").lock"
	usleep 500000
}

verdict() { # NAME STATUS FILE...: ok, or what the files say
	if [ "$2" = 0 ]; then
		echo "ok      command_$1"
	else
		name=$1
		shift 2
		echo "FAILED  command_$name: $(cat "$@" | tail -c 600 | tr '\n' ' ')"
	fi
}

done_by() { grep -q 'guest done' "/var/log/xen/console/guest-$1.log"; }

xen-eventfd doctor --json >out 2>err && grep -q '"userspace":true' out
verdict doctor $? out err

# watch: refused without --take; then takes kicks with their values
guest c1 "repeat 3; write mmio:$doorbell 4 i+5; end"
xen-eventfd watch c1 $doorbell >out 2>err
[ $? = 2 ] && grep -q -- --take err
verdict watch_wants_take $? out err
xen-eventfd watch c1 $doorbell --take --count 3 --json >out 2>err &
watcher=$!
served c1
grep -q "$1 engine" "/run/xen-eventfd/$(xl domid c1).lock"
verdict names_its_engine $? "/run/xen-eventfd/$(xl domid c1).lock"
xen-eventfd watch "$(xl domid c1)" $doorbell --take >out2 2>err2
[ $? = 5 ] && grep -q "process $watcher" err2
verdict second_engine $? out2 err2
xl unpause c1
wait $watcher && grep -q '"value":"0x5"' out && grep -q '"value":"0x7"' out
verdict watch $? out err
within 20 done_by c1
verdict watch_lets_go $? /var/log/xen/console/guest-c1.log
xl destroy c1

# run: a backend that is a shell, which reads fd 3 and writes fd 4
guest c2 "listen evtchn call; wait call; write mmio:$doorbell 4 0; wait call"
dom=$(xl domid c2)
xl unpause c2
within 20 grep -q 'port call' /var/log/xen/console/guest-c2.log
port=$(sed -n 's/.*port call = //p' /var/log/xen/console/guest-c2.log | tr -d '\r')
cat >backend <<'EOF'
echo "$LISTEN_FDS $LISTEN_FDNAMES $([ "$LISTEN_PID" = $$ ] && echo mine)"
one='\001\000\000\000\000\000\000\000'
printf "$one" >&4
dd bs=8 count=1 <&3 2>/dev/null | od -An -tx1
printf "$one" >&4
exit 7
EOF
xen-eventfd run c2 --kick mmio:$doorbell:4:0 --call "evtchn:$port" -- sh backend >out 2>err
[ $? = 7 ] && grep -q '2 kick0:call0 mine' out && grep -q '01 00 00 00 00 00 00 00' out
verdict run $? out err
within 20 done_by c2
verdict run_rings_the_guest $? /var/log/xen/console/guest-c2.log
xl destroy c2

# a guest that dies under a backend
guest c3 "repeat 1000000; write mmio:$doorbell 4 0; end"
xen-eventfd run c3 --kick mmio:$doorbell:4:0 -- sleep 60 >out 2>err &
runner=$!
served c3
xl unpause c3
usleep 200000
xl destroy c3
wait $runner
[ $? = 4 ]
verdict run_outlives_its_guest $? out err

# a guest that is not there yet, and then reboots again and again
cat >afresh <<'EOF'
dd bs=8 count=1 <&3 >/dev/null 2>&1
echo kicked >>lives
printf '\001\000\000\000\000\000\000\000' >&4
exec sleep 1000
EOF
: >lives
xen-eventfd --json run c6 --wait --follow --kick mmio:$doorbell:4:0 --call $message \
	-- sh afresh >out 2>err &
runner=$!
printf 'name="c6"\ntype="pvh"\nkernel="/lab/guest"\nmemory=16\nvcpus=2\ncmdline="%s"\non_poweroff="restart"\n'"$more" \
	"listen msi 0x41 go; until go; write mmio:$doorbell 4 0; end; poweroff" >c6.cfg
# Without -e: it has to be started again.
xl create -q c6.cfg
lived() { [ "$(wc -l <lives)" -ge "$1" ]; }
within 60 lived 3
verdict run_follows_reboots $? lives out err
doms=$(grep '"run.started"' out | grep -o '"domid":[0-9]*' | sort -u | wc -l)
[ "$doms" -ge 3 ]
verdict run_follows_other_numbers $? out err
kill $runner && wait $runner
[ $? = 143 ] && grep -q '"type":"run.waiting"' out
verdict run_ends_by_a_signal $? out err
xl destroy c6

# engine and guardian killed together
guest c4 "write mmio:$doorbell 4 0; write mmio:$doorbell 4 1"
xen-eventfd watch c4 $doorbell --take >out 2>err &
served c4
# shellcheck disable=SC2046
kill -9 $(pidof xen-eventfd)
xl unpause c4
if [ "$1" = kernel ]; then
	# There is nothing to guard.
	within 20 done_by c4
	verdict killed $? out err /var/log/xen/console/guest-c4.log
else
	# reap does what they cannot.
	usleep 300000
	! done_by c4
	verdict killed_without_a_guardian $? /var/log/xen/console/guest-c4.log
	xen-eventfd reap --json >out 2>err && within 20 done_by c4
	verdict reap $? out err /var/log/xen/console/guest-c4.log
fi
xl destroy c4

# what is refused
xen-eventfd watch absent $doorbell --take >out 2>err
[ $? = 7 ] && grep -q absent err
verdict unknown_domain $? out err
xen-eventfd watch Domain-0 $doorbell --take >out 2>err
[ $? != 0 ] && [ "$(wc -l <err)" = 1 ]
verdict domain_0 $? out err
# Of PV guests, which only x86 has.
pv_guest() {
	printf 'name="pv"\ntype="pv"\nkernel="/lab/vmlinuz"\nmemory=128\n' >pv.cfg
	xl create -q -e -p pv.cfg >out 2>err && {
		xen-eventfd watch pv $doorbell --take >out 2>err
		[ $? != 0 ] && grep -q 'PV guest' err
	}
	verdict pv_guest $? out err
	xl destroy pv
}
[ "$(uname -m)" != x86_64 ] || pv_guest

[ "$1" = kernel ] || exit 0

# the module is there, so it is taken
guest c5 "write mmio:$doorbell 4 7; write mmio:$doorbell 4 8; say over"
XEN_EVENTFD_ENGINE=auto xen-eventfd watch c5 $doorbell --take >out 2>err &
served c5
grep -q "kernel engine" "/run/xen-eventfd/$(xl domid c5).lock"
verdict auto_takes_the_module $? "/run/xen-eventfd/$(xl domid c5).lock"
kill $! && wait $!

# two engines that know nothing of each other but the module
excludes() { # ENGINE OTHER
	XEN_EVENTFD_ENGINE=$1 xen-eventfd --run-dir /tmp/one watch c5 $doorbell --take >out 2>err &
	first=$!
	served c5 /tmp/one
	XEN_EVENTFD_ENGINE=$2 xen-eventfd --run-dir /tmp/other watch c5 $doorbell --take >out2 2>err2
	[ $? = 5 ] && grep -q "process $first " err2
	verdict "$1_excludes_$2" $? out err out2 err2
	kill $first && wait $first
}
excludes kernel userspace
excludes userspace kernel
excludes userspace userspace
excludes kernel kernel

# a kick that an engine in userspace did not live to deliver
XEN_EVENTFD_ENGINE=userspace xen-eventfd watch c5 $doorbell --take >out 2>err &
served c5
# shellcheck disable=SC2046
kill -9 $(pidof xen-eventfd)
xl unpause c5
usleep 300000
xen-eventfd watch c5 $doorbell --take --count 1 --json >out 2>err && grep -q '"value":"0x7"' out
verdict inherits_a_kick $? out err
within 20 done_by c5
verdict frees_an_orphan $? /var/log/xen/console/guest-c5.log
xl destroy c5
exit 0
