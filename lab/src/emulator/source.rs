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

/// A statement that is missing in QEMU's source.
struct SourcePatch {
    file: &'static str,
    /// What it has to follow. It is there once.
    after: &'static str,
    statement: &'static str,
    /// What to look for where QEMU does it in another way.
    whether: &'static str,
}

const PATCHES: [SourcePatch; 2] = [
    // Nothing is left to deliver when the emulated CPU stops next.
    SourcePatch {
        file: "target/i386/tcg/system/svm_helper.c",
        after: "do_interrupt_x86_hardirq(env, vector, 1);",
        statement: " cs->exception_index = -1;",
        whether: "delivers the interrupt of a VMRUN twice when a CPU is asked to stop",
    },
    // For XSAVE, XSAVEOPT and XRSTOR alike, as for any other instruction that touches the registers.
    SourcePatch {
        file: "target/i386/tcg/fpu_helper.c",
        after: "/* The operand must be 64 byte aligned.  */",
        statement: " if (env->cr[0] & CR0_TS_MASK) raise_exception_ra(env, EXCP07_PREX, ra);",
        whether: "saves and restores registers with XSAVE while CR0.TS says that they are another's",
    },
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

/// Mends the mistakes; see the module's own documentation.
pub(super) fn patch(tree: &Tree) -> Result<()> {
    for patch in &PATCHES {
        let path = inside(tree, BUILD).join("source").join(patch.file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{}: QEMU's source has other files now", path.display()))?;
        fs::write(&path, patch.patched(&text)?)
            .with_context(|| format!("{}: cannot write", path.display()))?;
    }
    Ok(())
}

impl SourcePatch {
    fn patched(&self, text: &str) -> Result<String> {
        let Self { file, after, statement, whether } = self;
        ensure!(
            text.matches(after).count() == 1,
            "{file}: QEMU's source has changed: look whether it still {whether}, and patch or drop this"
        );
        Ok(text.replacen(after, &format!("{after}{statement}"), 1))
    }
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
        for patch in PATCHES {
            let SourcePatch { after, statement, .. } = patch;
            let source = format!("a {after}\nb");
            assert_eq!(patch.patched(&source).unwrap(), format!("a {after}{statement}\nb"));
            assert!(patch.patched("b").is_err());
            assert!(patch.patched(&format!("{source}{source}")).is_err());
        }
    }
}
