//! What virtio devices (`xen-virtio`) need beyond an engine: the toolstack, Linux's vhost, programs that serve
//! devices.

use super::machine::Machine;
use super::{Check, fact, ok, poor};

/// Where programs are, that of another package too.
const FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/lib/qemu"];
/// Where distributions have the device model that libxl starts for an HVM guest.
const DEVICE_MODELS: [&str; 4] = [
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/lib/xen/bin/qemu-system-i386",
    "/usr/libexec/xen/bin/qemu-system-i386",
    "/usr/bin/qemu-system-i386",
];
/// Backends that `xen-virtio` is tested with.
const BACKENDS: [(&str, &str); 3] =
    [("qemu-storage-daemon", "blk"), ("virtiofsd", "fs"), ("passt", "net")];

impl Machine<'_> {
    pub(super) fn device_checks(&self) -> [Check; 7] {
        [
            self.xen_virtio(),
            self.vhost("vhost-net", "/dev/vhost-net", "vhost_net"),
            self.vhost("vhost-vsock", "/dev/vhost-vsock", "vhost_vsock"),
            self.vhost("vhost-scsi", "/dev/vhost-scsi", "vhost_scsi"),
            self.vhost("tap devices", "/dev/net/tun", "tun"),
            self.backends(),
            self.device_model(),
        ]
    }

    fn program(&self, name: &str) -> Option<String> {
        let mut paths = FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
        paths.find(|path| self.at(path).is_file())
    }

    /// The command, and what it asks of this host for any device.
    fn xen_virtio(&self) -> Check {
        const NAME: &str = "virtio devices";
        let Some(program) = self.program("xen-virtio") else {
            return fact(NAME, "xen-virtio is not installed");
        };
        if self.program("xl").is_none() {
            let advice = "install Xen's toolstack (Debian: apt install xen-utils)";
            return poor(NAME, format!("{program}, but no xl, which creates guests"), advice);
        }
        if !self.has_module() {
            let found =
                format!("{program}; without the kernel module, for backends with XEN_MMAP only");
            return poor(
                NAME,
                found,
                "load the kernel module: it maps a guest's memory for others",
            );
        }
        ok(NAME, format!("{program}, for any backend"))
    }

    /// A device of Linux's own.
    fn vhost(&self, name: &'static str, device: &str, module: &str) -> Check {
        if self.at(device).exists() {
            ok(name, device)
        } else if self.installed(module) {
            fact(name, format!("{device} is not there; modprobe {module}"))
        } else {
            fact(name, format!("{device} is not there, and this kernel has no module {module}"))
        }
    }

    fn backends(&self) -> Check {
        let found: Vec<String> = BACKENDS
            .iter()
            .filter_map(|(name, device)| {
                self.program(name).map(|path| format!("{path} ({device})"))
            })
            .collect();
        let none = "none of qemu-storage-daemon, virtiofsd, passt is installed";
        fact("backends", if found.is_empty() { none.to_owned() } else { found.join(", ") })
    }

    fn device_model(&self) -> Check {
        let found = DEVICE_MODELS.iter().find(|path| self.at(path).exists());
        let none = "no QEMU for Xen, which HVM guests need (Debian: qemu-system-xen)";
        fact("device model", found.map_or(none, |path| path))
    }
}
