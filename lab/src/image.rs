//! dom0's initramfs: a base that only depends on the packages, and the caller's payload after it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    arch::Arch, cache::write_whole, cpio::Archive, elf, manifest::digest_of, packages::MODULES,
};

const INIT: &str = include_str!("dom0/init.sh");
const AGENT: &str = include_str!("dom0/agent.sh");

/// Programs of dom0: name, and whether it lies in Xen's own folder (or in `usr/bin`).
const PROGRAMS: [(&str, bool); 17] = [
    ("xenstored", true),
    ("xenconsoled", true),
    ("xenconsole", true),
    ("xl", true),
    ("libxl-save-helper", true),
    ("xen-init-dom0", true),
    ("xen-diag", true),
    ("xen-hvmctx", true),
    ("xenctx", true),
    ("lsevtchn", true),
    ("xenstore-control", true),
    ("xenstore-exists", false),
    ("xenstore-list", false),
    ("xenstore-ls", false),
    ("xenstore-read", false),
    ("xenstore-rm", false),
    ("xenstore-write", false),
];

/// A file that the caller adds to dom0.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// Path in dom0, without the leading slash.
    pub(crate) path: String,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A file of the host, with its permissions.
    File(PathBuf),
    /// These bytes with these permissions.
    Bytes(Vec<u8>, u32),
}

/// The base initramfs of the lab in `lab`, built at its first use.
pub(crate) fn base(lab: &Path, arch: Arch) -> Result<PathBuf> {
    let recipe = format!("{INIT}\n{AGENT}\n{PROGRAMS:?}\n{MODULES:?}");
    let images = lab.join("images");
    let path = images.join(format!("base-{}.cpio", digest_of(recipe.as_bytes())));
    if !path.exists() {
        fs::create_dir_all(&images)?;
        let image = build_base(lab, arch).context("dom0's initramfs cannot be built")?;
        // Others may be building the same: the last one wins, with the same bytes.
        write_whole(&path, &image)?;
    }
    Ok(path)
}

fn build_base(lab: &Path, arch: Arch) -> Result<Vec<u8>> {
    let root = lab.join("root");
    let xen = xen_programs(&root)?;
    let mut archive = Archive::new();
    archive.character_device("dev/console", 5, 1)?;
    archive.character_device("dev/null", 1, 3)?;
    for folder in ["proc", "sys", "run", "tmp", "etc/xen", "var/log", "var/lib", "root", "sbin"] {
        archive.folder(folder)?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("lib/lab/agent", 0o755, AGENT.as_bytes())?;
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")?;
    archive.file("etc/xen/xl.conf", 0o644, b"autoballoon=\"off\"\n")?;

    add(&mut archive, "bin/busybox", &root.join("usr/bin/busybox"))?;
    let mut binaries = Vec::new();
    for (name, xens) in PROGRAMS.into_iter().filter(|(name, _)| !arch.lacks().contains(name)) {
        let path = if xens { xen.join(name) } else { root.join("usr/bin").join(name) };
        let inside = path.strip_prefix(&root)?.to_string_lossy().into_owned();
        add(&mut archive, &inside, &path)?;
        if xens {
            archive.symlink(&format!("usr/sbin/{name}"), &format!("/{inside}"))?;
        }
        binaries.push(path);
    }
    let loader = arch.loader().trim_start_matches('/');
    add(&mut archive, loader, &root.join(loader))?;
    let folder = format!("usr/lib/{}", arch.library_folder());
    let mut libraries = elf::libraries(&binaries, &[root.join(&folder)])?;
    // glibc loads it by itself to end a thread.
    libraries.insert("libgcc_s.so.1".to_owned(), root.join(&folder).join("libgcc_s.so.1"));
    for (name, path) in libraries {
        add(&mut archive, &format!("{folder}/{name}"), &path)?;
    }
    let modules = lab.join("modules");
    add(&mut archive, "lib/lab/order", &modules.join("order"))?;
    for name in fs::read_to_string(modules.join("order"))?.lines() {
        add(&mut archive, &format!("lib/lab/{name}"), &modules.join(name))?;
    }
    Ok(archive.finish())
}

/// The folder with Xen's programs, whatever its version.
pub(crate) fn xen_programs(root: &Path) -> Result<PathBuf> {
    fs::read_dir(root.join("usr/lib"))?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .find(|path| path.join("xl").exists())
        .context("Xen's packages bring no usr/lib/xen-*/bin/xl")
}

/// The initramfs of one boot: the base, then the payload.
pub(crate) fn with_payload(base: &Path, payload: &[Payload], target: &Path) -> Result<()> {
    let mut image = fs::read(base).with_context(|| format!("{}: cannot read", base.display()))?;
    let mut archive = Archive::new();
    for part in payload {
        match &part.content {
            Content::File(file) => add(&mut archive, &part.path, file)?,
            Content::Bytes(bytes, permissions) => archive.file(&part.path, *permissions, bytes)?,
        }
    }
    image.extend_from_slice(&archive.finish());
    fs::write(target, image).with_context(|| format!("{}: cannot write", target.display()))
}

fn add(archive: &mut Archive, path: &str, file: &Path) -> Result<()> {
    let read = || -> std::io::Result<_> { Ok((fs::read(file)?, fs::metadata(file)?)) };
    let (content, metadata) =
        read().with_context(|| format!("{}: cannot be read into dom0's {path}", file.display()))?;
    archive.file(path, metadata.permissions().mode() & 0o777, &content)
}
