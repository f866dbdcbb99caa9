//! The Rust metadata of a kernel, which its headers' packages lack.
//!
//! rustc accepts a crate's metadata only from the very crate that the kernel was linked with, and
//! the names of its symbols carry a hash of it. Same source, same configuration, same compilers give
//! the same hash; modpost compares each symbol that a module uses with those of the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use super::packages::source_name;
use crate::{arch::Arch, progress::Progress, tree::Tree};

/// Where the source is unpacked, inside the tree.
const BUILD: &str = "/build";

/// Of drivers and the like the build reads Kconfig files and headers alone; that saves 1 GB and half
/// of the time. Xen's drivers stay, to be read.
const NOT_BUILT: [&str; 6] = [
    "drivers/[!x]*.[cS]",
    "sound/*.[cS]",
    "fs/*/*.[cS]",
    "net/*.[cS]",
    "tools/testing/*",
    "Documentation/*.rst",
];

/// What a module's author wants to read when the rest of the source is gone.
const KEPT: [&str; 11] = [
    "rust",
    "samples/rust",
    "drivers/android/binder",
    "drivers/xen",
    "arch/arm/xen",
    "arch/arm64/xen",
    "arch/x86/xen",
    "include/xen",
    "virt/kvm",
    "fs/eventfd.c",
    "kernel/sched/wait.c",
];

/// Makes the metadata and lays it among the headers.
pub(super) fn generate(tree: &Tree, arch: Arch, release: &str, progress: Progress) -> Result<()> {
    let root = tree.root();
    let build = root.join(BUILD.trim_start_matches('/'));
    let headers = root.join(format!("usr/src/linux-headers-{release}"));
    let source = source_name(release);
    let archive = format!("usr/src/{source}.tar.xz");

    // The archive goes when the source is there.
    if root.join(&archive).exists() {
        progress.stage("unpacking the kernel's source");
        if build.exists() {
            fs::remove_dir_all(&build)?;
        }
        fs::create_dir(&build)?;
        let mut tar = words(&["tar", "--extract", "--strip-components=1", "--anchored"]);
        tar.extend(NOT_BUILT.iter().map(|pattern| format!("--exclude={source}/{pattern}")));
        tar.extend([format!("--directory={BUILD}"), format!("--file=/{archive}")]);
        tree.run(&tar)?;
        fs::remove_file(root.join(&archive))?;
    }

    let own = fs::read_to_string(headers.join(".config"))
        .context("the headers' packages bring no .config")?;
    fs::write(build.join(".config"), &own)?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let make = |target: &str| {
        let mut make = words(&["make", "-s"]);
        make.extend([format!("--jobs={jobs}"), format!("--directory={BUILD}")]);
        make.push(format!("KERNELRELEASE={release}"));
        make.push(format!("CC={}", compiler(&own)?));
        make.extend(words(arch.kernel_make()));
        make.push(target.to_owned());
        tree.run(&make)
    };
    make("olddefconfig")?;
    let new = fs::read_to_string(build.join(".config"))?;
    if let Some(line) = difference(&own, &new) {
        bail!("the kernel of {release} was configured with other tools than these: {line}");
    }
    progress.stage("generating the kernel's Rust metadata: a few minutes of processor time");
    make("modules_prepare")?;

    let copied = overlay(&build, &headers)?;
    ensure!(copied > 0, "the kernel's build made no Rust metadata in {}", build.display());
    let clippy = build.join(".clippy.toml");
    let common = headers_common(root, &headers)?;
    fs::copy(&clippy, common.join(".clippy.toml"))
        .with_context(|| format!("{}: cannot copy", clippy.display()))?;
    Ok(())
}

/// Keeps what is worth reading and removes what only the generation needed.
pub(super) fn tidy(root: &Path, release: &str) -> Result<()> {
    let build = root.join(BUILD.trim_start_matches('/'));
    if build.exists() {
        keep(&build, &root.join("usr/src").join(source_name(release)))?;
        fs::remove_dir_all(&build)?;
    }
    for entry in fs::read_dir(root.join("usr/src"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("rustc-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The compiler that the kernel was built with, from its configuration.
fn compiler(config: &str) -> Result<&str> {
    config
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_CC_VERSION_TEXT=\"")?.split_whitespace().next())
        .context("the kernel's configuration names no compiler")
}

/// The first line that one of them lacks.
fn difference<'a>(own: &'a str, new: &'a str) -> Option<&'a str> {
    let lacks = |text: &str, line: &str| !text.lines().any(|known| known == line);
    if own == new {
        return None;
    }
    own.lines().find(|line| lacks(new, line)).or_else(|| new.lines().find(|line| lacks(own, line)))
}

/// Copies what rustc reads to where the headers would have it.
fn overlay(build: &Path, headers: &Path) -> Result<usize> {
    let target = headers.join("rust");
    fs::create_dir_all(&target)?;
    let mut copied = 0;
    for entry in fs::read_dir(build.join("rust"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("lib") && (name.ends_with(".rmeta") || name.ends_with(".so")) {
            fs::copy(entry.path(), target.join(&name)).with_context(|| format!("{name}: copy"))?;
            copied += 1;
        }
    }
    let target = build.join("scripts/target.json");
    if target.exists() {
        fs::copy(target, headers.join("scripts/target.json"))?;
    }
    Ok(copied)
}

/// The folder with the headers that all flavours share; the Makefile of the flavour names it.
fn headers_common(root: &Path, headers: &Path) -> Result<PathBuf> {
    let makefile = fs::read_to_string(headers.join("Makefile"))?;
    makefile
        .lines()
        .find_map(|line| line.strip_prefix("include /")?.strip_suffix("/Makefile"))
        .map(|path| root.join(path))
        .context("the headers' Makefile includes no other")
}

fn keep(build: &Path, target: &Path) -> Result<()> {
    for path in KEPT {
        let from = build.join(path);
        let to = target.join(path);
        if let (true, Some(parent)) = (from.exists(), to.parent()) {
            fs::create_dir_all(parent)?;
            fs::rename(from, to).with_context(|| format!("{path}: cannot be kept"))?;
        }
    }
    // Objects are nothing to read.
    for entry in fs::read_dir(target.join("rust"))?.flatten() {
        let path = entry.path();
        let ends = |end: &str| path.extension().is_some_and(|extension| extension == end);
        if path.is_file() && (ends("rmeta") || ends("so") || ends("o")) {
            fs::remove_file(path)?;
        } else if path.ends_with("host") {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_the_kernels_own() {
        let config =
            "# x\nCONFIG_CC_VERSION_TEXT=\"x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0\"\n";
        assert_eq!(compiler(config).unwrap(), "x86_64-linux-gnu-gcc-14");
        assert!(compiler("").is_err());
    }

    #[test]
    fn a_changed_configuration_is_named() {
        assert_eq!(difference("A=y\nB=y\n", "A=y\nB=y\n"), None);
        assert_eq!(difference("A=y\nB=y\n", "A=y\n"), Some("B=y"));
        assert_eq!(difference("A=y\n", "A=y\nC=y\n"), Some("C=y"));
    }
}
