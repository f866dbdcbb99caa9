//! What is told of machines that are trees of files.

use super::*;
use crate::served::Engine;
use std::fs;

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

    fn machine(&self, opened: Result<(), String>) -> Machine<'_> {
        Machine {
            root: self.0.path(),
            release: "6.12.0".to_owned(),
            run_dir: "/run/xen-eventfd".into(),
            asked: None,
            path: vec![self.0.path().join("usr/bin")],
            aio: Ok(()),
            module: Ok(()),
            opened,
        }
    }

    fn examine(&self, opened: Result<(), String>) -> Report {
        self.machine(opened).examine()
    }
}

/// A domain 0 on which the engine in userspace runs, with these files besides.
fn dom0(files: &[(&str, &str)]) -> Report {
    Tree::new(&[&DOM0[..], &[("dev/xen/evtchn", "")], files].concat()).examine(Ok(()))
}

/// How a thing stands, and the whole text about it.
fn told(report: &Report, name: &str) -> (Standing, String) {
    let Check { standing, found, advice, .. } = check(report, name);
    (*standing, format!("{found} -> {}", advice.as_deref().unwrap_or_default()))
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
    let report = dom0(&[
        ("usr/bin/xen-eventfd", ""),
        ("dev/xen/eventfd", ""),
        ("proc/mounts", "debugfs /sys/kernel/debug debugfs rw,nosuid 0 0\n"),
    ]);
    assert!(report.checks.iter().all(|check| check.advice.is_none()), "{report:?}");
    assert_eq!(report.engines, Engines { userspace: true, kernel: true });
    assert!(report.prose().contains("The kernel engine would be picked"), "{}", report.prose());
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
    assert_eq!((domain.standing, &*domain.found), (Standing::Poor, "a guest (HVM), not domain 0"));
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

#[test]
fn a_module_that_is_only_installed_is_named() {
    for file in ["updates/dkms/xen-eventfd.ko.xz", "extra/xen_eventfd.ko"] {
        let index = format!("kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko\n{file}:\n");
        let report = dom0(&[("lib/modules/6.12.0/modules.dep", &index)]);
        let (standing, text) = told(&report, "kernel module");
        assert_eq!(standing, Standing::Poor);
        assert!(text.contains("modprobe xen-eventfd"), "{text}");
        assert_eq!(report.picked.engine, Some(Engine::Userspace));
    }
    let other = dom0(&[("lib/modules/6.12.0/modules.dep", "kernel/xen-eventfd-not.ko:\n")]);
    assert!(told(&other, "kernel module").1.contains("build it"));
}

#[test]
fn a_kernel_without_rust_gets_the_engine_in_userspace() {
    let report = dom0(&[("boot/config-6.12.0", "# CONFIG_RUST is not set\n")]);
    assert_eq!(told(&report, "kernel module"), (Standing::Fact, "not installed -> ".to_owned()));
    assert!(told(&report, "Rust in the kernel").1.contains("userspace engine"));
    assert!(report.prose().contains("The userspace engine would be picked"));
}

#[test]
fn a_module_that_refuses_is_not_picked() {
    let tree = Tree::new(&[&DOM0[..], &[("dev/xen/eventfd", "")]].concat());
    let mut machine = tree.machine(Ok(()));
    machine.module = Err("Permission denied".to_owned());
    let report = machine.examine();
    assert_eq!(report.engines, Engines { userspace: true, kernel: false });
    let (standing, text) = told(&report, "kernel module");
    assert_eq!(standing, Standing::Poor);
    assert!(text.contains("Permission denied -> run as root"), "{text}");
}

#[test]
fn a_locked_down_kernel_wants_a_signature_unless_it_has_the_module() {
    let efi = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let locked = [
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        (efi, "\u{6}\0\0\0\u{1}"),
    ];
    let (standing, text) = told(&dom0(&locked), "lockdown");
    assert_eq!(standing, Standing::Poor);
    assert!(text.starts_with("integrity, Secure Boot on; only signed"), "{text}");
    let loaded = [&locked[..], &[("dev/xen/eventfd", "")]].concat();
    assert_eq!(told(&dom0(&loaded), "lockdown").0, Standing::Fact);
    let enforced = [("sys/module/module/parameters/sig_enforce", "Y\n")];
    assert_eq!(told(&dom0(&enforced), "lockdown").0, Standing::Poor);
    let open = [("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")];
    assert_eq!(told(&dom0(&open), "lockdown"), (Standing::Fact, "none -> ".to_owned()));
}

#[test]
fn debugfs_is_wanted_by_the_module_only() {
    assert_eq!(told(&dom0(&[]), "debugfs").0, Standing::Fact);
    let (standing, text) = told(&dom0(&[("dev/xen/eventfd", "")]), "debugfs");
    assert_eq!(standing, Standing::Poor);
    assert!(text.contains("mount -t debugfs"), "{text}");
}

#[test]
fn upstreams_ioeventfd_is_named_with_the_reason_why_it_is_not_used() {
    let config = [("boot/config-6.12.0", "CONFIG_XEN_PRIVCMD_EVENTFD=y\n")];
    let report = dom0(&config);
    let (standing, text) = told(&report, "privcmd's own ioeventfd");
    assert_eq!(standing, Standing::Fact);
    assert!(text.contains("loses kicks") && text.contains("crashes a PV domain 0"), "{text}");
    assert_eq!(report.picked.engine, Some(Engine::Userspace));
}

#[test]
fn an_engine_that_is_asked_for_is_the_one_that_counts() {
    let tree = Tree::new(&DOM0);
    let mut machine = tree.machine(Ok(()));
    machine.asked = Some(Asked { engine: "kernel".to_owned(), by: "XEN_EVENTFD_ENGINE" });
    let report = machine.examine();
    assert_eq!(report.picked.engine, None);
    assert!(report.prose().contains("No engine can run here: XEN_EVENTFD_ENGINE asks for"));
}
