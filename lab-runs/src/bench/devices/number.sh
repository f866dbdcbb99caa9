# A disk, while the host's guests have 1, 8 and 64 of them.
# shellcheck shell=sh

no_bytes 64

# disks FIRST LAST: options for these of the backend's
disks() { for number in $(seq "$1" "$2"); do printf -- '--device blk,socket=/tmp/disk%s.sock ' "$number"; done; }

# measured NAME DISKS: a guest with so many
measured() {
	config "$1" 1 "" /lab/guest.cpio
	# shellcheck disable=SC2046
	served "$1" /dev/vda $(disks 1 "$2")
}

measured one 1
measured eight 8
# A guest has 31 at most.
for first in 23 44; do
	config "beside$first" 1 "" /lab/guest.cpio
	# shellcheck disable=SC2046
	background "beside$first.log" xen-virtio start "beside$first.cfg" $(disks $first $((first + 20)))
	up "beside$first" 1 || fail "no guest is beside" "beside$first.log"
done
measured sixty-four 22
for first in 23 44; do xl destroy "beside$first"; done
bytes_end
exit 0
