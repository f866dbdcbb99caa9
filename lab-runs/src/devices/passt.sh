# A network by passt.
# shellcheck shell=sh

# network: passt, which makes a root directory of its own. It cannot where the root is the initramfs, so that is mounted over
# itself first, as an initramfs is left.
network() {
	mkdir -p jail
	background passt.log unshare -m sh -c 'mount -o rbind / jail && cd jail && mount -o move . / &&
		exec chroot . passt --foreground --vhost-user --runas 65534:65534 --socket /tmp/passt.sock'
	backends="$backends $!"
	within 20 test -S passt.sock
}

# fetches GUEST: it has the file that this host publishes by passt
fetches() { [ "$(ask "$1" 'wget -q -T 60 -O - 169.254.2.2/file | sum')" = "$file" ]; }

# check_network GUEST CARD LOG: it has an address by DHCP, fetches a file, and sends one
check_network() {
	ask "$1" 'printf "#!/bin/sh\n[ \$1 = bound ] && ip addr add \$ip/\$mask dev \$interface\n" >/tmp/dhcp && chmod +x /tmp/dhcp' >said
	ask "$1" "ip link set $2 up && udhcpc -i $2 -n -q -t 10 -s /tmp/dhcp; ip addr show dev $2" >said
	grep -q 'inet 169.254' said
	verdict net_has_an_address_of_passt $? said passt.log "$3"
	fetches "$1"
	verdict net_fetches_a_file_by_passt $? passt.log "$3"
	background sent nc -l -p 9000 -e sh -c 'cat >/tmp/arrived'
	ask "$1" 'dd if=/dev/urandom of=/tmp/sent bs=64k count=16 2>/dev/null; nc 169.254.2.2 9000 </tmp/sent; sum /tmp/sent' >said
	wait $!
	grep -q "$(sum arrived)" said
	verdict net_sends_a_file_by_passt $? said sent passt.log
}
