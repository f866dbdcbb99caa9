//! `doctor`: tells what this host has, what is missing, and how to get it.
//!
//! Nothing is changed: devices are looked at and opened, no guest is touched.

use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::Args;
use flate2::read::GzDecoder;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::Serialize;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Tell what this host has, what is missing and how to get it.
///
/// Xen, its devices, xenstore, the kernel, and which engines can run. Nothing is changed. Ends with
/// 0 if an engine can run, with 3 otherwise.
#[derive(Debug, Args)]
pub struct Arguments {}

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is there.
    Ok,
    /// It is not, and an engine wants it.
    Missing,
    /// It could be better.
    Poor,
    /// Neither good nor bad.
    Fact,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub found: String,
    /// How to get it, if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Which engines can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Engines {
    /// The thread of a process.
    pub userspace: bool,
    /// The kernel module.
    pub kernel: bool,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which engines can run.
    pub engines: Engines,
    /// In the order of importance.
    pub checks: Vec<Check>,
}

/// Where to look.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The root of the file system.
    pub root: &'a Path,
    /// The kernel's release.
    pub release: String,
    /// Where engines keep locks and records.
    pub run_dir: PathBuf,
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
    /// Asynchronous I/O, tried.
    pub aio: Result<(), String>,
    /// The devices and xenstore, tried as an engine opens them.
    pub opened: Result<(), String>,
}

/// Looks at this machine.
pub(crate) fn run(session: &Session, _: &Arguments) -> Result<Exit, Failure> {
    let run_dir = session.run_dir.clone().unwrap_or_else(|| xen_eventfd::run_dir::DEFAULT.into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let machine = Machine {
        root: Path::new("/"),
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        run_dir,
        path: std::env::split_paths(&path).collect(),
        aio: xen_eventfd_host::aio::Context::new().map(drop).map_err(|e| e.to_string()),
        opened: xen_eventfd_host::linux::LinuxHost::open().map(drop).map_err(|e| e.to_string()),
    };
    let report = machine.examine();
    session.print(&report, || report.prose())?;
    let runs = report.engines.userspace || report.engines.kernel;
    Ok(if runs { Exit::Success } else { Exit::NoXen })
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
            self.xenstore(),
            self.aio(),
            self.run_dir(),
            self.guardian(),
            self.kernel(),
            self.rust(),
            self.upstream(),
            self.userspace(),
        ];
        let kernel = self.at("/dev/xen/eventfd").exists();
        Report { engines: Engines { userspace: self.can_run(), kernel }, checks }
    }

    fn can_run(&self) -> bool {
        self.opened.is_ok() && self.aio.is_ok()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file of one line, without its end.
    fn line(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.at(path)).ok()?.trim().to_owned())
    }

    fn under_xen(&self) -> bool {
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
        Check { name: NAME, standing: Standing::Poor, found, advice: Some(advice.to_owned()) }
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

    fn xenstore(&self) -> Check {
        const NAME: &str = "xenstore";
        let ways = ["/run/xenstored/socket", "/var/run/xenstored/socket", "/dev/xen/xenbus"];
        let Some(way) = ways.into_iter().find(|way| self.at(way).exists()) else {
            let advice = "start xenstored (systemctl start xenstored); it is part of Xen's tools";
            return missing(NAME, "neither its socket nor /dev/xen/xenbus is there", advice);
        };
        match access(self.at(way), Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => ok(NAME, way),
            Err(errno) => missing(NAME, format!("{way}: {errno}"), "run as root"),
        }
    }

    fn aio(&self) -> Check {
        const NAME: &str = "asynchronous I/O";
        match &self.aio {
            Ok(()) => ok(NAME, "works; eventfds are signalled without ever waiting"),
            Err(error) => missing(
                NAME,
                error.clone(),
                "use a kernel with CONFIG_AIO, and raise /proc/sys/fs/aio-max-nr if it is used up",
            ),
        }
    }

    fn run_dir(&self) -> Check {
        const NAME: &str = "run directory";
        let run_dir = self.at(&self.run_dir.to_string_lossy());
        let existing = run_dir.ancestors().find(|dir| dir.exists()).unwrap_or(self.root);
        let shown = self.run_dir.display();
        match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) if existing == run_dir => ok(NAME, shown.to_string()),
            Ok(()) => ok(NAME, format!("{shown}, to be made")),
            Err(errno) => missing(
                NAME,
                format!("{shown}: {errno}"),
                "run as root, or choose another --run-dir",
            ),
        }
    }

    /// What the library will find when it looks for a guardian in another program.
    fn guardian(&self) -> Check {
        const NAME: &str = "guardian";
        let on_path = self.path.iter().map(|dir| dir.join("xen-eventfd")).find(|p| p.is_file());
        match on_path {
            Some(program) => ok(NAME, program.display().to_string()),
            None => Check {
                name: NAME,
                standing: Standing::Poor,
                found: "xen-eventfd is not on the PATH".to_owned(),
                advice: Some(format!(
                    "install it there, beside the programs that use the library, or name it in {}",
                    xen_eventfd::GUARDIAN_VARIABLE
                )),
            },
        }
    }

    fn kernel(&self) -> Check {
        fact("kernel", format!("Linux {}", self.release))
    }

    fn rust(&self) -> Check {
        let found = match self.configured("CONFIG_RUST") {
            Some(true) => "CONFIG_RUST=y: it could take the kernel module that is to come",
            Some(false) => "without CONFIG_RUST: the userspace engine is the one for it",
            None => "CONFIG_RUST unknown: neither /proc/config.gz nor /boot/config tells",
        };
        fact("Rust in the kernel", found)
    }

    fn upstream(&self) -> Check {
        let found = match self.configured("CONFIG_XEN_PRIVCMD_EVENTFD") {
            Some(true) => "CONFIG_XEN_PRIVCMD_EVENTFD is set; it is not used here",
            Some(false) => "not compiled in; it is not used here",
            None => "unknown; it is not used here",
        };
        fact("privcmd's own ioeventfd", found)
    }

    fn userspace(&self) -> Check {
        const NAME: &str = "userspace engine";
        match (&self.opened, &self.aio) {
            (Ok(()), Ok(())) => ok(NAME, "can run"),
            (Err(error), _) | (_, Err(error)) => {
                missing(NAME, error.clone(), "see what is missing above")
            }
        }
    }

    /// Whether the running kernel was built with an option; `None` if nothing tells.
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

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, standing: Standing::Ok, found: found.into(), advice: None }
}

