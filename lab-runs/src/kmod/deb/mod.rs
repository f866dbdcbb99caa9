//! `cargo xtask kmod deb`: Debian's packages of the command and of the module.
//!
//! `contents` says what goes into which package, `package` makes an archive of it, `stamp` gives it
//! a version, `install` tries it. The templates are in `packaging/`.

mod contents;
mod install;
mod package;
mod stamp;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::{Arch, Lab, build_static_for, target_folder, workspace};

use super::{Module, Objects, build, build_in};
use crate::tally::Tally;
use contents::Program;
use stamp::Stamp;

/// The packages that were built.
#[derive(Debug)]
pub(super) struct Packages {
    /// `xen-eventfd`.
    pub(super) command: PathBuf,
    /// `xen-eventfd-modules-KERNEL`.
    pub(super) module: PathBuf,
}

/// Builds the packages into a folder of `target/deb` for their architecture, in place of earlier ones.
pub(super) fn build_packages(lab: &Lab) -> Result<Packages> {
    build_with(lab, &Stamp::read()?)
}

fn build_with(lab: &Lab, stamp: &Stamp) -> Result<Packages> {
    let folder = target_folder().join("deb").join(lab.arch().debian());
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("{}: cannot remove", folder.display()))?;
    }
    let module = build(lab, false)?;
    pack(lab, &folder, stamp, &module)
}

/// Builds the packages and tries them. What does not hold ends it.
pub(super) fn test(lab: &Lab) -> Result<Tally> {
    let mut tally = Tally::default();
    let place = format!("packages for {}", lab.arch().debian());
    let mut holds = |what: &str| tally.judge(&place, what, Ok(()));
    let stamp = Stamp::read()?;
    let packages = build_with(lab, &stamp)?;
    repeats(lab, &stamp, &packages)?;
    holds("a module from nothing makes the same package");
    if lab.arch() == Arch::HOST {
        install::test(lab, &packages, &mut holds)?;
    } else {
        // Nothing of them runs on this machine, but in dom0.
        install::test_in_dom0(lab, &packages, &mut holds)?;
    }
    Ok(tally)
}

/// Builds the module from nothing, in a folder of its own, and packs it with the same programs.
fn repeats(lab: &Lab, stamp: &Stamp, packages: &Packages) -> Result<()> {
    let place = target_folder().join("deb-again").join(lab.arch().debian());
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let module = build_in(lab, Objects::Again)?;
    let again = pack(lab, &place, stamp, &module)?;
    for (one, other) in [(&packages.command, &again.command), (&packages.module, &again.module)] {
        ensure!(
            fs::read(one)? == fs::read(other)?,
            "{} and {} differ: diffoscope shows where",
            one.display(),
            other.display()
        );
    }
    fs::remove_dir_all(&place)?;
    Ok(())
}

fn pack(lab: &Lab, folder: &Path, stamp: &Stamp, module: &Module) -> Result<Packages> {
    let stage = folder.join("stage");
    let kernel = lab.kernel_build()?;
    let stripped = |file: &Path, what: &str| -> Result<PathBuf> {
        fs::create_dir_all(&stage)?;
        let copy = stage.join(file.file_name().context("a file has a name")?);
        fs::copy(file, &copy).with_context(|| format!("{}: cannot copy", file.display()))?;
        kernel.strip(&copy, what)?;
        Ok(copy)
    };
    let mut programs = Vec::new();
    for (krate, name) in contents::PROGRAMS {
        let file = stripped(&build_static_for(lab.arch(), krate, name)?, "--strip-all")?;
        programs.push(Program { name, file, here: build_static_for(Arch::HOST, krate, name)? });
    }
    let module = Module {
        path: stripped(&module.path, "--strip-debug")?,
        release: module.release.clone(),
        version: module.version.clone(),
    };
    let packages = Packages {
        command: contents::command(&stage.join("command"), folder, stamp, &programs, lab.arch())?,
        module: contents::module(&stage.join("module"), folder, stamp, &module, lab.arch())?,
    };
    fs::remove_dir_all(&stage)?;
    Ok(packages)
}

/// What a command says on standard output, run at the root of the repository if it does not say
/// where.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    if command.get_current_dir().is_none() {
        command.current_dir(workspace());
    }
    let output = command
        .output()
        .with_context(|| format!("{name} could not be started: packages are built on Debian"))?;
    ensure!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
