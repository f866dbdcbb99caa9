//! From QEMU's source package to one program.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, ensure};

use crate::{arch::Arch, manifest::Manifest, tree::Tree};

/// Where the source package lies, inside the tree.
pub(super) const ARCHIVES: &str = "/archives";
/// Where it is unpacked and built, inside the tree.
pub(super) const BUILD: &str = "/build";

/// The file that is mended.
const MENDED: &str = "target/i386/tcg/system/svm_helper.c";
/// What delivers the interrupt of a VMRUN. Nothing else of that file does.
const DELIVERS: &str = "do_interrupt_x86_hardirq(env, vector, 1);";
/// What has to follow: nothing is left to deliver when the emulated CPU stops next.
const DELIVERED: &str = " cs->exception_index = -1;";

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

/// Mends the mistake; see the module's own documentation.
pub(super) fn mend(tree: &Tree) -> Result<()> {
    let path = inside(tree, BUILD).join("source").join(MENDED);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{}: QEMU's source has other files now", path.display()))?;
    fs::write(&path, mended(&text)?).with_context(|| format!("{}: cannot write", path.display()))
}

fn mended(text: &str) -> Result<String> {
    ensure!(
        text.matches(DELIVERS).count() == 1,
        "QEMU delivers the interrupt of a VMRUN in another way now: look whether it still does so \
         twice when a CPU is asked to stop, and mend or drop this"
    );
    Ok(text.replacen(DELIVERS, &format!("{DELIVERS}{DELIVERED}"), 1))
}

/// Builds it, with what the lab needs alone, and returns the program.
pub(super) fn build(tree: &Tree, arch: Arch) -> Result<PathBuf> {
    let program = arch.emulator();
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    // Python's installer wants to see certificates, which a package's script would have gathered,
    // though it fetches nothing here.
    tree.run(&shell(&format!(
        "cat /usr/share/ca-certificates/mozilla/*.crt >/etc/ssl/certs/ca-certificates.crt && \
         mkdir {BUILD}/output && cd {BUILD}/output && \
         ../source/configure --cc=gcc --target-list={} --without-default-features --enable-tcg \
         --enable-plugins --disable-docs --disable-tools --disable-install-blobs \
         --disable-debug-info && \
         ninja -j {jobs} {program} && strip {program}",
        arch.emulator_target()
    )))?;
    Ok(inside(tree, BUILD).join("output").join(program))
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
    fn what_is_mended_must_be_there_once() {
        let source = format!("a {DELIVERS}\nb");
        assert_eq!(mended(&source).unwrap(), format!("a {DELIVERS}{DELIVERED}\nb"));
        assert!(mended("b").is_err());
        assert!(mended(&format!("{source}{source}")).is_err());
    }
}
