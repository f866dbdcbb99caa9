# HVM guests with a disk by the same driver of QEMU's block layer: by their own QEMU, and by xen-virtio.
# shellcheck shell=sh

# config_hvm NAME [LINE]
config_hvm() {
	printf 'name="%s"\ntype="hvm"\nkernel="/lab/vmlinuz"\nramdisk="/lab/guest.cpio"\nmemory=192\nvcpus=1\nnographic=1\ncmdline="console=hvc0 quiet panic=1"\n%s\n' \
		"$1" "$2" >"$1.cfg"
}

# As Linux has QEMU take the disks away that are of the class of SCSI controllers, which is this device's own, it is of another.
config_hvm qemu 'device_model_args_hvm=["-blockdev","driver=null-co,node-name=disk,size=1073741824,read-zeroes=off","-device","virtio-blk-pci,drive=disk,class=0x0180"]'
created qemu /dev/vda
no_bytes 1
config_hvm hvm
served hvm /dev/vda --device blk,socket=/tmp/disk1.sock
bytes_end
exit 0
