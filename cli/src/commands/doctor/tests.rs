//! What is reported of machines that are trees of files.

use super::*;
use crate::served::Engine;
use std::fs;
use xen_eventfd::{EngineKind, Error, HostError, ModuleInfo, Probe};
use xen_eventfd_host::features::Feature;
use xen_eventfd_host::{Call, Errno};

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

    fn machine(&self, probe: Probe) -> Machine<'_> {
        Machine {
            root: self.0.path(),
            release: "6.12.0".to_owned(),
            run_dir: "/run/xen-eventfd".into(),
            named_by: None,
            probe,
            orphans: Ok(vec![]),
        }
    }

    fn examine(&self, probe: Probe) -> Report {
        self.machine(probe).examine()
    }
}

/// An engine would find all that it needs but the kernel module.
fn answering() -> Probe {
    Probe::answering(EngineKind::Auto)
}

/// An engine would find that this device is not there.
fn without(device: &'static str) -> Probe {
    let mut probe = answering();
    probe.host = Err(HostError::new(Call::Open(device), Errno::NOENT));
    probe
}

fn with_module() -> Probe {
    let mut probe = answering();
    probe.module = Ok(ModuleInfo::new(1, true));
    probe
}

/// The files of a domain 0 with these besides.
fn dom0_tree(files: &[(&str, &str)]) -> Tree {
    Tree::new(&[&DOM0[..], &[("dev/xen/evtchn", "")], files].concat())
}

/// A domain 0 on which the engine in userspace runs, with these files besides.
fn dom0(files: &[(&str, &str)]) -> Report {
    dom0_tree(files).examine(answering())
}

/// How a thing stands, and the whole text about it.
fn reported(report: &Report, name: &str) -> (Standing, String) {
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
    let report = Tree::new(&DOM0).examine(without("/dev/xen/evtchn"));
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
    let tree = dom0_tree(&[
        ("usr/bin/xen-eventfd", ""),
        ("dev/xen/eventfd", ""),
        ("proc/mounts", "debugfs /sys/kernel/debug debugfs rw,nosuid 0 0\n"),
    ]);
    let mut probe = with_module();
    probe.guardian = Some(tree.0.path().join("usr/bin/xen-eventfd"));
    let report = tree.examine(probe);
    assert!(report.checks.iter().all(|check| check.advice.is_none()), "{report:?}");
    assert_eq!(report.engines, Engines { userspace: true, kernel: true });
    assert!(report.prose().contains("The kernel engine would be picked"), "{}", report.prose());
}

#[test]
fn a_xen_without_ioreq_servers() {
    let mut probe = answering();
    probe.ioreq_servers = Err(HostError::new(Call::IoreqServers, Errno::NOSYS));
    let report = dom0_tree(&[]).examine(probe);
    let (standing, advice) = reported(&report, "ioreq servers");
    assert_eq!(standing, Standing::Missing);
    assert!(advice.contains("CONFIG_UNSUPPORTED and CONFIG_IOREQ_SERVER"), "{advice}");
    assert_eq!(report.engines, Engines { userspace: false, kernel: false });
    let (standing, _) = reported(&dom0(&[]), "ioreq servers");
    assert_eq!(standing, Standing::Ok);
}

#[test]
fn a_guest_is_told_that_it_is_one() {
    let guest = [
        ("sys/hypervisor/type", "xen"),
        ("sys/hypervisor/guest_type", "HVM"),
        ("sys/hypervisor/uuid", "b7d3a1f0-1234-4cde-8f00-0123456789ab"),
    ];
    let report = Tree::new(&guest).examine(without("/dev/xen/privcmd"));
    let domain = check(&report, "this domain");
    assert_eq!((domain.standing, &*domain.found), (Standing::Poor, "a guest (HVM), not domain 0"));
}

#[test]
fn without_xen_every_missing_thing_has_advice() {
    let report = Tree::new(&[]).examine(without("/dev/xen/privcmd"));
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
        let (standing, text) = reported(&report, "kernel module");
        assert_eq!(standing, Standing::Poor);
        assert!(text.contains("modprobe xen-eventfd"), "{text}");
        assert_eq!(report.picked.engine, Some(Engine::Userspace));
    }
    let other = dom0(&[("lib/modules/6.12.0/modules.dep", "kernel/xen-eventfd-not.ko:\n")]);
    assert!(reported(&other, "kernel module").1.contains("build it"));
}

#[test]
fn a_kernel_without_rust_gets_the_engine_in_userspace() {
    let report = dom0(&[("boot/config-6.12.0", "# CONFIG_RUST is not set\n")]);
    assert_eq!(
        reported(&report, "kernel module"),
        (Standing::Fact, "not installed -> ".to_owned())
    );
    assert!(reported(&report, "Rust in the kernel").1.contains("userspace engine"));
    assert!(report.prose().contains("The userspace engine would be picked"));
}

