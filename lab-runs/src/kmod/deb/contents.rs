//! What goes into which package, and where.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::workspace;

use super::{
    output,
    package::{Package, fill},
    stamp::Stamp,
};
use crate::kmod::Module;

/// Where a shell looks for completions, and what it calls them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/xen-eventfd"),
    ("zsh", "usr/share/zsh/vendor-completions/_xen-eventfd"),
    ("fish", "usr/share/fish/vendor_completions.d/xen-eventfd.fish"),
];

/// `xen-eventfd`: the command, and all that is the same for every kernel.
pub(super) fn command(
    stage: &Path,
    folder: &Path,
    stamp: &Stamp,
    program: &Path,
) -> Result<PathBuf> {
    let mut package = Package::new(stage, "xen-eventfd", "amd64", stamp)?;
    package.file("usr/bin/xen-eventfd", 0o755, read(program)?)?;
    let say = |words: &[&str]| output(Command::new(program).args(words));
    let page = say(&["man"])?;
    for name in commands(&page) {
        let page = say(&["man", &name])?;
        package.compressed(&format!("usr/share/man/man1/xen-eventfd-{name}.1.gz"), page)?;
    }
    package.compressed("usr/share/man/man1/xen-eventfd.1.gz", page)?;
    for (shell, path) in COMPLETIONS {
        package.file(path, 0o644, say(&["completion", shell])?)?;
    }
    package
        .compressed("usr/share/man/man4/xen-eventfd.4.gz", template("command/xen-eventfd.4")?)?;
    package.file(
        "usr/lib/udev/rules.d/60-xen-eventfd.rules",
        0o644,
        template("command/60-xen-eventfd.rules")?,
    )?;
    let header = read(&workspace().join("kernel/uapi/xen-eventfd.h"))?;
    package.file("usr/include/xen/xen-eventfd.h", 0o644, header)?;
    let licence = fs::read_to_string(workspace().join("LICENSE-MIT"))?;
    let values = [("MIT", licence.trim()), ("CRATES", &crates()?)];
    let copyright = fill(&template("command/copyright")?, &values)?;
    package.file(&package.documentation("copyright"), 0o644, copyright)?;
    package.file(
        "usr/share/lintian/overrides/xen-eventfd",
        0o644,
        template("command/lintian-overrides")?,
    )?;
    package.build(folder, &template("command/control")?, &[])
}

/// `xen-eventfd-modules-KERNEL`: the module, stripped, for one kernel.
pub(super) fn module(
    stage: &Path,
    folder: &Path,
    stamp: &Stamp,
    module: &Module,
) -> Result<PathBuf> {
    let values = [("RELEASE", module.release.as_str()), ("KERNEL", module.version.as_str())];
    let name = format!("xen-eventfd-modules-{}", module.release);
    let mut package = Package::new(stage, name, "amd64", stamp)?;
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

/// The commands that the main manual page refers to.
fn commands(page: &str) -> Vec<String> {
    let page = page.replace('\\', "");
    page.lines()
        .filter_map(|line| line.trim().strip_prefix("xen-eventfd-")?.strip_suffix("(1)"))
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The crates that the command is linked with: name, version and licence.
fn crates() -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = output(
        Command::new(cargo)
            .args(["tree", "--locked", "--package", "xen-eventfd-cli", "--edges", "normal"])
            .args([
                "--target",
                "x86_64-unknown-linux-gnu",
                "--prefix",
                "none",
                "--format",
                "{p}: {l}",
            ])
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
        assert_eq!(commands(page), ["run"]);
    }
}
