//! From packages to a lab: which they are, and how they become the few files that booting needs.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;

use crate::{
    apt::{self, Apt},
    arch::Arch,
    elf,
    hypervisor::Hypervisor,
    manifest::Manifest,
    progress::Progress,
    setup::Product,
};

/// The modules that dom0 loads, and what they need before them.
pub(crate) const MODULES: [&str; 5] =
    ["xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs"];

/// The lab itself, as something made of packages.
#[derive(Debug)]
pub(crate) struct LabPackages(pub(crate) Arch);

impl Product for LabPackages {
    fn layout(&self) -> u32 {
        1
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let set = self.0.packages();
        let mut wanted = apt.closure(set.release, set.roots)?;
        wanted.retain(|(name, _)| set.roots.contains(&name.as_str()) || is_needed(name));
        let kernel = apt.closure(set.kernel_release, &[set.kernel])?;
        wanted.extend(
            kernel
                .into_iter()
                .filter(|(name, _)| set.kernel_prefixes.iter().any(|p| name.starts_with(p))),
        );
        apt.describe(self.layout(), &wanted)
    }

    /// A mirror without its source costs nothing but its lists.
    fn prepare_first(&self, manifest: &Manifest) -> Result<()> {
        Hypervisor::prepare(self.0, manifest).map(drop)
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        progress.stage("unpacking");
        let root = folder.join("root");
        unpack_all(manifest, archives, &root)?;
        extract_xen(&root.join("boot"), self.0, &folder.join("xen"))?;
        let modules = root.join("usr/lib/modules");
        let release = only_entry(&modules)?;
        fs::rename(modules.join(&release).join("vmlinuz"), folder.join("vmlinuz"))
            .context("the kernel's package brings no vmlinuz beside its modules")?;
        fs::write(folder.join("kernel-release"), &release)?;
        extract_modules(&modules.join(&release), &folder.join("modules"))?;
        ensure!(
            root.join(self.0.loader().trim_start_matches('/')).exists(),
            "libc6 brings no {}",
            self.0.loader()
        );
        Ok(())
    }

    fn describe(&self, manifest: &Manifest) -> String {
        let parts =
            [("Xen", "xen-hypervisor-"), ("Linux", "linux-binary-"), ("QEMU", "qemu-system-")];
        let known = parts.iter().filter_map(|(name, package)| {
            Some(format!("{name} {}", manifest.version_of(package)?))
        });
        known.collect::<Vec<_>>().join(", ")
    }
}

/// Of what apt's dependencies bring, the lab wants shared libraries and the emulator's parts. The
/// rest (an init system, Python, perl) would be there to configure a host that is none.
fn is_needed(name: &str) -> bool {
    const PREFIXES: [&str; 7] =
        ["lib", "zlib", "qemu-system-", "seabios", "xen-hypervisor-", "xen-utils-", "xenstore-"];
    const UNUSED: [&str; 4] = ["libpython", "libpam", "libsystemd-shared", "libnss"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !UNUSED.iter().any(|prefix| name.starts_with(prefix))
}

/// These packages and the libraries that they need, with their versions. What else they depend on is there to configure
/// a host.
pub(crate) fn with_libraries(
    apt: &Apt,
    arch: Arch,
    packages: &[&str],
) -> Result<Vec<(String, String)>> {
    let mut wanted = apt.closure(arch.packages().release, packages)?;
    wanted.retain(|(name, _)| {
        packages.contains(&name.as_str()) || name.starts_with("lib") || name == "zlib1g"
    });
    Ok(wanted)
}

/// Unpacks all packages into one tree, in place of whatever is there.
pub(crate) fn unpack_all(manifest: &Manifest, archives: &Path, root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("{}: cannot remove", root.display()))?;
    }
    merge_usr(root)?;
    for package in manifest.packages.iter().filter(|package| !package.is_source()) {
        unpack(&archives.join(&package.file), root)?;
    }
    check_merged(root)
}

const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Packages rely on `/bin`, `/lib`, … being links into `/usr`, which another package would make.
fn merge_usr(root: &Path) -> Result<()> {
    for name in MERGED {
        let target = root.join("usr").join(name);
        fs::create_dir_all(&target)
            .with_context(|| format!("{}: cannot make the folder", target.display()))?;
        symlink(Path::new("usr").join(name), root.join(name))?;
    }
    Ok(())
}