#[test]
fn a_module_that_refuses_is_not_picked() {
    let refused = |errno, engine, why: &str| {
        let mut probe = answering();
        probe.module = Err(HostError::new(Call::Open("/dev/xen/eventfd"), errno));
        let report = dom0_tree(&[("dev/xen/eventfd", "")]).examine(probe);
        let (standing, text) = reported(&report, "kernel module");
        assert_eq!((standing, report.picked.engine), (Standing::Poor, engine), "{report:?}");
        assert!(text.contains(why), "{text}");
    };
    refused(Errno::ACCESS, None, "run as root");
    // The library would not know whom such a module serves.
    refused(Errno::PROTO, None, "another version");
    refused(Errno::NXIO, Some(Engine::Userspace), "is not loaded");
}

#[test]
fn a_module_that_lacks_features_is_told_and_userspace_picked_as_the_library_does() {
    let mut probe = answering();
    probe.module = Ok(ModuleInfo::new(1, false));
    let report = dom0_tree(&[("dev/xen/eventfd", "")]).examine(probe);
    assert_eq!(report.engines, Engines { userspace: true, kernel: false });
    assert_eq!(report.picked.engine, Some(Engine::Userspace));
    assert!(reported(&report, "kernel module").1.contains("lacks"), "{report:?}");
}

#[test]
fn a_xenstore_that_does_not_answer_is_missing_wherever_its_socket_is() {
    let mut probe = with_module();
    probe.xenstore = Err(HostError::new(Call::Xenstore("domid".to_owned()), Errno::TIMEDOUT));
    let report = dom0_tree(&[("dev/xen/eventfd", "")]).examine(probe);
    let (standing, text) = reported(&report, "xenstore");
    assert_eq!((standing, report.picked.engine), (Standing::Missing, None));
    assert!(text.contains("is xenstored alive?"), "{text}");
}

#[test]
fn a_kernel_that_lacks_what_an_engine_needs_is_told_with_the_version_that_has_it() {
    for (feature, version) in [(Feature::EventFdId, "5.2"), (Feature::ReadWithoutWaiting, "5.8")] {
        let mut probe = answering();
        probe.kernel = Err(HostError::new(Call::Kernel(feature), Errno::OPNOTSUPP));
        let report = dom0_tree(&[]).examine(probe);
        let (standing, text) = reported(&report, "kernel features");
        assert_eq!((standing, report.picked.engine), (Standing::Missing, None));
        assert!(text.contains(&format!("Linux {version}")) && text.contains("newer"), "{text}");
    }
    assert_eq!(reported(&dom0(&[]), "kernel features").0, Standing::Ok);
}

#[test]
fn a_guardian_that_is_named_and_is_not_there_is_told() {
    let mut probe = answering();
    probe.guardian = Some("/no/such/guardian".into());
    let (standing, text) = reported(&dom0_tree(&[]).examine(probe), "guardian");
    assert_eq!(standing, Standing::Poor);
    assert!(text.starts_with("/no/such/guardian is not there"), "{text}");
    assert!(reported(&dom0(&[]), "guardian").1.contains("not on the PATH"));
}

#[test]
fn a_run_directory_that_cannot_be_used_is_missing_and_no_engine_picked() {
    let mut probe = answering();
    let (what, path) = ("use", "/run".into());
    probe.run_dir = Err(Error::RunDir { what, path, errno: Errno::ACCESS });
    let report = dom0_tree(&[]).examine(probe);
    assert_eq!(reported(&report, "run directory").0, Standing::Missing);
    assert_eq!(report.picked.engine, None);
}

#[test]
fn orphans_are_told_with_the_advice_to_reap() {
    let dir = tempfile::tempdir().unwrap();
    let record = r#"{"domid":5,"uuid":null,"created":[],"server":{"id":7,"ports":[4]},"held":[]}"#;
    fs::write(dir.path().join("5.json"), record).unwrap();
    let tree = dom0_tree(&[]);
    let mut machine = tree.machine(answering());
    machine.orphans = xen_eventfd::run_dir::orphans(dir.path());
    let (standing, text) = reported(&machine.examine(), "orphans");
    assert_eq!(standing, Standing::Poor);
    assert!(text.starts_with("domain 5: ") && text.ends_with("-> xen-eventfd reap"), "{text}");
    assert_eq!(reported(&dom0(&[]), "orphans").0, Standing::Ok);
}

