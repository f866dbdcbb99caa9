# A guest whose root file system is on virtiofs, with a disk beside.
# shellcheck shell=sh

root_files
no_bytes 1
config root 1 "root=fs rootfstype=virtiofs rw init=/init"
served root /dev/vda --device fs,socket=/tmp/fs.sock,tag=fs --device blk,socket=/tmp/disk1.sock
bytes_end
exit 0
