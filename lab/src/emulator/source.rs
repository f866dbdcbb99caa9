//! From QEMU's source package to the emulator, and to a backend of virtio devices.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};

use crate::{arch::Arch, manifest::Manifest, tree::Tree};

/// Where the source package lies, inside the tree.
pub(super) const ARCHIVES: &str = "/archives";
/// Where it is unpacked and built, inside the tree.
pub(super) const BUILD: &str = "/build";

/// What is changed, by name. The head of each patch is the report of what it mends, or makes faster.
const PATCHES: [(&str, &str); 4] = [
    ("svm-inject-once", include_str!("patches/svm-inject-once.patch")),
    ("xsave-honours-ts", include_str!("patches/xsave-honours-ts.patch")),
    ("sha-honours-ts", include_str!("patches/sha-honours-ts.patch")),
    ("pause-of-one-cpu", include_str!("patches/pause-of-one-cpu.patch")),
];

/// Unpacks the source, with Debian's own changes.
pub(super) fn unpack(tree: &Tree, manifest: &Manifest, archives: &Path) -> Result<()> {
    let mut description = None;
    for package in manifest.packages.iter().filter(|package| package.is_source()) {
        let place = inside(tree, ARCHIVES).join(&package.file);
        fs::copy(archives.join(&package.file), &place)
            .with_context(|| format!("{}: cannot copy", place.display()))?;
        if package.file.ends_with(".dsc") {
            description = Some(&package.file);
        }
    }
    let description = description.context("the emulator's source package has no .dsc file")?;
    // apt has checked the hashes; the signer's key is in no package here.
    let unpack = format!(
        "dpkg-source --no-check --extract {ARCHIVES}/{description} {BUILD}/source >/dev/null"
    );
    tree.run(&shell(&unpack))
}

/// Applies the patches; where one does not fit, the source has changed.
pub(super) fn patch(tree: &Tree) -> Result<()> {
    for (name, patch) in PATCHES {
        let place = format!("{ARCHIVES}/{name}.patch");
        let outside = inside(tree, &place);
        fs::write(&outside, patch)
            .with_context(|| format!("{}: cannot write", outside.display()))?;
        let apply = format!(
            "patch --strip 1 --fuzz 0 --forward --directory {BUILD}/source --input {place}"
        );
        tree.run(&shell(&apply)).with_context(|| {
            format!("{name}.patch: look whether QEMU still needs it, and adapt or drop it")
        })?;
    }
    Ok(())
}

/// QEMU's example of a backend of a disk, inside the folder where it is built.
pub(super) const BLOCK_BACKEND: &str = "contrib/vhost-user-blk/vhost-user-blk";

/// Builds the emulator, with what the lab needs alone, and [`BLOCK_BACKEND`]. Returns the folder where they are.
pub(super) fn build(tree: &Tree, arch: Arch, target: &str) -> Result<PathBuf> {
    let programs = [arch.emulator(), BLOCK_BACKEND].join(" ");
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    // Python's installer wants to see certificates, which a package's script would have gathered,
    // though it fetches nothing here.
    tree.run(&shell(&format!(
        "cat /usr/share/ca-certificates/mozilla/*.crt >/etc/ssl/certs/ca-certificates.crt && \
         mkdir {BUILD}/output && cd {BUILD}/output && \
         ../source/configure --cc=gcc --target-list={target} --without-default-features --enable-tcg \
         --enable-plugins --enable-tools --enable-vhost-user --disable-docs --disable-install-blobs \
         --disable-debug-info && \
         ninja -j {jobs} {programs} && strip {programs}"
    )))?;
    Ok(inside(tree, BUILD).join("output"))
}

fn inside(tree: &Tree, path: &str) -> PathBuf {
    tree.root().join(path.trim_start_matches('/'))
}

fn shell(script: &str) -> [String; 3] {
    ["sh", "-ec", script].map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_patch_begins_with_its_report() {
        for (name, patch) in PATCHES {
            let (report, change) = patch.split_once("\n--- a/").expect(name);
            for part in ["What: ", "Seen: ", "Versions: ", "Why this is right: "] {
                assert!(report.lines().any(|line| line.starts_with(part)), "{name}: {part}");
            }
            assert!(change.lines().any(|line| line.starts_with('+')), "{name}");
        }
    }
}
