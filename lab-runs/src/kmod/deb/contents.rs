//! What goes into which package, and where.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::{Arch, workspace};

use super::{
    output,
    package::{Package, fill},
    stamp::Stamp,
};
use crate::kmod::Module;

/// Where a shell looks for completions, and what it calls them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/@NAME@"),
    ("zsh", "usr/share/zsh/vendor-completions/_@NAME@"),
    ("fish", "usr/share/fish/vendor_completions.d/@NAME@.fish"),
];

/// A program of a package.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// What is installed.
    pub(super) file: PathBuf,
    /// The same for this machine: it says its manual pages and completions.
    pub(super) here: PathBuf,
}

/// The programs of the package `xen-eventfd`: each crate, and its program.
pub(super) const PROGRAMS: [(&str, &str); 2] =
    [("xen-eventfd-cli", "xen-eventfd"), ("xen-virtio", "xen-virtio")];

/// `xen-eventfd`: the commands, and all that is the same for every kernel.
pub(super) fn command(
    stage: &Path,
    folder: &Path,
    stamp: &Stamp,
    programs: &[Program],
    arch: Arch,
) -> Result<PathBuf> {
    let mut package = Package::new(stage, "xen-eventfd", arch.debian(), stamp)?;
    for program in programs {
        add_program(&mut package, program)?;
    }
    package
        .compressed("usr/share/man/man4/xen-eventfd.4.gz", template("command/xen-eventfd.4")?)?;
    package.file(
        "usr/lib/udev/rules.d/60-xen-eventfd.rules",
        0o644,
        template("command/60-xen-eventfd.rules")?,
    )?;
    package.file(
        "usr/lib/systemd/system/xen-virtio.service",
        0o644,
        template("command/xen-virtio.service")?,
    )?;
    let example = package.documentation("examples/virtio.toml");
    package.file(&example, 0o644, template("command/virtio.toml")?)?;
    for script in ["postinst", "prerm", "postrm"] {
        package.script(script, &template(&format!("command/{script}"))?, &[])?;
    }
    let header = read(&workspace().join("kernel/uapi/xen-eventfd.h"))?;
    package.file("usr/include/xen/xen-eventfd.h", 0o644, header)?;
    let licence = fs::read_to_string(workspace().join("LICENSE-MIT"))?;
    let values = [("MIT", licence.trim()), ("CRATES", &crates(arch)?)];
    let copyright = fill(&template("command/copyright")?, &values)?;
    package.file(&package.documentation("copyright"), 0o644, copyright)?;
    package.file(
        "usr/share/lintian/overrides/xen-eventfd",
        0o644,
        template("command/lintian-overrides")?,
    )?;
    package.build(folder, &template("command/control")?, &[])
}

/// A program, with its manual pages and completions.
fn add_program(package: &mut Package, program: &Program) -> Result<()> {
    let Program { name, file, here } = program;
    package.file(&format!("usr/bin/{name}"), 0o755, read(file)?)?;
    let say = |words: &[&str]| output(Command::new(here).args(words));
    let page = say(&["man"])?;
    for command in commands(name, &page) {
        let page = say(&["man", &command])?;
        package.compressed(&format!("usr/share/man/man1/{name}-{command}.1.gz"), page)?;
    }
    package.compressed(&format!("usr/share/man/man1/{name}.1.gz"), page)?;
    for (shell, path) in COMPLETIONS {
        let script = say(&["completion", shell])?;
        package.file(&path.replace("@NAME@", name), 0o644, script)?;
    }
    Ok(())
}

/// `xen-eventfd-modules-KERNEL`: the module, stripped, for one kernel.
pub(super) fn module(
    stage: &Path,
    folder: &Path,
    stamp: &Stamp,
    module: &Module,
    arch: Arch,
) -> Result<PathBuf> {
    let values = [("RELEASE", module.release.as_str()), ("KERNEL", module.version.as_str())];
    let name = format!("xen-eventfd-modules-{}", module.release);
    let mut package = Package::new(stage, name, arch.debian(), stamp)?;
    package.file(&installed(&module.release), 0o644, read(&module.path)?)?;
    package.file(&package.documentation("copyright"), 0o644, template("module/copyright")?)?;
    package.script("postinst", &template("module/postinst")?, &values)?;
    package.script("postrm", &template("module/postrm")?, &values)?;
    package.build(folder, &template("module/control")?, &values)
}

/// Where the module is installed: before what the kernel itself brings.
pub(super) fn installed(release: &str) -> String {
    format!("usr/lib/modules/{release}/updates/xen-eventfd.ko")
}

/// The commands that the main manual page of a program refers to.
fn commands(name: &str, page: &str) -> Vec<String> {
    let page = page.replace('\\', "");
    let prefix = format!("{name}-");
    page.lines()
        .filter_map(|line| line.trim().strip_prefix(&prefix)?.strip_suffix("(1)"))
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The crates that the commands are linked with: name, version and licence.
fn crates(arch: Arch) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = output(
        Command::new(cargo)
            .args(["tree", "--locked", "--edges", "normal"])
            .args(PROGRAMS.iter().flat_map(|(krate, _)| ["--package", krate]))
            .args(["--target", arch.rust_target(), "--prefix", "none", "--format", "{p}: {l}"])
            .current_dir(workspace()),
    )?;
    // Those of this repository say where they are.
    let mut lines: Vec<&str> = tree.lines().filter(|line| !line.contains(" (/")).collect();
    lines.sort_unstable();
    lines.dedup();
    ensure!(!lines.is_empty(), "cargo tree names no crate of the command");
    Ok(lines
        .iter()
        .map(|line| format!("  {}", line.replace(" (proc-macro)", "")))
        .collect::<Vec<_>>()
        .join("\n"))
}

fn template(name: &str) -> Result<String> {
    let path = workspace().join("packaging").join(name);
    fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{}: cannot read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_the_page_names_gets_its_own() {
        let page = ".TP\nxen\\-eventfd\\-run(1)\nRun\n.TP\nxen\\-eventfd\\-help(1)\n.TP\nx\n";
        assert_eq!(commands("xen-eventfd", page), ["run"]);
    }
}
