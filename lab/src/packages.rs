//! From a mirror to a lab: resolve, download, unpack, and make the few files that booting needs.

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
    cache::Cache,
    elf,
    manifest::Manifest,
    progress::Progress,
};

/// The modules that dom0 loads, and what they need before them.
pub(crate) const MODULES: [&str; 5] =
    ["xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs"];

/// Makes sure that a complete lab is in the cache and returns its digest.
///
/// A complete lab is used as it is, without apt and without a network, unless `refresh` asks for
/// the versions of today. A set-up that broke off goes on where it stopped.
pub(crate) fn set_up(cache: &Cache, arch: Arch, refresh: bool) -> Result<String> {
    if let Some(digest) = cache.current(arch).filter(|_| !refresh).filter(|d| usable(cache, d)) {
        return Ok(digest);
    }
    let progress = Progress::new();
    let _lock = cache.lock(progress)?;
    if let Some(digest) = cache.current(arch).filter(|_| !refresh).filter(|d| usable(cache, d)) {
        return Ok(digest);
    }

    let apt = Apt::new(cache.apt(arch), arch)?;
    let pending = cache.apt(arch).join("pending.json");
    let unfinished = Manifest::load(&pending).ok().filter(Manifest::is_current_layout);
    let manifest = match unfinished.filter(|_| !refresh) {
        Some(manifest) => {
            progress.stage("going on with a set-up that was not finished");
            manifest
        }
        None => {
            progress.stage("fetching the package lists");
            apt.update()?;
            progress.stage("resolving the packages");
            let manifest = apt.resolve()?;
            manifest.store(&pending)?;
            manifest
        }
    };
    let digest = manifest.digest();
    let folder = cache.lab(&digest);
    if !folder.join("manifest.json").exists() {
        progress.stage(&format!(
            "{} packages, {} MB to download",
            manifest.packages.len(),
            manifest.size() / 1_000_000
        ));
        apt.download(&manifest, &progress)?;
        progress.stage("unpacking");
        build(&folder, arch, &manifest, &apt.archives())?;
    }
    cache.set_current(arch, &digest)?;
    cache.prune(arch, &digest, |lab| {
        Manifest::load(&lab.join("manifest.json"))
            .is_ok_and(|manifest| manifest.architecture == arch.debian())
    });
    // Lists and archives served their purpose; they are as large as the lab.
    let _ = fs::remove_dir_all(cache.apt(arch));
    progress.stage(&format!(
        "ready: Xen {}, Linux {}, QEMU {}, in {}",
        manifest.version_of("xen-hypervisor-").unwrap_or("?"),
        manifest.version_of("linux-binary-").unwrap_or("?"),
        manifest.version_of("qemu-system-").unwrap_or("?"),
        folder.display()
    ));
    Ok(digest)
}

fn usable(cache: &Cache, digest: &str) -> bool {
    Manifest::load(&cache.lab(digest).join("manifest.json"))
        .is_ok_and(|manifest| manifest.is_current_layout())
}

/// Builds the lab beside its place and moves it there when it is complete.
fn build(folder: &Path, arch: Arch, manifest: &Manifest, archives: &Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("{}: cannot remove", partial.display()))?;
    }
    let root = partial.join("root");
    merge_usr(&root)?;
    for package in &manifest.packages {
        unpack(&archives.join(&package.file), &root)?;
    }
    check_merged(&root)?;
    extract_xen(&root.join("boot"), &partial.join("xen"))?;
    let modules = root.join("usr/lib/modules");
    let release = only_entry(&modules)?;
    fs::rename(modules.join(&release).join("vmlinuz"), partial.join("vmlinuz"))
        .context("the kernel's package brings no vmlinuz beside its modules")?;
    fs::write(partial.join("kernel-release"), &release)?;
    extract_modules(&modules.join(&release), &partial.join("modules"))?;
    ensure!(
        root.join(arch.loader().trim_start_matches('/')).exists(),
        "libc6 brings no {}",
        arch.loader()
    );
    manifest.store(&partial.join("manifest.json"))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(&partial, folder).with_context(|| format!("{}: cannot move there", folder.display()))
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

/// QEMU wants Xen as the ELF file that its package compresses.
fn extract_xen(boot: &Path, target: &Path) -> Result<()> {
    let compressed = fs::read_dir(boot)
        .ok()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("xen-") && name.ends_with(".gz")
        })
        .context("the hypervisor's package brings no boot/xen-*.gz")?;
    let mut xen = Vec::new();
    GzDecoder::new(fs::File::open(&compressed)?)
        .read_to_end(&mut xen)
        .with_context(|| format!("{}: cannot be decompressed", compressed.display()))?;
    fs::write(target, xen).with_context(|| format!("{}: cannot write", target.display()))
}

/// Decompresses dom0's modules and writes, into `order`, the order in which they load.
fn extract_modules(tree: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let mut order = Vec::new();
    for name in MODULES {
        extract_module(name, tree, target, &mut order)?;
    }
    fs::write(target.join("order"), order.join("\n") + "\n")?;
    Ok(())
}

fn extract_module(name: &str, tree: &Path, target: &Path, order: &mut Vec<String>) -> Result<()> {
    let file = format!("{}.ko", name.replace('_', "-"));
    if order.contains(&file) {
        return Ok(());
    }
    let path = find_module(tree, &file)
        .with_context(|| format!("the kernel's packages bring no module {name}"))?;
    let module = apt::decompress(&path)?;
    for dependency in elf::module_dependencies(&module, &path)? {
        extract_module(&dependency, tree, target, order)?;
    }
    fs::write(target.join(&file), module)?;
    order.push(file);
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
