# A guest without an operating system (guest/metal), whose driver is the crate virtio-drivers'. It finds its disk by the
# ports of the configuration space alone, on Arm where libxl puts a guest's first device, and sleeps until the disk's interrupt comes.
# shellcheck shell=sh

# writer NAME BLOCKS: creates one, paused, that writes so many blocks and reads them back
writer() {
	metal "$1" "disk $2" 02
	xl create -q -p "$1.cfg"
}

# says NAME WORDS: waits until it has said these
says() { within 180 grep -q "$2" "$(console "$1")"; }

# word BLOCK WORD: one of 4 bytes in the disk's file
word() { od -An -tu4 -j $(($1 * 4096 + $2 * 4)) -N4 blk.img | tr -d ' '; }

disk blk
writer disk 200
background disk.log xen-virtio serve disk --device blk,socket=/tmp/blk.sock
server=$!
ready disk.log
xl unpause disk
wait $server
verdict metal_serve_ends_with_its_guest $? disk.log
says disk '^disk: 200 blocks'
verdict metal_reads_what_it_wrote $? disk.log "$(console disk)"
# The number of a block, and of its last pair of words from the end of all numbers on.
[ "$(word 0 0) $(word 199 0) $(word 199 1023)" = "0 199 $((0xFFFFFFFF - 511))" ]
verdict metal_has_it_in_the_file $? blk.log
# As many as the demonstration has until its disk is started, of which most are for PCI: none for data.
accesses=$(sed -n 's/^disk is gone: .* \([0-9]*\) accesses to registers answered$/\1/p' disk.log)
if is_arm; then least=20 most=60; else least=100 most=200; fi
[ "$accesses" -ge $least ] && [ "$accesses" -lt $most ]
verdict metal_wakes_only_its_backend $? disk.log "$(console disk)"
echo "        $(grep '^disk:' "$(console disk)" | tr -d '\r')"

writer alone 1
xl unpause alone
says alone 'disk: the guest finds no disk'
verdict metal_finds_no_disk_without_xen_virtio $? "$(console alone)"

background empty.log qemu-storage-daemon --blockdev driver=null-co,node-name=disk,size=16777216,read-zeroes=on \
	--export type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=/tmp/empty.sock,writable=on
backends="$backends $!"
within 20 test -S empty.sock
writer empty 20
background served.log xen-virtio serve empty --device blk,socket=/tmp/empty.sock
server=$!
ready served.log
xl unpause empty
says empty 'disk: 20 of 20 blocks came back different'
verdict metal_sees_a_disk_that_keeps_nothing $? empty.log served.log "$(console empty)"
wait $server
left metal
exit 0