fn fact(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, standing: Standing::Fact, found: found.into(), advice: None }
}

fn missing(name: &'static str, found: impl Into<String>, advice: &str) -> Check {
    let advice = Some(advice.to_owned());
    Check { name, standing: Standing::Missing, found: found.into(), advice }
}

impl Report {
    fn prose(&self) -> String {
        let mut text = String::new();
        for Check { name, standing, found, advice } in &self.checks {
            let mark = match standing {
                Standing::Ok => "ok",
                Standing::Missing => "MISSING",
                Standing::Poor => "note",
                Standing::Fact => "",
            };
            text.push_str(&format!("{name:<24} {mark:<8} {found}\n"));
            if let Some(advice) = advice {
                text.push_str(&format!("{:<33} -> {advice}\n", ""));
            }
        }
        let verdict = match self.engines {
            Engines { userspace: true, .. } => "\nThe userspace engine can run here.\n",
            Engines { kernel: true, .. } => "\nThe kernel module is here.\n",
            _ => "\nNo engine can run here. `xen-eventfd demo` shows one on an in-process Xen.\n",
        };
        text + verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that has these files.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let path = tree.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }

        fn examine(&self, opened: Result<(), String>) -> Report {
            Machine {
                root: self.0.path(),
                release: "6.12.0".to_owned(),
                run_dir: "/run/xen-eventfd".into(),
                path: vec![self.0.path().join("usr/bin")],
                aio: Ok(()),
                opened,
            }
            .examine()
        }
    }

    fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
        report.checks.iter().find(|check| check.name == name).unwrap()
    }

    const DOM0: [(&str, &str); 9] = [
        ("sys/hypervisor/type", "xen\n"),
        ("sys/hypervisor/version/major", "4\n"),
        ("sys/hypervisor/version/minor", "19\n"),
        ("sys/hypervisor/version/extra", ".1\n"),
        ("sys/hypervisor/guest_type", "PVH\n"),
        ("sys/hypervisor/uuid", "00000000-0000-0000-0000-000000000000\n"),
        ("dev/xen/privcmd", ""),
        ("run/xenstored/socket", ""),
        ("boot/config-6.12.0", "CONFIG_RUST=y\n# CONFIG_XEN_PRIVCMD_EVENTFD is not set\n"),
    ];

    #[test]
    fn a_dom0_in_which_one_driver_is_missing() {
        let report = Tree::new(&DOM0).examine(Err("cannot open /dev/xen/evtchn".to_owned()));
        assert_eq!(check(&report, "Xen").found, "4.19.1");
        assert_eq!(check(&report, "this domain").found, "domain 0 (PVH)");
        assert_eq!(check(&report, "privcmd").standing, Standing::Ok);
        let evtchn = check(&report, "evtchn");
        assert_eq!(evtchn.standing, Standing::Missing);
        assert_eq!(evtchn.advice.as_deref(), Some("modprobe xen-evtchn"));
        assert_eq!(check(&report, "hypercall buffers").standing, Standing::Fact);
        assert!(check(&report, "Rust in the kernel").found.starts_with("CONFIG_RUST=y"));
        assert!(check(&report, "privcmd's own ioeventfd").found.starts_with("not compiled in"));
        assert_eq!(report.engines, Engines { userspace: false, kernel: false });
    }

    #[test]
    fn a_dom0_that_has_everything() {
        let all = [&DOM0[..], &[("dev/xen/evtchn", ""), ("usr/bin/xen-eventfd", "")]].concat();
        let report = Tree::new(&all).examine(Ok(()));
        assert!(report.checks.iter().all(|check| check.advice.is_none()), "{report:?}");
        assert!(report.engines.userspace);
        assert!(report.prose().contains("can run here"));
    }

    #[test]
    fn a_guest_is_told_that_it_is_one() {
        let guest = [
            ("sys/hypervisor/type", "xen"),
            ("sys/hypervisor/guest_type", "HVM"),
            ("sys/hypervisor/uuid", "b7d3a1f0-1234-4cde-8f00-0123456789ab"),
        ];
        let report = Tree::new(&guest).examine(Err("no".to_owned()));
        let domain = check(&report, "this domain");
        assert_eq!(
            (domain.standing, &*domain.found),
            (Standing::Poor, "a guest (HVM), not domain 0")
        );
    }

    #[test]
    fn without_xen_every_missing_thing_has_advice() {
        let report = Tree::new(&[]).examine(Err("cannot open /dev/xen/privcmd".to_owned()));
        let missing = report.checks.iter().filter(|check| check.standing == Standing::Missing);
        let named: Vec<&str> = missing.clone().map(|check| check.name).collect();
        assert_eq!(named, ["Xen", "privcmd", "evtchn", "xenstore", "userspace engine"]);
        assert!(missing.clone().all(|check| check.advice.is_some()));
        assert!(check(&report, "Rust in the kernel").found.contains("unknown"));
    }
}
