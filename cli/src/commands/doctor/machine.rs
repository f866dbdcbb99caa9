//! Xen, its devices, and what else an engine needs.

use super::engine::{self, Engines};
use super::{Check, Report, fact, missing, ok, poor};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::fs;
use std::path::{Path, PathBuf};
use xen_eventfd::run_dir::Orphan;
use xen_eventfd::{EngineKind, Error, Probe};

/// The module's device.
pub const DEVICE: &str = "/dev/xen/eventfd";

const XENSTORED: &str =
    "start xenstored (systemctl start xenstored); it is part of Xen's tools, and wants root";

/// Where to look.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The root of the file system.
    pub root: &'a Path,
    /// The kernel's release.
    pub release: String,
    /// Where engines keep locks and records.
    pub run_dir: PathBuf,
    /// Where the engine is named, if it is.
    pub named_by: Option<&'static str>,
    /// What an engine that opens would be answered.
    pub probe: Probe,
    /// What engines left that were killed.
    pub orphans: Result<Vec<Orphan>, Error>,
}

impl Machine<'_> {
    /// Looks at everything.
    pub fn examine(&self) -> Report {
        let checks = vec![
            self.xen(),
            self.domain(),
            self.device("privcmd", "/dev/xen/privcmd", true),
            self.device("evtchn", "/dev/xen/evtchn", true),
            self.device("hypercall buffers", "/dev/xen/hypercall", false),
            self.ioreq_servers(),
            self.xenstore(),
            self.aio(),
            self.features(),
            self.run_dir(),
            self.orphans(),
            self.guardian(),
            self.kernel(),
            self.rust(),
            self.module(),
            self.lockdown(),
            self.debugfs(),
            self.upstream(),
            self.userspace(),
        ];
        let checks = checks.into_iter().chain(self.device_checks()).collect();
        let (probe, by) = (&self.probe, self.named_by);
        Report { engines: Engines::of(probe), picked: engine::pick(probe, by), checks }
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file of one line, without its end.
    pub(super) fn line(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.at(path)).ok()?.trim().to_owned())
    }

    pub(super) fn under_xen(&self) -> bool {
        self.line("/sys/hypervisor/type").as_deref() == Some("xen")
    }

    fn xen(&self) -> Check {
        const NAME: &str = "Xen";
        if !self.under_xen() {
            let found = match self.line("/sys/hypervisor/type") {
                Some(other) => format!("no: the hypervisor is {other}"),
                None if self.at("/proc/xen").exists() => {
                    "perhaps: /proc/xen is there, /sys/hypervisor is not".to_owned()
                }
                None => "no: this machine does not run under Xen".to_owned(),
            };
            return missing(
                NAME,
                found,
                "boot through Xen (Debian: apt install xen-system-amd64, then reboot), or try \
                 `xen-eventfd demo`, which needs none",
            );
        }
        let part = |name: &str| self.line(&format!("/sys/hypervisor/version/{name}"));
        let version = match (part("major"), part("minor")) {
            (Some(major), Some(minor)) => {
                format!("{major}.{minor}{}", part("extra").unwrap_or_default())
            }
            _ => "of unknown version".to_owned(),
        };
        ok(NAME, version)
    }

    fn domain(&self) -> Check {
        const NAME: &str = "this domain";
        if !self.under_xen() {
            return fact(NAME, "none");
        }
        let kind = self.line("/sys/hypervisor/guest_type").unwrap_or_else(|| "kind unknown".into());
        let control = self.line("/proc/xen/capabilities").is_some_and(|c| c.contains("control_d"));
        let zero = self.line("/sys/hypervisor/uuid").is_some_and(|uuid| {
            uuid.chars().all(|digit| matches!(digit, '0' | '-')) && !uuid.is_empty()
        });
        if control || zero {
            return ok(NAME, format!("domain 0 ({kind})"));
        }
        let found = format!("a guest ({kind}), not domain 0");
        let advice = "it can serve only the guests that it is privileged over (a stub or driver \
                      domain with a `target`); otherwise run in domain 0";
        poor(NAME, found, advice)
    }

    fn device(&self, name: &'static str, path: &str, needed: bool) -> Check {
        let file = self.at(path);
        let module = if name == "evtchn" { "xen-evtchn" } else { "xen-privcmd" };
        match access(&file, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => ok(name, path),
            Err(Errno::NOENT | Errno::NOTDIR) if !needed => {
                fact(name, format!("{path} is not there; locked memory does as well"))
            }
            Err(Errno::NOENT | Errno::NOTDIR) if !self.under_xen() => {
                missing(name, format!("{path} is not there"), "it comes with Xen")
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {
                missing(name, format!("{path} is not there"), &format!("modprobe {module}"))
            }
            Err(errno) => missing(name, format!("{path}: {errno}"), "run as root"),
        }
    }

    fn ioreq_servers(&self) -> Check {
        const NAME: &str = "ioreq servers";
        match (&self.probe.host, &self.probe.ioreq_servers) {
            (Err(_), _) => fact(NAME, "not known, as Xen cannot be asked"),
            (Ok(()), Ok(())) => ok(NAME, "Xen has them"),
            (Ok(()), Err(error)) => missing(
                NAME,
                format!("{}: {}", error.call, error.errno),
                error.advice().unwrap_or("boot a Xen that has them"),
            ),
        }
    }

    fn xenstore(&self) -> Check {
        const NAME: &str = "xenstore";
        let ways = ["/run/xenstored/socket", "/var/run/xenstored/socket", "/dev/xen/xenbus"];
        let Some(way) = ways.into_iter().find(|way| self.at(way).exists()) else {
            return missing(NAME, "neither its socket nor /dev/xen/xenbus is there", XENSTORED);
        };
        match &self.probe.xenstore {
            Ok(()) => ok(NAME, format!("{way}; it answers")),
            Err(error) => missing(NAME, error.to_string(), XENSTORED),
        }
    }

    fn aio(&self) -> Check {
        const NAME: &str = "asynchronous I/O";
        match &self.probe.signaller {
            Ok(()) => ok(NAME, "works; eventfds are signalled without ever waiting"),
            Err(error) => missing(
                NAME,
                error.to_string(),
                "use a kernel with CONFIG_AIO, and raise /proc/sys/fs/aio-max-nr if it is used up",
            ),
        }
    }

    fn features(&self) -> Check {
        const NAME: &str = "kernel features";
        match &self.probe.kernel {
            Ok(()) => ok(NAME, "eventfds have numbers, and are read without waiting"),
            Err(error) => missing(NAME, error.to_string(), "boot a newer kernel"),
        }
    }

    fn run_dir(&self) -> Check {
        const NAME: &str = "run directory";
        let shown = self.run_dir.display();
        match &self.probe.run_dir {
            Ok(()) if self.at(&self.run_dir.to_string_lossy()).exists() => {
                ok(NAME, shown.to_string())
            }
            Ok(()) => ok(NAME, format!("{shown}, to be made")),
            Err(error) => {
                missing(NAME, error.to_string(), "run as root, or choose another --run-dir")
            }
        }
    }

    /// Guests whose engine was killed and that nothing has reaped.
    fn orphans(&self) -> Check {
        const NAME: &str = "orphans";
        match self.orphans.as_deref() {
            Ok([]) => ok(NAME, "none: no killed engine has left a server"),
            Ok(orphans) => {
                let guests: Vec<_> = orphans.iter().map(|orphan| orphan.dom.to_string()).collect();
                let found = format!(
                    "{}: served by no living engine; a vCPU that rings waits",
                    guests.join(", ")
                );
                poor(NAME, found, "xen-eventfd reap")
            }
            Err(error) => poor(NAME, error.to_string(), "run as root"),
        }
    }

    /// What the library will find when it looks for a guardian in another program.
    fn guardian(&self) -> Check {
        const NAME: &str = "guardian";
        match &self.probe.guardian {
            Some(program) if program.is_file() => ok(NAME, program.display().to_string()),
            Some(program) => {
                let found = format!("{} is not there", program.display());
                poor(NAME, found, &format!("name another in {}", xen_eventfd::GUARDIAN_VARIABLE))
            }
            None => {
                let advice = format!(
                    "install it there, beside the programs that use the library, or name it in {}",
                    xen_eventfd::GUARDIAN_VARIABLE
                );
                poor(NAME, "xen-eventfd is not on the PATH", &advice)
            }
        }
    }

    fn userspace(&self) -> Check {
        const NAME: &str = "userspace engine";
        match self.probe.engine_if_asked(EngineKind::Userspace) {
            Ok(_) => ok(NAME, "can run"),
            Err(error) => missing(NAME, error.to_string(), "see what is missing above"),
        }
    }
}
