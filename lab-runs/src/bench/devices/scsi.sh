# A SCSI disk by Linux's vhost-scsi, over what blkback has.
# shellcheck shell=sh

target iblock udev_path=/dev/nullb0 || fail "there is no target" /dev/null
config scsi 1 "" /lab/guest.cpio
served scsi /dev/sda --device "scsi,wwpn=$wwpn"
no_target
exit 0
