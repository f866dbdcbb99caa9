# A target of the kernel's for vhost-scsi, with one disk, as an administrator makes it.
# shellcheck shell=sh

wwpn=naa.5001405bd4bf9c3e
fabric=/sys/kernel/config/target/vhost/$wwpn/tpgt_1

# target KIND WORDS: its disk is a backstore of this kind, which these words configure
target() {
	store=/sys/kernel/config/target/core/${1}_0/disk
	mount -t configfs configfs /sys/kernel/config
	mkdir -p $store && echo "$2" >$store/control && echo 1 >$store/enable &&
		mkdir -p $fabric/lun/lun_0 && echo naa.60014053226f0388 >$fabric/nexus && ln -s $store $fabric/lun/lun_0/disk
}

no_target() {
	rm $fabric/lun/lun_0/disk
	echo NULL >$fabric/nexus
	rmdir $fabric/lun/lun_0 $fabric "${fabric%/*}" $store
}