#[test]
fn a_locked_down_kernel_wants_a_signature_unless_it_has_the_module() {
    let efi = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let locked = [
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        (efi, "\u{6}\0\0\0\u{1}"),
    ];
    let (standing, text) = reported(&dom0(&locked), "lockdown");
    assert_eq!(standing, Standing::Poor);
    assert!(text.starts_with("integrity, Secure Boot on; only signed"), "{text}");
    let loaded = [&locked[..], &[("dev/xen/eventfd", "")]].concat();
    assert_eq!(reported(&dom0(&loaded), "lockdown").0, Standing::Fact);
    let enforced = [("sys/module/module/parameters/sig_enforce", "Y\n")];
    assert_eq!(reported(&dom0(&enforced), "lockdown").0, Standing::Poor);
    let open = [("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")];
    assert_eq!(reported(&dom0(&open), "lockdown"), (Standing::Fact, "none -> ".to_owned()));
}

#[test]
fn debugfs_is_wanted_by_the_module_only() {
    assert_eq!(reported(&dom0(&[]), "debugfs").0, Standing::Fact);
    let (standing, text) = reported(&dom0(&[("dev/xen/eventfd", "")]), "debugfs");
    assert_eq!(standing, Standing::Poor);
    assert!(text.contains("mount -t debugfs"), "{text}");
}

#[test]
fn upstreams_ioeventfd_is_named_with_the_reason_why_it_is_not_used() {
    let config = [("boot/config-6.12.0", "CONFIG_XEN_PRIVCMD_EVENTFD=y\n")];
    let report = dom0(&config);
    let (standing, text) = reported(&report, "privcmd's own ioeventfd");
    assert_eq!(standing, Standing::Fact);
    assert!(text.contains("loses kicks") && text.contains("crashes a PV domain 0"), "{text}");
    assert_eq!(report.picked.engine, Some(Engine::Userspace));
}

#[test]
fn virtio_devices_need_the_toolstack_and_for_most_backends_the_module() {
    let stand = |files: &[(&str, &str)]| reported(&dom0(files), "virtio devices");
    assert_eq!(stand(&[]).0, Standing::Fact);
    let command = ("usr/sbin/xen-virtio", "");
    let (standing, text) = stand(&[command]);
    assert_eq!(standing, Standing::Poor);
    assert!(text.contains("no xl") && text.contains("apt install"), "{text}");
    let xl = ("usr/sbin/xl", "");
    let (standing, text) = stand(&[command, xl]);
    assert_eq!(standing, Standing::Poor);
    assert!(text.contains("XEN_MMAP only") && text.contains("kernel module"), "{text}");
    let (standing, text) = stand(&[command, xl, ("dev/xen/eventfd", "")]);
    assert_eq!((standing, &*text), (Standing::Ok, "/usr/sbin/xen-virtio, for any backend -> "));
}

#[test]
fn vhost_is_there_or_named_with_the_module_that_brings_it() {
    for (name, device, module) in [
        ("vhost-net", "dev/vhost-net", "vhost_net"),
        ("vhost-vsock", "dev/vhost-vsock", "vhost_vsock"),
        ("vhost-scsi", "dev/vhost-scsi", "vhost_scsi"),
        ("tap devices", "dev/net/tun", "tun"),
    ] {
        assert_eq!(reported(&dom0(&[(device, "")]), name).0, Standing::Ok);
        let index = format!("kernel/drivers/{}.ko.xz: kernel/x.ko\n", module.replace('_', "-"));
        let there = reported(&dom0(&[("lib/modules/6.12.0/modules.dep", &index)]), name).1;
        assert!(there.contains(&format!("modprobe {module}")), "{there}");
        let absent = reported(&dom0(&[]), name).1;
        assert!(absent.contains(&format!("no module {module}")), "{absent}");
    }
}

#[test]
fn backends_and_the_device_model_are_named_where_they_are() {
    let report = dom0(&[
        ("usr/bin/qemu-storage-daemon", ""),
        ("usr/libexec/virtiofsd", ""),
        ("usr/lib/xen/bin/qemu-system-i386", ""),
    ]);
    let backends = "/usr/bin/qemu-storage-daemon (blk), /usr/libexec/virtiofsd (fs)";
    assert_eq!(check(&report, "backends").found, backends);
    assert_eq!(check(&report, "device model").found, "/usr/lib/xen/bin/qemu-system-i386");
    let bare = dom0(&[]);
    assert!(check(&bare, "backends").found.starts_with("none of "));
    assert!(check(&bare, "device model").found.contains("qemu-system-xen"));
}

#[test]
fn an_engine_that_is_asked_for_is_the_one_that_counts() {
    let tree = Tree::new(&DOM0);
    let mut machine = tree.machine(Probe::answering(EngineKind::Kernel));
    machine.named_by = Some("XEN_EVENTFD_ENGINE");
    let report = machine.examine();
    assert_eq!(report.picked.engine, None);
    assert!(report.prose().contains("No engine can run here: XEN_EVENTFD_ENGINE asks for"));
}
