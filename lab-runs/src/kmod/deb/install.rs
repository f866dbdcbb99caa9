//! The packages on a system: Debian's tools take them, and dom0 loads what they installed.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::{Boot, Lab, Platform, System};

use super::{Packages, output};
use crate::kmod::kernel_log;

const SHORT: Duration = Duration::from_secs(60);

/// What loads modules on a real system, and where dom0 gets it. udev asks for the library at run
/// time.
const LOADERS: [(&str, &str); 4] = [
    ("usr/lib/x86_64-linux-gnu/libkmod.so.2", "usr/lib/x86_64-linux-gnu/libkmod.so.2"),
    ("usr/bin/kmod", "usr/sbin/modprobe"),
    ("usr/bin/udevadm", "usr/bin/udevadm"),
    ("usr/bin/udevadm", "usr/lib/systemd/systemd-udevd"),
];

/// Tries both packages together; says what holds.
pub(super) fn test(lab: &Lab, packages: &Packages, holds: &mut impl FnMut(&str)) -> Result<()> {
    let folder = packages.module.parent().context("a package lies in a folder")?;
    let system = lab.system()?;
    let values = Names {
        command: name(&packages.command),
        module: name(&packages.module),
        release: &lab.kernel_release()?,
    };
    let run = |what: &str, script: &str| {
        system.run(folder, &values.fill(script)).with_context(|| format!("not so: {what}"))
    };
    for (what, script) in [
        ("lintian finds nothing", LINTIAN),
        ("beside another build of the kernel, the module is not set up", OTHER_KERNEL),
        (
            "dpkg installs both, modprobe finds the module, udev reads the rule, systemd the service",
            INSTALL,
        ),
    ] {
        run(what, script)?;
        holds(what);
    }
    for kind in [Platform::X86Pv, Platform::X86Pvh] {
        loads(lab, &system, kind).with_context(|| kind.name())?;
        holds(&format!(
            "{}: udev loads the module, modprobe too; where it is refused, doctor is content",
            kind.name()
        ));
    }
    let what = "a purge leaves nothing behind";
    run(what, PURGE)?;
    holds(what);
    Ok(())
}

// No bug of Debian asks for these packages, and the kernel's own name makes theirs long.
const LINTIAN: &str = r"
lintian --allow-root --fail-on error,warning --tag-display-limit 0 \
	--suppress-tags initial-upload-closes-no-bugs,package-has-long-file-name @COMMAND@ @MODULE@
";

const OTHER_KERNEL: &str = r"
cp /var/lib/dpkg/status /tmp/status
sed -i '/^Package: linux-modules-/,/^$/ s/^Version: .*/&.1/' /var/lib/dpkg/status
if dpkg --install @MODULE@ >/tmp/said 2>&1; then exit 1; fi
grep -q 'depends on linux-modules-' /tmp/said
dpkg --purge xen-eventfd-modules-@RELEASE@
cp /tmp/status /var/lib/dpkg/status
";

const INSTALL: &str = r#"
find / -xdev \( -type f -o -type l \) \( -path '*eventfd*' -o -path '*xen-virtio*' \) | sort >/tmp/before
dpkg --install @COMMAND@ @MODULE@
dpkg --verify xen-eventfd xen-eventfd-modules-@RELEASE@
modprobe --set-version @RELEASE@ --show-depends xen-eventfd | grep updates/xen-eventfd.ko
modinfo --set-version @RELEASE@ --field vermagic xen-eventfd | grep -F '@RELEASE@ '
udevadm verify --root=/ /usr/lib/udev/rules.d/60-xen-eventfd.rules
xen-eventfd --version
systemd-analyze verify --man=no xen-virtio.service
mkdir -p /etc/xen && cp /usr/share/doc/xen-eventfd/examples/virtio.toml /etc/xen/
xen-virtio check | grep -v 'no program "qemu-storage-daemon"' >/tmp/said || true
[ ! -s /tmp/said ] || { cat /tmp/said; exit 1; }
[ ! -e /etc/systemd/system/multi-user.target.wants/xen-virtio.service ]
systemctl enable xen-virtio.service
[ -L /etc/systemd/system/multi-user.target.wants/xen-virtio.service ]
"#;

const PURGE: &str = r"
dpkg --purge xen-eventfd xen-eventfd-modules-@RELEASE@
if grep xen-eventfd /usr/lib/modules/@RELEASE@/modules.dep; then exit 1; fi
find / -xdev \( -type f -o -type l \) \( -path '*eventfd*' -o -path '*xen-virtio*' \) | sort | diff /tmp/before -
";

