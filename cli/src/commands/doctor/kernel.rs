//! The running kernel: whether it has the module, could have it, and would load it.

use super::machine::{DEVICE, Machine};
use super::{Check, fact, ok, poor};
use flate2::read::GzDecoder;
use rustix::io::Errno;
use std::fs;
use std::io::Read;

/// The firmware's variable: four bytes of attributes, then 1 or 0.
const SECURE_BOOT: &str =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const DEBUGFS: &str = "/sys/kernel/debug";

impl Machine<'_> {
    pub(super) fn kernel(&self) -> Check {
        fact("kernel", format!("Linux {}", self.release))
    }

    pub(super) fn rust(&self) -> Check {
        let found = match self.configured("CONFIG_RUST") {
            Some(true) => "CONFIG_RUST=y: it can take the kernel module",
            Some(false) => "without CONFIG_RUST: no kernel module, the userspace engine is for it",
            None => "CONFIG_RUST unknown: neither /proc/config.gz nor /boot/config can be read",
        };
        fact("Rust in the kernel", found)
    }

    pub(super) fn has_module(&self) -> bool {
        self.at(DEVICE).exists()
    }

    pub(super) fn module(&self) -> Check {
        const NAME: &str = "kernel module";
        if self.has_module() {
            return match &self.probe.module {
                Ok(info) if info.complete => {
                    ok(NAME, format!("loaded; {DEVICE}, version {} of its ABI", info.abi))
                }
                Ok(info) => poor(
                    NAME,
                    format!(
                        "{DEVICE}, version {} of its ABI, lacks what an engine needs",
                        info.abi
                    ),
                    "install a newer one; until then the userspace engine serves",
                ),
                Err(error) if error.errno == Errno::PROTO => poor(
                    NAME,
                    format!("{DEVICE} is of another version, so no engine here can take a guest"),
                    "install the module that belongs to this program, or `rmmod xen-eventfd`",
                ),
                Err(error) => poor(
                    NAME,
                    error.to_string(),
                    "run as root; in a domain other than 0, xenstore must name its `target`",
                ),
            };
        }
        if self.installed("xen_eventfd") {
            let found = format!("installed, not loaded: {DEVICE} is not there");
            return poor(NAME, found, "modprobe xen-eventfd");
        }
        if !self.under_xen() || self.configured("CONFIG_RUST") == Some(false) {
            return fact(NAME, "not installed");
        }
        let advice = "build it for this kernel (kernel/README.md), or do without: the userspace \
                      engine does the same";
        poor(NAME, "not installed", advice)
    }

    /// Whether `modprobe` would find a module.
    pub(super) fn installed(&self, name: &str) -> bool {
        let index = self.at(&format!("/lib/modules/{}/modules.dep", self.release));
        let index = fs::read_to_string(index).unwrap_or_default();
        index.lines().any(|line| {
            let file = line.split(':').next().and_then(|path| path.rsplit('/').next());
            // Perhaps compressed: `xen-eventfd.ko.xz`.
            let module = file.and_then(|file| file.split(".ko").next()).unwrap_or_default();
            module.replace('-', "_") == name
        })
    }

    /// Whether the kernel takes only modules that are signed.
    pub(super) fn lockdown(&self) -> Check {
        const NAME: &str = "lockdown";
        let states = self.line("/sys/kernel/security/lockdown").unwrap_or_default();
        let state = states.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let state = state.map_or("unknown", |(state, _)| state);
        let secure = match fs::read(self.at(SECURE_BOOT)).ok().as_deref() {
            Some([_, _, _, _, on]) => {
                format!(", Secure Boot {}", if *on == 1 { "on" } else { "off" })
            }
            _ => String::new(),
        };
        let enforced =
            self.line("/sys/module/module/parameters/sig_enforce").as_deref() == Some("Y");
        let signed = enforced || matches!(state, "integrity" | "confidentiality");
        let found = format!("{state}{secure}");
        match (signed, self.has_module()) {
            (false, _) => fact(NAME, found),
            (true, true) => fact(NAME, format!("{found}; only signed modules are loaded")),
            (true, false) => poor(
                NAME,
                format!("{found}; only signed modules are loaded"),
                "sign the module with a key that the machine trusts (mokutil --import enrols one), \
                 or use the userspace engine",
            ),
        }
    }

    /// Where the module shows its guests.
    pub(super) fn debugfs(&self) -> Check {
        const NAME: &str = "debugfs";
        let mounts = fs::read_to_string(self.at("/proc/mounts")).unwrap_or_default();
        let mounted = mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some(DEBUGFS) && words.next() == Some("debugfs")
        });
        match (mounted, self.has_module()) {
            (true, _) => ok(NAME, DEBUGFS),
            (false, true) => poor(
                NAME,
                "not mounted: list, show and top cannot report the module's guests",
                "mount -t debugfs none /sys/kernel/debug",
            ),
            (false, false) => fact(NAME, "not mounted; only the kernel module wants it"),
        }
    }

    pub(super) fn upstream(&self) -> Check {
        const NAME: &str = "privcmd's own ioeventfd";
        match self.configured("CONFIG_XEN_PRIVCMD_EVENTFD") {
            Some(true) => fact(
                NAME,
                "CONFIG_XEN_PRIVCMD_EVENTFD is set; it is not used here: it shares the VMM's slot, \
                 so it loses kicks, wakes the VMM for each, and crashes a PV domain 0",
            ),
            Some(false) => fact(NAME, "not compiled in; it is not used here"),
            None => fact(NAME, "unknown; it is not used here"),
        }
    }

    /// Whether the running kernel was built with an option; `None` if no file says so.
    fn configured(&self, option: &str) -> Option<bool> {
        let release = &self.release;
        let files = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
        let mut text = files.iter().find_map(|file| fs::read_to_string(self.at(file)).ok());
        if text.is_none() {
            let packed = fs::File::open(self.at("/proc/config.gz")).ok()?;
            let mut unpacked = String::new();
            GzDecoder::new(packed).read_to_string(&mut unpacked).ok()?;
            text = Some(unpacked);
        }
        let set = |line: &str| {
            let value = line.strip_prefix(option).and_then(|rest| rest.strip_prefix('='));
            matches!(value, Some("y" | "m"))
        };
        Some(text?.lines().any(set))
    }
}
