# An Arm guest whose root file system is on virtiofs, which its initramfs mounts: the transport is a module of its kernel.
# shellcheck shell=sh

root_files
disk blk 1
config all 1 "root=fs rootfstype=virtiofs rw" /lab/guest.cpio
lines all 1a 02
background all.log xen-virtio start all.cfg --device fs,socket=/tmp/fs.sock,tag=fs --device blk,socket=/tmp/blk.sock
server=$!
up all 1 && ask all 'grep "^fs / virtiofs" /proc/mounts' >said
verdict fs_is_a_root_file_system $? all.log fs.log "$(console all)"
check_fs
pattern=$(ask all write_disk)
[ -n "$pattern" ] && [ "$(ask all read_disk)" = "$pattern" ]
verdict it_has_a_disk_beside $? blk.log all.log
reboots ""
[ "$(ask all 'sum /file')" = "$(sum root/file)" ]
verdict fs_has_it_after_a_reboot $? fs.log all.log
check_log
power_off all
wait $server
verdict start_ends_with_its_guest $? all.log
left mmio_root
exit 0