/// Tries both packages where this machine cannot run what they hold: dom0 loads the module and runs the command.
pub(super) fn test_in_dom0(
    lab: &Lab,
    packages: &Packages,
    holds: &mut impl FnMut(&str),
) -> Result<()> {
    let folder = packages.module.with_file_name("extracted");
    for package in [&packages.command, &packages.module] {
        output(Command::new("dpkg-deb").arg("--extract").args([package, &folder]))?;
    }
    let release = lab.kernel_release()?;
    let module = super::contents::installed(&release);
    let kind = Platform::of(lab.arch()).next();
    let kind = kind.context("a lab has a platform")?;
    let mut boot = Boot::new(kind).name(format!("kmod-deb-{}", kind.name()));
    for path in [&module, "usr/bin/xen-eventfd", "usr/bin/xen-virtio"] {
        boot = boot.payload(path, folder.join(path));
    }
    let mut machine = lab.boot(boot)?;
    let log = kernel_log::Log::begin(&mut machine)?;
    machine.check(&format!("insmod /{module}"), SHORT)?;
    machine.check("/usr/bin/xen-eventfd doctor", SHORT)?;
    machine.check("/usr/bin/xen-virtio --version", SHORT)?;
    machine.check("rmmod xen_eventfd", SHORT)?;
    log.end(&mut machine)?;
    machine.finish()?;
    fs::remove_dir_all(&folder)?;
    holds(&format!("{}: the module loads, doctor is content, and the module goes", kind.name()));
    Ok(())
}

/// What the scripts leave open.
struct Names<'a> {
    command: String,
    module: String,
    release: &'a str,
}

impl Names<'_> {
    fn fill(&self, script: &str) -> String {
        script
            .replace("@COMMAND@", &self.command)
            .replace("@MODULE@", &self.module)
            .replace("@RELEASE@", self.release)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Boots dom0 with what is installed in the system, and has it loaded as a real one would.
fn loads(lab: &Lab, system: &System, kind: Platform) -> Result<()> {
    const NODE: &str = "/dev/xen/eventfd";
    let boot = Boot::new(kind).name(format!("kmod-deb-{}", kind.name()));
    let mut machine = lab.boot(put_installed(boot, lab, system)?)?;
    let log = kernel_log::Log::begin(&mut machine)?;
    machine.check("ln -s /usr/lib/modules /lib/modules", SHORT)?;

    machine.check(&format!("test ! -e {NODE}"), SHORT)?;
    machine.check("/usr/lib/systemd/systemd-udevd --daemon", SHORT)?;
    machine.check("udevadm trigger --action=add --subsystem-match=misc", SHORT)?;
    machine.check("udevadm settle", SHORT)?;
    let mode = machine.check(&format!("stat -c '%A %u %g' {NODE}"), SHORT)?.text();
    ensure!(mode == "crw------- 0 0", "{NODE} is root's alone, not {mode}");
    machine.check("/usr/sbin/modprobe --remove xen-eventfd", SHORT)?;
    machine.check(&format!("test ! -e {NODE}"), SHORT)?;

    machine.check("/usr/sbin/modprobe xen-eventfd", SHORT)?;
    machine.check(&format!("test -c {NODE}"), SHORT)?;
    machine.check("xen-eventfd doctor", SHORT)?;
    machine.check("rmmod xen_eventfd", SHORT)?;
    log.end(&mut machine)?;

    machine.check("echo 1 >/sys/module/module/parameters/sig_enforce", SHORT)?;
    let refused = machine.run("/usr/sbin/modprobe xen-eventfd", SHORT)?;
    ensure!(
        refused.text().contains("Key was rejected by service"),
        "a kernel that wants signatures: {}",
        refused.text()
    );
    machine.check("xen-eventfd doctor", SHORT)?;
    machine.finish().map(drop)
}

/// The packages' files, what depmod made of them, and what loads modules.
fn put_installed(mut boot: Boot, lab: &Lab, system: &System) -> Result<Boot> {
    let root = system.root();
    let release = lab.kernel_release()?;
    let mut files = vec![
        super::contents::installed(&release),
        "usr/bin/xen-eventfd".to_owned(),
        "usr/lib/udev/rules.d/60-xen-eventfd.rules".to_owned(),
    ];
    let modules = format!("usr/lib/modules/{release}");
    for entry in fs::read_dir(root.join(&modules))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("modules.") {
            files.push(format!("{modules}/{name}"));
        }
    }
    let programs = LOADERS.map(|(program, _)| program);
    files.extend(
        system.libraries(&programs)?.iter().map(|path| path.to_string_lossy().into_owned()),
    );
    for file in files {
        let path = root.join(&file);
        boot = boot.payload(file, path);
    }
    for (program, place) in LOADERS {
        boot = boot.payload(place, root.join(program));
    }
    Ok(boot)
}