fn check_merged(root: &Path) -> Result<()> {
    for name in MERGED {
        let link = fs::symlink_metadata(root.join(name))?;
        ensure!(link.is_symlink(), "a package replaced /{name} by a folder of its own");
    }
    Ok(())
}

fn unpack(archive: &Path, root: &Path) -> Result<()> {
    let output = Command::new("dpkg-deb")
        .arg("--extract")
        .args([archive, root])
        .stdin(Stdio::null())
        .output()
        .context("dpkg-deb could not be started; the lab is set up on Debian")?;
    if !output.status.success() {
        bail!(
            "{}: cannot be unpacked: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// QEMU wants Xen as it is before its package compresses it. On Arm the package does not.
fn extract_xen(boot: &Path, arch: Arch, target: &Path) -> Result<()> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ends = [format!("-{}.gz", arch.debian()), format!("-{}", arch.debian())];
    let image = fs::read_dir(boot)
        .ok()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = name(path);
            name.starts_with("xen-") && ends.iter().any(|end| name.ends_with(end))
        })
        .with_context(|| format!("the hypervisor's package brings no boot/xen-*{}", ends[0]))?;
    let mut xen = Vec::new();
    let mut file = fs::File::open(&image)?;
    let read = if name(&image).ends_with(".gz") {
        GzDecoder::new(file).read_to_end(&mut xen)
    } else {
        file.read_to_end(&mut xen)
    };
    read.with_context(|| format!("{}: cannot be read", image.display()))?;
    fs::write(target, xen).with_context(|| format!("{}: cannot write", target.display()))
}

/// Decompresses dom0's modules and writes, into `order`, the order in which they load.
fn extract_modules(tree: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let mut order = String::new();
    for (file, module) in modules(tree, &MODULES)? {
        fs::write(target.join(&file), module)?;
        order += &(file + "\n");
    }
    fs::write(target.join("order"), order)?;
    Ok(())
}

/// Kernel modules and those that they need, in the order in which they load: file names and contents. `tree` is
/// the kernel's folder of modules.
pub(crate) fn modules(tree: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in names {
        add_module(name, tree, &mut found)?;
    }
    Ok(found)
}

fn add_module(name: &str, tree: &Path, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let file = format!("{}.ko", name.replace('_', "-"));
    if found.iter().any(|(other, _)| *other == file) {
        return Ok(());
    }
    let path = find_module(tree, &file)
        .with_context(|| format!("the kernel's packages bring no module {name}"))?;
    let module = apt::decompress(&path)?;
    for dependency in elf::module_dependencies(&module, &path)? {
        add_module(&dependency, tree, found)?;
    }
    found.push((file, module));
    Ok(())
}

/// Module names take `-` and `_` for the same.
fn find_module(tree: &Path, file: &str) -> Option<PathBuf> {
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = entry.file_name().to_string_lossy().replace('_', "-");
                if name == file || name.strip_prefix(file).is_some_and(|e| e.starts_with('.')) {
                    return Some(path);
                }
            }
        }
    }
    None
}

fn only_entry(folder: &Path) -> Result<String> {
    let names: Vec<String> = fs::read_dir(folder)
        .with_context(|| format!("{}: cannot read", folder.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => bail!("{}: one kernel is expected, there are {names:?}", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_needed_and_init_systems_are_not() {
        assert!(is_needed("libc6") && is_needed("xen-utils-4.20") && is_needed("libgcc-s1"));
        assert!(!is_needed("systemd") && !is_needed("libpython3.13-stdlib"));
    }

    #[test]
    fn modules_are_found_by_either_spelling() {
        let tree = tempfile::tempdir().unwrap();
        let folder = tree.path().join("kernel/drivers");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("virtio_mmio.ko.xz"), "").unwrap();
        fs::write(folder.join("xen-privcmd.ko"), "").unwrap();
        assert!(find_module(tree.path(), "virtio-mmio.ko").is_some());
        assert!(find_module(tree.path(), "xen-privcmd.ko").is_some());
        assert!(find_module(tree.path(), "xen-priv.ko").is_none());
    }
}
